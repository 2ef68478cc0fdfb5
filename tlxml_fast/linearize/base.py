"""The linearization of a learner at its meta-parameters, over tasks of one shape."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..errors import LearnerError, TaskError, TlxError
from ..learners import Episode, Learner, Parameters
from ..parallel import Map, task_threads
from ..task import TaskSet


@dataclass
class BackendReport:
    """What runs and why: the backend, the reason for it, and what was decided on the way."""

    backend: str
    reason: str
    decisions: dict[str, str] = field(default_factory=dict)


class FlatParameters:
    """Named tensors as one vector: the order of the mapping, each flattened, concatenated."""

    def __init__(self, like: Mapping[str, Tensor]):
        self.shapes = {name: tuple(p.shape) for name, p in like.items()}
        self.sizes = [p.numel() for p in like.values()]
        self.size = sum(self.sizes)

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """[q] from named tensors."""
        return torch.cat([values[name].reshape(-1) for name in self.shapes])

    def unflatten(self, vector: Tensor) -> Parameters:
        """Named tensors from [q]."""
        parts = vector.split(self.sizes)
        return {
            name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


Join = Callable[[list[Tensor]], Tensor]


class Linearization(ABC):
    """f_t(ω) and L_t(ω) of T tasks of one shape, with their derivatives at the learner's ω.

    T tasks, n queries, C logits, q meta-parameters, K vectors (as rows). J_t = ∂f_t/∂ω is [n·C, q], and Λ_t
    the Hessian of L_t in the logits.
    """

    def __init__(self, learner: Learner, tasks: TaskSet, dtype: torch.dtype | None, report: BackendReport):
        tasks = TaskSet(tasks)  # a lazy set is made once
        self.learner, self.tasks, self.report = learner, tasks, report
        shapes = sorted({str(task.shape) for task in tasks})
        if len(shapes) != 1:
            listed = "; ".join(shapes) or "none"
            raise TaskError(f"linearize takes tasks of one shape, and these have {len(shapes)}: {listed}")
        self.C = learner.check(tasks[0])
        learner.refuse_influence()
        parameters = learner.parameters()
        self.flat = FlatParameters(parameters)
        first = next(iter(parameters.values()))
        self.dtype, self.device = dtype or first.dtype, first.device
        if not self.dtype.is_floating_point or self.dtype.itemsize < 4:
            raise TlxError(f"dtype is torch.float32 or torch.float64, not {self.dtype}")
        if len({p.device for p in parameters.values()}) > 1:
            raise LearnerError(
                "the learner's parameters are on several devices; move the module before the learner is made"
            )
        self.omega = self.flat.flatten(parameters).detach().to(self.dtype)
        shape = tasks[0].shape
        self.ways, self.labelled = shape.ways, shape.labelled
        self.T, self.n, self.q = len(tasks), shape.n_query, self.flat.size
        self.episodes = [Episode.of(task, self.dtype, self.home) for task in tasks]

    def __repr__(self) -> str:
        sizes = f"T={self.T}, n={self.n}, C={self.C}, q={self.q}"
        return f"{type(self).__name__}({self.learner.kind}, {sizes}, {self.dtype})"

    @property
    def home(self) -> torch.device:
        """Where tasks are kept."""
        return self.device

    of_omega: tuple[str, ...] = ("logits",)
    """What is cached and depends on ω."""

    def at(self, omega: Tensor) -> Linearization:
        """The same linearization at other meta-parameters [q]: tasks and their batches are shared.

        The learner's own parameters stay as they are.
        """
        moved = copy.copy(self)
        moved.omega = self.vectors(omega.detach()[None], self.q)[0]
        for name in self.of_omega:
            moved.__dict__.pop(name, None)
        return moved

    # ---- a block of tasks: what a backend provides ----------------------------------------------------

    block_size: int = 1
    """Tasks worked on at once. Their shape alone decides it, so that sums over blocks are always the same."""

    forward_side_by_side: bool = True
    """Whether blocks may run in parallel threads in forward mode too (torch's own has one global level)."""

    threads_inside: bool = False
    """Whether a block occupies all threads by itself, so that blocks run one after another."""

    @abstractmethod
    def logits_block(self, block: slice) -> Tensor:
        """f of B tasks: [B, n, C]."""

    @abstractmethod
    def jvp_block(self, block: slice, V: Tensor) -> Tensor:
        """J_t v_k: V [K, q] → [B, K, n, C]."""

    @abstractmethod
    def vjp_block(self, block: slice, U: Tensor) -> Tensor:
        """J_tᵀ u_tk: U [B, K, n, C] → [B, K, q]."""

    @abstractmethod
    def gnvp_block(self, block: slice, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t J_tᵀ Λ_t J_t v_k over the block: V [K, q], weights [B] → [K, q]."""

    @abstractmethod
    def hvp_block(self, block: slice, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t ∇²L_t v_k over the block, with the exact Hessian: V [K, q], weights [B] → [K, q]."""

    @abstractmethod
    def adaptation_block(self, block: slice, V: Tensor) -> Tensor:
        """(∂θ_t/∂ω) v_k, θ_t flat in the order of `learner.adapt`'s result: V [K, q] → [B, K, p]."""

    def adapted_gradients(self, block: slice, name: str, index: tuple[int, ...]) -> Tensor:
        """∇_ω of one entry of the adapted parameter `name`, [B, q]: by torch.func, task by task.

        Raises LearnerError where θ has no such entry.
        """

        def gradient(episode: Episode) -> Tensor:
            def entry(omega: Tensor) -> Tensor:
                theta = self.learner.adapt(self.flat.unflatten(omega), episode, self.ways)
                if name not in theta:
                    raise LearnerError(f"θ has no {name!r}; it has {', '.join(theta)}")
                if len(index) != theta[name].ndim or any(
                    i >= n for i, n in zip(index, theta[name].shape, strict=True)
                ):
                    raise LearnerError(
                        f"θ's {name!r} is {list(theta[name].shape)}, and has no entry {list(index)}"
                    )
                return theta[name][index]

            return torch.func.grad(entry)(self.omega)

        return torch.stack([gradient(episode.to(self.device)).detach() for episode in self.episodes[block]])

    def vectors_at_once(self) -> int:
        """How many vectors a block may work on at a time."""
        return 1 << 30

    def prepare(self) -> None:  # noqa: B027
        """Make what blocks share, before they run side by side."""

    def release(self) -> None:  # noqa: B027
        """Give up what is held for the next call on the same tasks, where others come before."""

    # ---- all tasks ----------------------------------------------------------------------------------

    @property
    def blocks(self) -> list[slice]:
        """All tasks, in order."""
        return [slice(i, min(self.T, i + self.block_size)) for i in range(0, self.T, self.block_size)]

    @property
    def gradient_blocks(self) -> list[slice]:
        """All tasks, in order, in blocks for passes of a single vector, which nothing sums over."""
        return self.blocks

    @cached_property
    def logits(self) -> Tensor:
        """f, [T, n, C]."""
        with task_threads(self._side_by_side) as each:
            return torch.cat(list(each(self.logits_block, self.blocks)))

    def jvp(self, V: Tensor) -> Tensor:
        """J_t v_k: V [K, q] → [T, K, n, C]."""
        V = self.vectors(V, self.q)
        parts = self._each(lambda block, k: self.jvp_block(block, V[k]), len(V), self.forward_side_by_side)
        return torch.cat([torch.cat([part for _, _, part in row], 1) for row in parts])

    def vjp(self, U: Tensor) -> Tensor:
        """J_tᵀ u_tk: U [T, K, n, C] → [T, K, q]."""
        if U.ndim != 4 or len(U) != self.T:
            raise TlxError(f"cotangents have shape {tuple(U.shape)}, not [{self.T}, K, {self.n}, {self.C}]")
        U = torch.stack([self.vectors(u, self.n, self.C) for u in U])
        parts = self._each(lambda block, k: self.vjp_block(block, U[block, k]), U.shape[1])
        return torch.cat([torch.cat([part for _, _, part in row], 1) for row in parts])

    def gnvp(self, V: Tensor, weights: Tensor | None = None) -> Tensor:
        """Σ_t w_t J_tᵀ Λ_t J_t v_k: V [K, q] → [K, q]; w_t = 1/T unless given, so that chunks and ranks add."""
        return self._weighted_sum(self.gnvp_block, V, weights)

    def hvp(self, V: Tensor, weights: Tensor | None = None) -> Tensor:
        """Σ_t w_t ∇²L_t v_k, with the exact Hessian: V [K, q] → [K, q]; w_t = 1/T unless given."""
        _ = self.targets
        return self._weighted_sum(self.hvp_block, V, weights)

    @cached_property
    def targets(self) -> Tensor:
        """The query labels [T, n], or regression targets."""
        self.need_targets()
        if self.learner.loss.regression:  # targets may be [n] in one task and [n, 1] in another
            for task in self.tasks:
                if problem := self.learner.loss.refuses(task.query_y):
                    raise TaskError(f"task {task.label!r} has {problem}")
            y = torch.stack([task.query_y.reshape(self.n, -1) for task in self.tasks])
            return y.to(self.device, self.dtype)
        return torch.stack([task.query_y for task in self.tasks]).to(self.device)

    def losses(self) -> Tensor:
        """L_t of every task, the mean over queries: [T]."""
        return (
            self.learner.loss.per_query(self.logits.flatten(0, 1), self.targets.flatten(0, 1))
            .view(self.T, self.n)
            .mean(1)
        )

    def gradients(self) -> Tensor:
        """∇_ω L_t of every task, [T, q]."""
        with self.task_threads() as each:
            return torch.cat(list(each(self.gradients_block, self.gradient_blocks)))

    def losses_and_gradients(self) -> tuple[Tensor, Tensor]:
        """L_t [T] and ∇_ω L_t [T, q], in one pass where there is one for both."""
        return self.losses(), self.gradients()

    def gradients_block(self, block: slice) -> Tensor:
        """∇_ω L_t of the tasks of a block, [B, q]."""
        u = self.learner.loss.gradient(self.logits[block], self.targets[block])
        return self.vjp_block(block, u[:, None])[:, 0]

    def per_query_gradients(self) -> Tensor:
        """∇_ω ℓ_tm of every query's own loss, [T, n, q]; their mean over queries is `gradients()`."""
        u = self.logit_gradients(self.targets)[:, :, None]
        with self.task_threads() as each:
            return torch.cat(
                list(each(lambda block: self.per_query_vjp(block, u[block])[:, :, 0], self.blocks))
            )

    def logit_gradients(self, targets: Tensor) -> Tensor:
        """∂ℓ_m/∂f_m of every query's loss against `targets` [T, n], as [T, n, C]."""
        return self.learner.loss.gradient(self.logits, targets) * self.n

    @property
    def gn_rank(self) -> int:
        """n·r, the number of rows of `gn_rows`."""
        return self.n * self.learner.loss.rank(self.C)

    def gn_rows(self, block: slice, columns: int | None = None) -> Tensor:
        """R_t with J_tᵀΛ_tJ_t = R_tᵀR_t: the n·r pull-backs of the loss's factor, [B, n·r, q].

        `columns` takes as many of the r for each query only.
        """
        factor = self.learner.loss.factor(self.logits[block])[..., :columns]  # [B, n, C, r]
        return self.per_query_vjp(block, factor.mT / self.n**0.5).flatten(1, 2)

    def per_query_vjp(self, block: slice, U: Tensor) -> Tensor:
        """J_tᵀ of cotangents that each concern one query: U [B, n, r, C] → [B, n, r, q]."""
        B, n, r, _ = U.shape
        eye = torch.eye(n, dtype=U.dtype, device=U.device)
        chunks = (eye[:, None, :, None] * U[:, :, :, None]).flatten(1, 2).split(self.vectors_at_once(), 1)
        return torch.cat([self.vjp_block(block, u) for u in chunks], 1).view(B, n, r, -1)

    def task_threads(self, side_by_side: bool = True, join: Join = torch.cat) -> AbstractContextManager[Map]:
        """`parallel.task_threads` for functions of a block; what tasks share is made before.

        Only functions in reverse mode may run side by side: torch's forward mode has one global level. `join` makes
        the result of a block of those of its parts, where a block has to be cut.
        """
        self.prepare()
        _ = self.logits, self.labelled and self.targets
        return task_threads(side_by_side and self._side_by_side)

    @property
    def _side_by_side(self) -> bool:
        return self.device.type == "cpu" and not self.threads_inside

    def need_targets(self) -> None:
        """Raise TaskError if the tasks have no query labels."""
        if not self.labelled:
            raise TaskError(
                f"task {self.tasks[0].label!r} has no query labels; explain a prediction with target="
            )

    @cached_property
    def _uniform(self) -> Tensor:
        """Every task's weight where none are given."""
        return self.omega.new_full((self.T,), 1 / self.T)

    def _weighted_sum(
        self, product: Callable[[slice, Tensor, Tensor], Tensor], V: Tensor, weights: Tensor | None
    ) -> Tensor:
        V = self.vectors(V, self.q)
        weights = self._uniform if weights is None else torch.as_tensor(weights)
        if weights.shape != (self.T,):
            raise TlxError(f"weights have shape {tuple(weights.shape)} for {self.T} tasks")
        weights = weights.to(V)
        total = None
        parts = self._each(
            lambda block, k: product(block, V[k], weights[block]), len(V), self.forward_side_by_side
        )
        for row in parts:  # in the order of the blocks, so that the sum is the same every time
            share = row[0][2] if len(row) == 1 else torch.cat([part for _, _, part in row])
            total = share if total is None else total.add_(share)
        return total

    def _each(
        self, apply: Callable[[slice, slice], Tensor], K: int, side_by_side: bool = True
    ) -> Iterator[list[tuple[int, int, Tensor]]]:
        """`apply(block, vectors)` on every block and chunk of K vectors: for each block its chunks, in order.

        Vectors are chunked for memory, and shared among threads where there are not blocks enough for them.
        """
        self.prepare()
        blocks = self.blocks
        parallel = side_by_side and self._side_by_side
        idle = -(-torch.get_num_threads() // len(blocks)) if parallel else 1
        with task_threads(parallel) as each:
            step = max(1, min(self.vectors_at_once(), -(-K // idle)))
            chunks = [slice(i, min(K, i + step)) for i in range(0, K, step)]
            items = [(block, k) for block in blocks for k in chunks]
            results = each(lambda item: apply(*item), items)
            for _ in blocks:
                yield [(k.start, k.stop, next(results)) for k in chunks]

    def vectors(self, V: Tensor, *tail: int) -> Tensor:
        """`V` in this linearization's dtype and on its device, its shape checked against [..., *tail]."""
        if not isinstance(V, Tensor):
            raise TlxError(f"vectors are a torch tensor, not a {type(V).__name__}")
        if V.shape[V.ndim - len(tail) :] != tail or V.ndim != len(tail) + 1 or len(V) == 0:
            raise TlxError(f"vectors have shape {tuple(V.shape)}, not [K, {', '.join(map(str, tail))}]")
        return V.to(self.device, self.dtype)
