"""The ReLU and pooling choices of a run of the engine, recorded, and replayed in another precision.

Where a pre-activation is zero to rounding, or two entries of a window are the same, float32 may choose otherwise than
float64 would. It then differentiates the neighbouring linear piece of the same function, and five steps can carry one
such flip to 1e-2. So a float32 run is compared with a float64 run *at its choices*, and flips are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

import tlxml_fast as tlx
from tlxml_fast.learners import Episode
from tlxml_fast.ops import norm_act_pool as op
from tlxml_fast.ops.prototypes import class_means


class Choice(NamedTuple):
    """What one call of `norm_act_pool` chose: the winners of its windows, and whether they are above zero."""

    winner: Tensor
    positive: Tensor


@dataclass
class Replay:
    """How many choices were made again, and how many of them float64 would have made otherwise."""

    choices: int = 0
    flips: int = 0


@contextmanager
def recorded() -> Iterator[list[Choice]]:
    """The choices of the engine's forward passes inside, in the order of the calls."""
    made: list[Choice] = []

    def record(
        norm_act_pool: Callable, x: Tensor, *args: Tensor, **settings: Any
    ) -> tuple[Tensor, op.Primal]:
        y, primal = norm_act_pool(x, *args, **settings)
        made.append(Choice(primal.winner.clone(), y > 0))
        return y, primal

    with _instead(record):
        yield made


@contextmanager
def replayed(choices: list[Choice]) -> Iterator[Replay]:
    """Inside, the engine's forward passes make these choices; they must be the same calls in the same order."""
    left, replay = iter(choices), Replay()

    def choose(
        norm_act_pool: Callable, x: Tensor, *args: Tensor, **settings: Any
    ) -> tuple[Tensor, op.Primal]:
        y, own = norm_act_pool(x, *args, **settings)
        winner, positive = next(left)
        assert winner.shape == own.winner.shape
        leak = settings["leak"]
        matters = positive if leak == 0 else torch.ones_like(positive)  # below zero a ReLU is 0 at any winner
        flipped = (winner != own.winner) & matters
        if leak != 1:
            flipped |= positive != (y > 0)
        if leak != 1 or own.pool.kernel > 1:
            replay.choices += flipped.numel()
            replay.flips += int(flipped.sum())
        mean, rstd, gamma, beta = (op.on_channels(v) for v in args)
        x_hat = op.at_winners(replace(own, winner=winner), ((x - mean) * rstd)[..., None, :])[..., 0, :]
        slope = torch.where(positive, x.new_tensor(1), x.new_tensor(leak))
        return slope * (gamma * x_hat + beta), replace(own, winner=winner, x_hat=x_hat, slope=slope)

    with _instead(choose):
        yield replay
    assert next(left, None) is None, "fewer calls than were recorded"


@contextmanager
def _instead(call: Callable) -> Iterator[None]:
    """`call(norm_act_pool, ...)` in the place of the op, from one thread, so that calls have an order."""
    original, threads = op.norm_act_pool, torch.get_num_threads()
    torch.set_num_threads(1)
    op.norm_act_pool = lambda *args, **settings: call(original, *args, **settings)
    try:
        yield
    finally:
        op.norm_act_pool = original
        torch.set_num_threads(threads)


# ---- how near a choice is ---------------------------------------------------------------------------


class _Nearest(TorchFunctionMode):
    """The smallest distance to a kink or to a tie of any ReLU, leaky ReLU or max pool that runs inside."""

    distance = float("inf")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("relu", "leaky_relu"):
            self._note(args[0].detach().abs())
        elif name == "max_pool2d":
            self._note(_leads(*args, **kwargs))
        return func(*args, **(kwargs or {}))

    def _note(self, distances: Tensor) -> None:
        if distances.numel():
            self.distance = min(self.distance, float(distances.min()))


def _leads(
    x: Tensor, kernel: int, stride: int | None = None, padding: int = 0, ceil_mode: bool = False, **_: Any
) -> Tensor:
    """By how much the winner of every window leads; ties of ReLU's zeros, which have no derivative, left out."""
    stride = stride or kernel
    if kernel == 1:
        return x.new_empty(0)
    x = x.detach()
    sizes = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode).shape[-2:]
    more = [(n - 1) * stride + kernel - size - padding for n, size in zip(sizes, x.shape[-2:], strict=True)]
    x = F.pad(x, (padding, more[1], padding, more[0]), value=float("-inf"))
    windows = x.unfold(2, kernel, stride).unfold(3, kernel, stride).flatten(-2)
    first, second = windows.topk(2).values.unbind(-1)
    return (first - second)[(first != 0) | (second != 0)]


def nearest(learner: tlx.Learner, task: tlx.Task) -> float:
    """How near a task's float64 forward passes, those of adaptation included, come to another choice."""
    omega, episode = _in_float64(learner, task)
    with _Nearest() as mode:
        learner.query_logits(omega, episode, task.ways)
    return mode.distance


def separation(learner: tlx.Learner, task: tlx.Task) -> float:
    """How far a ProtoNet's queries are from prototypes, squared, relative to the largest embedding; 1 for others.

    Near 0 a Euclidean distance has a kink, and so has a cosine at an embedding of 0. A squared distance has none: there
    it is the farthest query that counts, without which all logits are the same to rounding.
    """
    if not isinstance(learner, tlx.ProtoNet):
        return 1.0
    omega, episode = _in_float64(learner, task)
    support, query = learner.embed(omega, episode)
    prototypes = class_means(support, episode.support_y, task.ways)
    lengths = torch.cat([query, prototypes]).square().sum(-1)
    squares = (query[:, None] - prototypes).square().sum(-1)
    if learner.distance == "cosine":
        squares = lengths
    counts = squares.max() if learner.distance == "sqeuclidean" else squares.min()
    return float(counts / lengths.max()) if lengths.max() > 0 else 0.0


def _in_float64(learner: tlx.Learner, task: tlx.Task) -> tuple[dict[str, Tensor], Episode]:
    omega = {name: p.detach().double() for name, p in learner.parameters().items()}
    return omega, Episode.of(task, torch.float64, torch.device("cpu"))
