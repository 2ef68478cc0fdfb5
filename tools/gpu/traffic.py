"""Bytes that kernels bound by memory move, against those they must: each tensor read or written once.

usage: python tools/gpu/traffic.py [OP ...]

The strict interpreter counts at small shapes whose rows are whole sectors. Memory traffic is what is left with caches
that hold all that one launch touches; a scratch tensor counts as what it costs. Cache traffic is what programs load
and store that they had not themselves loaded or stored before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rung import ROOT, Failure, environment, finish, triton_path

MOST = 1.1  # that may be moved from and to memory, and from and to caches, as a multiple of the least
# A tangent of proto_gn sweeps the task's embeddings twice, and all tangents the same ones: second-level cache.
MOST_CACHED = {"proto_gn": 1.75}
# Arguments that have to be read twice: sums over a task are needed before any of its positions can be finished.
AGAIN = {"norm_act_pool_hvp": (0, 3, 5, 13, 14, 15, 18)}


def calls() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls of ops that are bound by memory: those of an example with several kernels are told apart as they launch."""
    import torch

    from tlxml_fast.ops import norm_act_pool, proto_gn, softmax_gn
    from tlxml_fast.ops.norm_act_pool import Pool

    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    logits, u = normal(2, 64, 8), normal(2, 16, 64, 8)
    yield "softmax_gn", lambda: softmax_gn(logits, u)

    labels = torch.arange(40).remainder(8).expand(2, 40)
    tensors = (normal(2, 40, 64), normal(2, 120, 64), labels, normal(2, 16, 40, 64), normal(2, 16, 120, 64))
    for distance in ("sqeuclidean", "cosine"):
        yield "proto_gn", lambda d=distance: proto_gn(*tensors, ways=8, distance=d)

    for pool in (Pool(), Pool(2, 2)):
        for batch in (True, False):
            case = ((2, 4, 8, 8, 32), 4, pool, batch)
            for name, (function, _, arguments) in norm_act_pool.examples(torch.float32, g, *case).items():
                yield name, lambda f=function, a=arguments: f(*a)


def measure(asked: list[str]) -> Iterator[tuple[str, int, int, int]]:
    """Op, the least bytes, those from and to memory, those from and to caches; a launch at a time."""
    import strict_interpreter
    import torch

    from tlxml_fast.ops import _triton

    found: list[tuple[str, int, int, int]] = []
    plain = _triton.kernel

    def kernel(op: str) -> Callable[..., None] | None:
        launcher = plain(op)
        if launcher is None:
            return None

        def counted(*arguments: Any) -> None:
            tensors = {x.data_ptr(): x.nbytes for x in arguments if isinstance(x, torch.Tensor)}
            with strict_interpreter.moved() as launches:
                launcher(*arguments)
            memory, cache = sum(m.memory for m in launches), sum(m.sectors for m in launches)
            again = [arguments[i] for i in AGAIN.get(op, ()) if arguments[i] is not None]
            least = sum(tensors.values()) + sum(x.nbytes for x in again)
            found.append((op, least, memory, cache))

        return counted

    _triton.kernel = kernel
    for name, call in calls():
        if not asked or name in asked:
            call()
            yield from found
            found.clear()


def run() -> str:
    worst, count, wrong = 0.0, 0, []
    for op, least, memory, cache in measure(sys.argv[1:]):
        line = f"{op:<22} least {least:>8} B, memory × {memory / least:.3f}, caches × {cache / least:.3f}"
        print(line, flush=True)
        if memory > MOST * least or cache > MOST_CACHED.get(op, MOST) * least:
            wrong.append(line)
        worst, count = max(worst, memory / least), count + 1
    if wrong:
        raise Failure(f"{len(wrong)} of {count} launches move too much; the first: {wrong[0]}")
    if not count:
        raise Failure("nothing was launched")
    return f"{count} launches, at most {worst:.3f} times the least from and to memory"


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") != "1":
        variables = environment(*triton_path(), str(ROOT / "tests"), str(ROOT), TRITON_INTERPRET="1")
        os.execve(sys.executable, [sys.executable, *sys.argv], variables)
    import strict_interpreter

    strict_interpreter.install()
    finish(run)
