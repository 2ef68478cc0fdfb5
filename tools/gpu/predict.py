"""How long a Gauss-Newton product of a ProtoNet with Conv4-64 should take on a device, from floors alone.

usage: python tools/gpu/predict.py [--tasks 4096] [--vectors 32] [--chunk 16]

Each launch takes the longer of its flops at the data sheet's peak and its bytes at the data sheet's bandwidth, every
tensor read or written once, plus a launch's latency; nothing overlaps. Real kernels reach a share of a floor: an
optimistic figure, not a measurement.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from chips import CHIPS

LAUNCH_US = 5.0
LAUNCHES = 43 + 24  # a chunk of tasks: a product, and the forward pass
SIDES, CHANNELS, TAPS = (28, 14, 7, 3), 64, 9


class Launch(NamedTuple):
    """One kernel for a chunk: what it computes and what it moves."""

    kernel: str
    flops: float
    bytes: float
    products: bool  # whether its flops are products, which `precision` is about


def launches(tasks: int, vectors: int, images: int, queries: int, ways: int) -> Iterator[Launch]:
    """Of one product of a chunk, with the forward pass: it is kept only for another product of the same chunk."""
    for block, side in enumerate(SIDES):
        P, Q = tasks * images * side**2, tasks * images * (side // 2) ** 2
        C, O, K = (1 if block == 0 else CHANNELS), CHANNELS, vectors
        product = 2 * P * K * TAPS * C * O
        weights = 4 * TAPS * C * O * K
        x, dx, y, dy = 4 * P * C, 4 * P * K * C, 4 * P * O, 4 * P * K * O
        pooled, dpooled = 4 * Q * O, 4 * Q * K * O
        first = block == 0
        yield Launch("forward", product / K, x + weights / K + y, True)
        # moments, then norm, activation and pool
        yield Launch("forward", 9 * P * O, 3 * y + 3 * pooled, False)
        yield Launch(
            "conv_push", (1 if first else 2) * product, x + (0 if first else dx) + weights + dy, True
        )
        yield Launch("norm_act_pool_gather", 5 * P * K * O, dy + y + pooled + dpooled, False)
        yield Launch("norm_act_pool_jvp", 5 * Q * K * O, 2 * dpooled + 2 * pooled, False)
        yield Launch("norm_act_pool_affine", 4 * Q * K * O, dpooled + 2 * pooled, False)
        yield Launch("norm_act_pool_vjp", 3 * P * K * O, dy + y + dpooled + 2 * pooled, False)
        yield Launch("conv_gram", product, x + dy + weights, True)
        if not first:
            yield Launch("conv_pull", product, dy + weights + dx, True)
    D = CHANNELS
    embeddings = 4 * tasks * images * D * (2 * vectors + 1)
    yield Launch("proto_gn", 8 * tasks * vectors * queries * ways * D, embeddings, False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=4096)
    parser.add_argument("--vectors", type=int, default=32)
    parser.add_argument("--chunk", type=int, default=16)
    options = parser.parse_args()
    chunks = -(-options.tasks // options.chunk)
    work = list(launches(options.chunk, options.vectors, 100, 75, 5))
    print(f"{options.tasks} tasks × {options.vectors} vectors, {chunks} chunks of {options.chunk} tasks")
    for architecture in ("sm_80", "sm_90", "sm_100"):
        chip = CHIPS[architecture]
        for precision in ("fp32", "tf32x3", "tf32"):
            floors: dict[str, float] = {}
            for launch in work:
                peak = chip.peak(precision if launch.products else "fp32")
                seconds = max(launch.flops / peak, launch.bytes / chip.bandwidth)
                floors[launch.kernel] = floors.get(launch.kernel, 0.0) + seconds * chunks
            latency = LAUNCHES * LAUNCH_US * 1e-6 * chunks
            parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in floors.items() if seconds > 0.01)
            total = sum(floors.values()) + latency
            print(f"{chip.name:<14} {precision:<6} {total:6.2f} s: {parts}; launches {latency:.2f}")


if __name__ == "__main__":
    main()
