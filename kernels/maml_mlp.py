"""MAML on a multilayer perceptron, whole tasks in one launch: csrc/cpu/maml_mlp.cpp without its exact Hessian.

A work item is a task and a tile of its tangents. Its program adapts, storing theta_s of every step, takes the tangents
forward through the same pass over the support set, and then pulls cotangents back through passes of their own:

    v <- v - D (H v)    the query set: J v, Lambda J v, (df/dtheta)^T    lambda <- lambda - H (D lambda), backwards

Activations of a chunk of examples stay in registers and shared memory (maml_mlp_passes.py). In memory, some kilobytes
that no other program touches, are theta_s and each tangent twice, for a step reads one and writes the other. Programs
take items in turns, so that this does not grow with their number. `sums` come of each task's part by a second, small
launch, which adds tasks in their order. Nothing that decides the order of a sum depends on T, K or the device.

The floor: with s, q flops of a forward pass over support and query and f, g in their first layers, a tangent costs
2 steps (6s - 4f) + 2 (2q - g), and a tile of them 2 steps (3s - f) + q besides; across DRAM must go tasks, V and
results. For 34-32-5, 5 steps, 25 + 75 examples, 64 tasks and K = 32 that is 4.9 Gflop, tiles of 4, and 12 MB, the parts
of the sums among them: 29 us of a third of the 495 Tflop/s of an H100's tensor cores, for products are tf32x3, and 3.5
us of its bandwidth. Padding (34 inputs to 48, 5 classes to 16, 25 and 75 examples to 32 and 80) makes 2.4 times as
much of it. But products are small, and most instructions split numbers and carry them from a product's layout to the
next one's: it is bound by these, and by their latency. So programs are of few warps, and many on a multiprocessor.
An H200 takes 0.69 ms for these 64 tasks, one in thirty of the floor's flops.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.errors import TlxError
from tlxml_fast.kernels import maml_mlp_passes as passes
from tlxml_fast.kernels.card import Card, meta
from tlxml_fast.kernels.maml_mlp_passes import INPUTS, OUTPUTS, WIDE
from tlxml_fast.kernels.target import all_registers


# Sizes and addresses may not be specialised: they must not decide layouts, and with them the order of sums.
@triton.jit(
    do_not_specialize=["items", "tiles", "tile", "K", "S", "n", "P", "steps", "inputs"],
    do_not_specialize_on_alignment=[
        "support", "support_targets", "query", "query_targets", "omega", "rates", "V", "U", "weights",
        "logits", "dlogits", "dtheta", "pulled",
    ],
)  # fmt: skip
def maml_mlp_kernel(
    support, support_targets, query, query_targets, omega, rates, V, U, weights,
    logits, dlogits, dtheta, pulled, thetas, moving,
    items, tiles, tile, K, S, n, P, steps, inputs,
    LAYERS: tl.constexpr, L: tl.constexpr, FIRST: tl.constexpr, LOSS: tl.constexpr,
    E: tl.constexpr, DEPTH: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """What is asked for is not None: see ops.h. FIRST is the first adapted layer, E the examples of a chunk.

    thetas [programs, steps + 2, PACKED], the rates last, and moving [programs, tile, 2, PACKED] are scratch. pulled
    [T, K, P] are the parts of the sums where weights are given.
    """
    F: tl.constexpr = LAYERS[0][INPUTS]
    C: tl.constexpr = LAYERS[L - 1][OUTPUTS]
    one = tl.full((), 1, omega.dtype.element_ty)
    program = tl.program_id(0).to(tl.int64)
    thetas += program * (steps + 2) * PACKED
    moving += program * tile * 2 * PACKED
    packed_rates = thetas + (steps + 1) * PACKED
    passes.repack(rates, packed_rates, True, LAYERS, L, DEPTH)
    for item in tl.range(tl.program_id(0), items, tl.num_programs(0), disable_licm=True):
        t = (item // tiles).to(tl.int64)
        begin = (item % tiles) * tile
        count = tl.minimum(tile, K - begin)
        at = t * K + begin  # of its tangents among all
        x_at, y_at, q_at = support + t * S * F, support_targets + t * S * C, query + t * n * F

        passes.repack(omega, thetas, True, LAYERS, L, DEPTH)
        if V is not None:
            for k in tl.range(count, disable_licm=True):
                V_at = V + (begin + k).to(tl.int64) * P
                passes.repack(V_at, moving + 2 * k * PACKED, True, LAYERS, L, DEPTH)
        tl.debug_barrier()

        for s in tl.range(steps, disable_licm=True):
            theta = thetas + s * PACKED
            for chunk in tl.range(0, S, E, disable_licm=True):
                x = (x_at, chunk, S, inputs)
                share, hs, slopes, gzs, bends = passes.support_pass(
                    x, y_at, one, theta, LOSS, LAYERS, L, E, DEPTH
                )
                base = thetas + (s + (chunk > 0)) * PACKED
                passes.descend(
                    theta, base, theta + PACKED, packed_rates, x, hs, gzs, LAYERS, L, FIRST, E, DEPTH
                )
                if V is not None:
                    for k in tl.range(count, disable_licm=True):
                        v = moving + (2 * k + s % 2) * PACKED
                        into = moving + (2 * k + 1 - s % 2) * PACKED
                        base = moving + (2 * k + (s + (chunk > 0)) % 2) * PACKED
                        passes.hessian(
                            v, base, into, None, packed_rates, theta, share, x, hs, slopes, gzs, bends,
                            LOSS, LAYERS, L, 0, FIRST, E, DEPTH,
                        )  # fmt: skip
                tl.debug_barrier()

        theta = thetas + steps * PACKED
        for chunk in tl.range(0, n, E, disable_licm=True):
            x = (q_at, chunk, n, inputs)
            places, inside = passes.example_places(chunk, n, C, 0, LAYERS[L - 1][WIDE], E)
            share = passes.shares(chunk, n, one, LOSS, C, E)
            hs, slopes, _ = passes.forward(x, theta, LAYERS, L, E, DEPTH)
            if logits is not None:
                tl.store(logits + t * n * C + places, hs[L - 1], mask=inside & (begin == 0))
            for k in tl.range(count, disable_licm=True):
                v = moving + (2 * k + steps % 2) * PACKED
                into = moving + (2 * k + 1 - steps % 2) * PACKED
                row = (at + k) * n * C
                if V is not None and (dlogits is not None or weights is not None):
                    dhs, _ = passes.tangents(v, None, theta, x, hs, slopes, LAYERS, L, 0, E, DEPTH)
                    if dlogits is not None:
                        tl.store(dlogits + row + places, dhs[L - 1], mask=inside)
                if pulled is not None:
                    if weights is not None:
                        g = passes.output_curve(
                            hs[L - 1], dhs[L - 1], share * tl.load(weights + t), LOSS, LAYERS, L - 1
                        )
                    elif U is not None:
                        g = tl.load(U + row + places, mask=inside, other=0.0)
                    else:
                        y = tl.load(query_targets + t * n * C + places, mask=inside, other=0.0)
                        g = passes.loss_gradient(hs[L - 1], y, share, LOSS, LAYERS, L - 1)
                    passes.pull_back(g, into, chunk == 0, theta, x, hs, slopes, LAYERS, L, E, DEPTH)
            tl.debug_barrier()
        if dtheta is not None:
            for k in tl.range(count, disable_licm=True):
                v = moving + (2 * k + steps % 2) * PACKED
                passes.repack(v, dtheta + (at + k) * P, False, LAYERS, L, DEPTH)

        if pulled is not None:
            for i in tl.range(steps, disable_licm=True):
                s = steps - 1 - i
                theta = thetas + s * PACKED
                for chunk in tl.range(0, S, E, disable_licm=True):
                    x = (x_at, chunk, S, inputs)
                    share, hs, slopes, gzs, bends = passes.support_pass(
                        x, y_at, one, theta, LOSS, LAYERS, L, E, DEPTH
                    )
                    for k in tl.range(count, disable_licm=True):
                        v = moving + (2 * k + (steps + 1 + i) % 2) * PACKED
                        into = moving + (2 * k + (steps + i) % 2) * PACKED
                        base = moving + (2 * k + (steps + 1 + i + (chunk > 0)) % 2) * PACKED
                        passes.hessian(
                            v, base, into, packed_rates, None, theta, share, x, hs, slopes, gzs, bends,
                            LOSS, LAYERS, L, FIRST, 0, E, DEPTH,
                        )  # fmt: skip
                    tl.debug_barrier()
            for k in tl.range(
                count, disable_licm=True
            ):  # after the steps twice and the query set the second of the two is the last
                v = moving + (2 * k + 1) * PACKED
                passes.repack(v, pulled + (at + k) * P, False, LAYERS, L, DEPTH)
        tl.debug_barrier()  # the next item writes what this one reads


@triton.jit(do_not_specialize=["T", "more"])
def task_sum_kernel(parts, sums, T, size, more, BLOCK: tl.constexpr):
    """sums [size] = the sum of parts [T, size] in the order of tasks, after what is there if `more`.

    Unrolled, so that eight loads are in flight.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(sums + i, mask=(i < size) & (more != 0), other=0.0)
    for t in tl.range(T, loop_unroll_factor=8, disable_licm=True):
        total += tl.load(parts + tl.cast(t, tl.int64) * size + i, mask=i < size, other=0.0)
    tl.store(sums + i, total, mask=i < size)


# ---- launching ------------------------------------------------------------------------------------------------------


class Configuration(NamedTuple):
    """Examples of a chunk, inputs of the first layer at a time, warps of a program, how many of which fit."""

    examples: int
    depth: int
    num_warps: int
    programs: int  # on each multiprocessor


# The fastest of several on an H200. With 32 examples registers spill, to the first-level cache; 16 take a third longer.
NARROW, WIDER, DEEP = Configuration(32, 16, 2, 4), Configuration(16, 16, 2, 4), Configuration(16, 16, 4, 2)
DOUBLE = Configuration(16, 16, 8, 1)
MAY_SPILL = 200
TILES = (1, 2, 4, 8)  # tangents of an item: more would leave the second-level cache
MAX_LAYERS, MAX_WIDTH, MAX_UNITS = 8, 64, 272  # beyond these kernels compile for minutes, and spill
MAX_PARTS = 1 << 27  # numbers of the tasks' parts of the sums that are held at once
SUMMED = 128  # numbers of the sums a program, one warp


def padded(width: int) -> int:
    """The power of two, 16 or more, that a width is padded to."""
    return max(16, triton.next_power_of_2(width))


def covers(table: list[list[int]], exact: bool = False) -> str | None:
    """Why the kernel does not run the network of ops.h's table; None if it does. exact: for the exact Hessian."""
    if exact:
        return "the Triton kernel has no third derivatives"
    if len(table) > MAX_LAYERS:
        return f"{len(table)} are too many layers for the Triton kernel, which unrolls up to {MAX_LAYERS}"
    widest, units = max(row[1] for row in table), sum(padded(row[1]) for row in table)
    if widest > MAX_WIDTH:
        return f"the Triton kernel keeps layers of up to {MAX_WIDTH} units in registers, not of {widest}"
    if units > MAX_UNITS:
        return f"the Triton kernel unrolls layers of up to {MAX_UNITS} units in all, padded, not of {units}"
    return None


def unrolled(
    table: list[list[int]], leaks: list[float], depth: int
) -> tuple[tuple[tuple[int | float, ...], ...], int]:
    """The rows of ops.h's table as maml_mlp_passes.py reads them, and how many numbers packed parameters are."""
    rows, packed = [], 0
    for (inputs, outputs, weight, bias, activation, _), leak in zip(table, leaks, strict=True):
        deep = padded(inputs) if rows else triton.cdiv(inputs, depth) * depth
        wide = padded(outputs)
        end = packed + wide * deep
        rows.append((inputs, outputs, weight, bias, activation, leak, deep, wide, packed, end))
        packed = end + (0 if bias < 0 else wide)
    return tuple(rows), packed


def configuration(table: list[list[int]], dtype: torch.dtype) -> Configuration:
    """With few warps a thread has more of a product to itself, until registers spill."""
    if dtype == torch.float64:
        return DOUBLE
    if len(table) > 2:
        return DEEP
    return NARROW if max(row[1] for row in table) <= 32 else WIDER


def compile_options(chosen: Configuration) -> dict[str, int]:
    """Of a launch. Loops may not be pipelined: they read what an iteration before wrote."""
    return all_registers({"num_warps": chosen.num_warps, "num_stages": 1})


def tile_of(T: int, K: int, programs: int) -> int:
    """As many tangents to share a pass over the primal, half a tangent's work, as let programs end the soonest."""
    return min(TILES, key=lambda tile: triton.cdiv(T * triton.cdiv(K, tile), programs) * (2 * tile + 1))


def maml_mlp(
    support: Tensor, support_targets: Tensor, query: Tensor, query_targets: Tensor | None, omega: Tensor,
    rates: Tensor, table: Tensor, leaks: Tensor, V: Tensor | None, U: Tensor | None, weights: Tensor | None,
    logits: Tensor | None, dlogits: Tensor | None, dtheta: Tensor | None, pulled: Tensor | None,
    sums: Tensor | None, T: int, K: int, S: int, n: int, P: int, layers: int, steps: int, loss: int,
) -> None:  # fmt: skip
    """The op of ops.h on a device, but for the exact Hessian; shapes and meaning as there."""
    rows = table.tolist()
    if why := covers(rows, sums is not None and query_targets is not None):
        raise TlxError(f"maml_mlp: {why}.")
    if sums is not None and pulled is not None:
        raise TlxError("maml_mlp: sums and pulled are for one launch each.")
    first = next((i for i, row in enumerate(rows) if row[5]), layers)
    if first == layers:
        steps, first = 0, 0
    chosen = configuration(rows, omega.dtype)
    processors = torch.cuda.get_device_properties(omega.device).multi_processor_count if omega.is_cuda else 1
    programs = chosen.programs * processors
    tile = tile_of(T, K, programs)
    tiles = max(1, triton.cdiv(K, tile))
    block = T if sums is None else max(1, min(T, MAX_PARTS // (K * P)))
    programs = min(programs, block * tiles)
    unrolled_layers, packed = unrolled(rows, leaks.tolist(), chosen.depth)
    thetas = omega.new_empty(programs, steps + 2, packed)
    moving = omega.new_empty(programs, tile, 2, packed)
    if sums is not None:
        pulled = omega.new_empty(block, K, P)
    for begin in range(0, T, block):
        part = slice(begin, begin + block)
        of_tasks = [x if x is None else x[part] for x in (support, support_targets, query, query_targets)]
        results = [x if x is None else x[part] for x in (logits, dlogits, dtheta)]
        count = len(of_tasks[0])
        maml_mlp_kernel[(min(programs, count * tiles),)](
            *of_tasks, omega, rates, V, U if U is None else U[part], weights if weights is None else weights[part],
            *results, pulled, thetas, moving, count * tiles, tiles, tile, K, S, n, P, steps, rows[0][0],
            LAYERS=unrolled_layers, L=layers, FIRST=first, LOSS=loss, E=chosen.examples, DEPTH=chosen.depth,
            PACKED=packed, **compile_options(chosen),
        )  # fmt: skip
        if sums is not None:
            size = K * P
            task_sum_kernel[(triton.cdiv(size, SUMMED),)](
                pulled, sums, count, size, int(begin > 0), BLOCK=SUMMED, num_warps=1
            )


# ---- cards ----------------------------------------------------------------------------------------------------------

UNITS = {torch.float32: ("tf32x3", 4), torch.float64: ("fp64", 8)}


def cards() -> list[Card]:
    """Sums of 64 5-way 5-shot tasks, 5 steps and K = 32, for a network of every configuration, and other requests."""
    made = [_card(widths, "sums", dtype) for widths in ((34, 32, 5), (64, 64, 5)) for dtype in UNITS]
    made += [
        _card((34, 32, 5), asked, torch.float32) for asked in ("gradients", "dlogits", "dtheta", "pulled")
    ]
    T, size = 64, 32 * 1285
    made.append(
        Card(
            "maml_mlp/task_sum",
            task_sum_kernel,
            (torch.float32, torch.float32, T, size, 0, SUMMED),
            (triton.cdiv(size, SUMMED),),
            {"num_warps": 1},
            T * size,
            4 * (T + 1) * size,
            "fp32",
        )
    )
    return made


def _card(widths: tuple[int, ...], asked: str, dtype: torch.dtype, activation: int = 0) -> Card:
    T, K, S, n, steps = 64, 1 if asked == "gradients" else 32, 25, 75, 5
    unit, size = UNITS[dtype]
    table, P = [], 0
    for inputs, outputs in pairwise(widths):
        table.append([inputs, outputs, P, P + inputs * outputs, activation, 1])
        P += (inputs + 1) * outputs
    leaks = [0.0] * (len(table) - 1) + [1.0]
    chosen = configuration(table, dtype)
    programs = chosen.programs * 132
    unrolled_layers, packed = unrolled(table, leaks, chosen.depth)
    tile = tile_of(T, K, programs)
    tiles = triton.cdiv(K, tile)
    given = {
        "query_targets": asked == "gradients", "V": asked in FORWARDS, "U": asked == "pulled",
        "weights": asked == "sums", "logits": asked == "gradients", "dlogits": asked == "dlogits",
        "dtheta": asked == "dtheta", "pulled": asked in BACKWARDS,
    }  # fmt: skip
    pointers = (dtype if given.get(name, name in ALWAYS) else None for name in maml_mlp_kernel.arg_names[:15])
    flops, F, C = _flops(table, T, K, tiles, S, n, steps, asked), widths[0], widths[-1]
    numbers = T * (S * (F + C) + n * F) + 2 * P
    numbers += T * n * C * ((asked == "gradients") * 2 + (asked in ("dlogits", "pulled")) * K)
    numbers += given["V"] * K * P + (given["pulled"] or given["dtheta"]) * T * K * P
    return Card(
        f"maml_mlp/{asked}/{'-'.join(map(str, widths))}/{unit}",
        maml_mlp_kernel,
        (
            *pointers, T * tiles, tiles, tile, K, S, n, P, steps, F,
            unrolled_layers, len(table), 0, 0, chosen.examples, chosen.depth, packed,
        ),
        (min(programs, T * tiles),),
        compile_options(chosen),
        flops,
        size * numbers,
        unit,
        call=_call(asked, table, leaks, (T, K, S, n, P, steps), F, C, dtype),
        may_spill=0 if chosen is DOUBLE else MAY_SPILL,
    )  # fmt: skip


def _call(
    asked: str, table: list[list[int]], leaks: list[float], sizes: tuple[int, ...], F: int, C: int, dtype: torch.dtype
) -> tuple[object, ...]:  # fmt: skip
    """The launcher and its arguments that a card is of."""
    T, K, S, n, P, steps = sizes

    def when(there: bool, *shape: int) -> Tensor | None:
        return meta(*shape, dtype=dtype) if there else None

    return (
        maml_mlp, when(True, T, S, F), when(True, T, S, C), when(True, T, n, F), when(asked == "gradients", T, n, C),
        when(True, P), when(True, P), torch.tensor(table), torch.tensor(leaks),
        when(asked in FORWARDS, K, P), when(asked == "pulled", T, K, n, C), when(asked == "sums", T),
        when(asked == "gradients", T, n, C), when(asked == "dlogits", T, K, n, C), when(asked == "dtheta", T, K, P),
        when(asked in ("gradients", "pulled"), T, K, P), when(asked == "sums", K, P),
        T, K, S, n, P, len(table), steps, 0,
    )  # fmt: skip


FORWARDS, BACKWARDS = ("sums", "dlogits", "dtheta"), ("sums", "gradients", "pulled")
ALWAYS = ("support", "support_targets", "query", "omega", "rates", "thetas", "moving")


def _flops(table: list[list[int]], T: int, K: int, tiles: int, S: int, n: int, steps: int, asked: str) -> int:
    """Of the products of matrices: see the module's docstring."""
    each, first = 2 * sum(row[0] * row[1] for row in table), 2 * table[0][0] * table[0][1]
    directions = (asked in FORWARDS) + (asked in BACKWARDS)
    queries = 0 if asked == "dtheta" else directions * n * (2 * each - first)
    a_tile = (1 + (asked in BACKWARDS)) * steps * S * (3 * each - first) + n * each
    return T * (tiles * a_tile + K * (directions * steps * S * (6 * each - 4 * first) + queries))
