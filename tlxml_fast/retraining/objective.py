"""The objective of meta-training over a fixed set of tasks, at any meta-parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from ..errors import TaskError, TlxError
from ..learners import Learner
from ..linearize import Linearization, linearize
from ..linearize.buckets import Buckets
from ..task import Task, TaskSet


class Objective:
    """L(ω) = Σ_t w_t L_t(ω) + (δ/2)‖ω‖² of M tasks, with its derivatives; float64, ω [q] wherever it is asked for.

    learner       how a task is adapted to and judged; its own parameters are only `start`
    tasks         M tasks of any shapes, with query labels; stacked once, whatever ω does
    weight_decay  δ
    weights       w [M]; 1/M unless given. Removing a task is its weight 0: the others keep their 1/M, and δ stays

    All results are on the CPU. Raises TaskError for a task without query labels, TlxError for weights or vectors of
    another shape, and what `linearize` raises.
    """

    def __init__(
        self,
        learner: Learner,
        tasks: TaskSet | Iterable[Task],
        weight_decay: float = 0.0,
        weights: Tensor | None = None,
        backend: str = "auto",
    ):
        if not 0 <= weight_decay < float("inf"):
            raise TlxError(f"weight_decay is at least 0, not {weight_decay}")
        self.buckets = Buckets(
            learner, TaskSet(tasks), partial(linearize, backend=backend, dtype=torch.float64)
        )
        for lin in self.buckets.linearizations:
            lin.prepare()
            _ = lin.targets  # made here, they are shared by the linearization at every ω
        self.weight_decay = float(weight_decay)
        self.weights = self._checked(weights)
        self.start = self.buckets.linearizations[0].omega.cpu()
        """The learner's ω, [q]."""
        self._at: tuple[Tensor, list[Linearization]] | None = None

    def __len__(self) -> int:
        return len(self.buckets)

    @property
    def q(self) -> int:
        """The number of meta-parameters."""
        return len(self.start)

    def reweighted(self, weights: Tensor) -> Objective:
        """The same tasks with other weights [M]; what is stacked is shared."""
        twin = copy.copy(self)
        twin.weights = self._checked(weights)
        return twin

    def without(self, removed: Iterable[int]) -> Objective:
        """The objective that the tasks at these positions have left."""
        weights, removed = self.weights.clone(), list(removed)
        if not all(0 <= i < len(self) for i in removed):
            raise TaskError(f"tasks {removed} are not all among the {len(self)} of the objective")
        weights[removed] = 0
        return self.reweighted(weights)

    # ---- of every task --------------------------------------------------------------------------------

    def losses(self, omega: Tensor) -> Tensor:
        """L_t(ω), [M]."""
        return self._in_order([lin.losses() for lin in self.linearizations(omega)])

    def accuracies(self, omega: Tensor) -> Tensor:
        """The share of queries of each task whose largest logit is their label's, [M]."""
        hits = [lin.logits.argmax(-1) == lin.targets for lin in self.linearizations(omega)]
        return self._in_order([hit.double().mean(1) for hit in hits])

    # ---- of their sum ---------------------------------------------------------------------------------

    def value_and_gradient(self, omega: Tensor) -> tuple[float, Tensor]:
        """L(ω), and ∇L(ω) = Σ_t w_t ∇L_t + δω, [q]."""
        value, gradient = 0.5 * self.weight_decay * float(omega @ omega), self.weight_decay * omega
        for lin, weights in self._weighted(omega):
            losses, gradients = lin.losses_and_gradients()
            value += float(weights @ losses)
            gradient = gradient + (weights @ gradients).cpu()
        return value, gradient

    def hvp(self, omega: Tensor, V: Tensor) -> Tensor:
        """(Σ_t w_t ∇²L_t(ω) + δI) v_k, exactly: [K, q] → [K, q]."""
        total = self.weight_decay * V
        for lin, weights in self._weighted(omega):
            total = total + lin.hvp(V, weights).cpu()
        return total

    def gnvp(self, omega: Tensor, V: Tensor) -> Tensor:
        """(Σ_t w_t J_tᵀΛ_tJ_t + δI) v_k: [K, q] → [K, q]."""
        total = self.weight_decay * V
        for lin, weights in self._weighted(omega):
            total = total + lin.gnvp(V, weights).cpu()
        return total

    # ---- inside ---------------------------------------------------------------------------------------

    def linearizations(self, omega: Tensor) -> list[Linearization]:
        """Those of each shape at ω; the latest are kept, with their logits."""
        if self._at is None or not torch.equal(self._at[0], omega):
            self._at = (omega.clone(), [lin.at(omega) for lin in self.buckets.linearizations])
        return self._at[1]

    def _weighted(self, omega: Tensor) -> Iterator[tuple[Linearization, Tensor]]:
        for where, lin in zip(self.buckets.positions, self.linearizations(omega), strict=True):
            yield lin, self.weights[where].to(lin.device)

    def _in_order(self, parts: list[Tensor]) -> Tensor:
        values = torch.empty(len(self), dtype=torch.float64)
        for where, part in zip(self.buckets.positions, parts, strict=True):
            values[where] = part.cpu()
        return values

    def _checked(self, weights: Tensor | None) -> Tensor:
        if weights is None:
            return torch.full((len(self),), 1 / len(self), dtype=torch.float64)
        weights = torch.as_tensor(weights, dtype=torch.float64)
        if weights.shape != (len(self),) or not torch.isfinite(weights).all():
            raise TlxError(f"weights are {len(self)} finite numbers, not of shape {tuple(weights.shape)}")
        return weights
