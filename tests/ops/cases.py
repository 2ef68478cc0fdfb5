"""The shapes every op is tested at, and how near float64 truth each dtype must come."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from tlxml_fast.ops.im2col import Window
from tlxml_fast.ops.maml_mlp import Adapting, Mlp, MlpLayer
from tlxml_fast.ops.norm_act_pool import Pool

DTYPES = (torch.float32, torch.float64)

# Largest error relative to the largest entry of the truth. Truths that vanish (one class, cosine at D = 1) are
# taken to be of size FLOOR: inputs and intermediate results are of the order of 1.
FLOOR = 1e-3
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}

# T tasks, K tangents, n queries, C classes.
SOFTMAX = [
    (1, 1, 1, 1),
    (1, 1, 1, 2),
    (2, 3, 5, 1),
    (1, 7, 13, 5),
    (5, 1, 17, 3),
    (3, 4, 75, 5),
    (2, 3, 31, 33),
    (1, 9, 131, 7),
    (1, 1, 3, 200),
]

# T tasks, K tangents, shots of each class, n queries, D embedding width.
PROTO = [
    (1, 1, (1,), 1, 1),
    (1, 1, (1, 1), 1, 1),
    (2, 3, (1, 2, 4), 7, 3),
    (3, 2, (5,) * 5, 15, 64),
    (1, 5, (3, 1, 2, 1, 4, 2), 9, 17),
    (2, 2, (2,) * 12, 4, 31),
    (1, 2, (1, 3), 6, 523),
    (1, 2, (19, 20), 70, 70),
    (1, 1, (1,) * 20, 3, 5),
    (1, 1, (1,) * 70, 2, 3),
]

DISTANCES = ("sqeuclidean", "euclidean", "cosine")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def softmax_case(T: int, K: int, n: int, C: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """logits and u."""
    g = generator()
    logits = 3 * torch.randn(T, n, C, dtype=torch.float64, generator=g)
    return logits.to(dtype), torch.randn(T, K, n, C, dtype=torch.float64, generator=g).to(dtype)


def proto_case(
    T: int, K: int, shots: tuple[int, ...], n: int, D: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], int]:
    """The five tensors of `proto_gn`, support examples in an order of each task's own, and the ways."""
    g, S, ways = generator(), sum(shots), len(shots)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g).to(dtype)

    labels = torch.repeat_interleave(torch.arange(ways), torch.tensor(shots))
    labels = torch.stack([labels[torch.randperm(S, generator=g)] for _ in range(T)])
    spread = D**-0.5  # keeps softmax away from 0 and 1 at any width
    tensors = (
        spread * normal(T, S, D),
        spread * normal(T, n, D),
        labels,
        normal(T, K, S, D),
        normal(T, K, n, D),
    )
    return tensors, ways


def double(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.double() if x.is_floating_point() else x for x in tensors)


def strided(x: Tensor) -> Tensor:
    """The same values in memory of another layout: every second element of a transposed buffer."""
    storage = torch.empty([*(s + 1 for s in reversed(x.shape)), 2], dtype=x.dtype)
    view = storage[..., 1].permute(*reversed(range(x.dim())))[tuple(slice(1, None) for _ in x.shape)]
    return view.copy_(x)


def assert_near(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == dtype
    error = (got.double() - want).abs().max().item()
    limit = TOLERANCE[dtype] * max(want.abs().max().item(), FLOOR)
    assert error <= limit, f"error {error:.1e} above {limit:.1e}"  # a NaN fails too


def inner(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    """⟨a, b⟩ for each task and tangent: [T, K]."""
    return sum((x * y).sum((-1, -2)) for x, y in zip(a, b, strict=True))


# T tasks, K vectors, S support examples, n queries, inner steps, widths from the inputs to the outputs.
MAML_MLP = [
    (1, 1, 1, 1, 1, (1, 2)),
    (1, 3, 2, 1, 2, (3, 1, 2)),
    (2, 1, 5, 7, 1, (4, 6, 3)),
    (3, 17, 4, 3, 3, (7, 5, 2)),
    (17, 2, 6, 5, 2, (5, 9, 1, 3)),
    (9, 33, 3, 4, 1, (2, 3, 4, 3, 2)),
    (5, 2, 25, 75, 5, (34, 32, 5)),
]
ACTIVATIONS = ("leak", "tanh", "sigmoid", "gelu")


def maml_mlp_case(
    T: int,
    K: int,
    S: int,
    n: int,
    steps: int,
    widths: tuple[int, ...],
    dtype: torch.dtype,
    loss: str = "cross_entropy",
) -> tuple[Adapting, dict[str, Tensor]]:
    """The tasks, and V, U, weights and query_targets. Layers differ in activation, bias and whether they adapt."""
    g = generator()

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g).to(dtype)

    layers, parts, rates = [], [], []
    for i, (a, b) in enumerate(pairwise(widths)):
        start, bias, adapted = sum(map(len, parts)), i % 3 != 1, i % 4 != 2
        last = i == len(widths) - 2
        activation, leak = ("leak", 1.0) if last else (ACTIVATIONS[i % 4], 0.1)
        layers.append(MlpLayer(a, b, start, start + a * b if bias else None, activation, leak, adapted))
        parts.append(torch.cat([normal(a * b) / a**0.5, normal(b if bias else 0)]))
        rates.append((0.05 + 0.2 * normal(len(parts[-1])).abs()) * adapted)
    P, C = sum(map(len, parts)), widths[-1]

    def targets(count: int) -> Tensor:
        if loss == "mse":
            return normal(T, count, C)
        return torch.eye(C, dtype=dtype)[torch.randint(C, (T, count), generator=g)]

    a = Adapting(
        Mlp(layers), normal(T, S, widths[0]), targets(S), normal(T, n, widths[0]), torch.cat(parts), torch.cat(rates),
        steps, loss,
    )  # fmt: skip
    given = {
        "V": normal(K, P),
        "U": normal(T, K, n, C),
        "weights": normal(T).abs(),
        "query_targets": targets(n),
    }
    return a, given


# B pairs, m, k, n: ones, edges of panels and of rows, and depths beyond one panel's.
STACKED_MM = [
    (1, 1, 1, 1),
    (2, 4, 3, 5),
    (3, 5, 257, 16),
    (1, 6, 2, 80),
    (2, 7, 19, 81),
    (2, 64, 600, 97),
    (3, 33, 9, 165),
]


# x [T, N, H, W, C], K tangents, and the pool: one pixel, odd sides, pools that overlap, pad or round up; and sums that
# a device makes in parts.
NORM_ACT_POOL = [
    ((1, 1, 1, 1, 1), 1, Pool()),
    ((1, 2, 1, 1, 5), 3, Pool()),
    ((2, 3, 7, 5, 3), 2, Pool(2, 2)),
    ((1, 2, 5, 7, 17), 1, Pool(3, 2, 1)),
    ((3, 1, 5, 3, 2), 4, Pool(2, 2, ceil=True)),
    ((2, 9, 4, 4, 33), 3, Pool(3, 1)),
    ((2, 10, 6, 6, 33), 5, Pool(2, 2)),
    ((1, 21, 4, 4, 33), 2, Pool(1, 1)),  # on a device, sums in two parts
]
# x [N, H, W, K, C] and the window of a convolution.
IM2COL = [
    ((1, 1, 1, 1, 1), Window((1, 1), (1, 1), (0, 0))),
    ((2, 5, 4, 1, 1), Window((3, 3), (1, 1), (1, 1))),
    ((1, 7, 6, 3, 3), Window((2, 3), (2, 1), (0, 2))),
    ((3, 4, 9, 2, 17), Window((1, 5), (3, 2), (1, 0))),
]
# T, N, H, W, K, C, O; the window; whether tasks share the weights. Few channels, and more than a tile of them.
CONVOLUTION = [
    ((1, 1, 1, 1, 1, 1, 1), Window((1, 1), (1, 1), (0, 0)), True),
    ((2, 3, 5, 4, 3, 4, 6), Window((3, 3), (1, 1), (1, 1)), True),
    ((2, 1, 7, 6, 2, 17, 33), Window((2, 3), (2, 1), (0, 2)), False),
    ((3, 2, 4, 9, 1, 40, 65), Window((1, 5), (3, 2), (1, 0)), False),
    ((1, 4, 8, 8, 2, 1, 16), Window((3, 3), (1, 1), (1, 1)), False),
]
# x [N, H, W, C] and the padding of a 3 x 3 convolution.
WINOGRAD = [((1, 1, 1, 1), 1), ((2, 3, 4, 5), 0), ((1, 5, 7, 3), 1), ((3, 4, 2, 33), 2), ((2, 9, 8, 16), 1)]

# R rows, m columns, k: fewer columns than k, one, and the edges of the kernels' blocks.
TOPK = [
    (1, 1, 1),
    (3, 1, 5),
    (2, 127, 1),
    (2, 129, 32),
    (5, 257, 33),
    (1, 1023, 1024),
    (2, 2500, 1000),
]

# m rows, q columns, d: ones, edges of vectors and blocks, more outputs than columns, more columns than a block.
PROJECTION = [(1, 1, 1), (3, 5, 7), (17, 131, 33), (2, 257, 1), (5, 128, 128), (33, 640, 6), (2, 4500, 60)]


def projection(m: int, q: int, d: int, dtype: torch.dtype) -> Tensor:
    """Rows to project."""
    return torch.randn(m, q, dtype=torch.float64, generator=generator()).to(dtype)
