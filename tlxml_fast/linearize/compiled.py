"""The compiled backends, native and triton: the engine's passes over a plan, for blocks of tasks and many vectors."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ..errors import LearnerError, TlxError
from ..learners import MAML, Episode, Learner, ProtoNet
from ..memory import keep_freed_memory, share
from ..ops._dispatch import backend_of, why_not
from ..ops.convolution import PRECISIONS
from ..parallel import task_threads
from ..task import Task, TaskSet
from .adaptation import Adaptation
from .base import BackendReport, FlatParameters, Linearization
from .batch import Batch
from .embedding import Embedding
from .mlp_adaptation import MlpAdaptation, mlp_of
from .parameters import Layout
from .plan import Plan, Unsupported, plan
from .reference import ReferenceLinearization

# What the values of one block of tasks, and the tangents of all its vectors, may take; of a limit on memory no more
# than a share, since every thread works on a block.
BLOCK_BYTES = 64 << 20
VECTOR_BYTES, VECTOR_SHARE = 512 << 20, 1 / 8
# Tasks in one call of a kernel that works on whole tasks.
WHOLE_TASKS = 256
# What gradients of tasks of images may take at once, and of how many tasks at most.
GRADIENT_BYTES, MOST_IMAGES = 16 << 20, 8


def compiled_plan(learner: Learner, device: torch.device, precision: str = "fp32") -> Plan:
    """The plan of a learner's module on a device; raises Unsupported, with the reason, where there is none."""
    if type(learner) not in (MAML, ProtoNet):
        raise Unsupported(f"the engine knows no learner of class {type(learner).__name__}")
    if precision not in PRECISIONS:
        raise TlxError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    made = plan(learner.body.template, learner.norm)
    return made.on_device(precision) if backend_of(device) == "triton" else made


def passes_of(
    learner: Learner, module_plan: Plan, layout: Layout, ways: int
) -> tuple[Adaptation | Embedding, str]:
    """What computes the learner's derivatives, and in words why it does."""
    if isinstance(learner, ProtoNet):
        return Embedding(learner, module_plan, layout, ways), "layer by layer: a prototypical network"
    mlp = mlp_of(learner, module_plan, layout)
    if isinstance(mlp, str):
        return Adaptation(learner, module_plan, layout, ways), f"layer by layer: {mlp}"
    passes = MlpAdaptation(learner, module_plan, layout, ways, mlp)
    return passes, "whole tasks: a small MLP" + (
        "" if passes.third_order else "; its exact Hessian layer by layer"
    )


class CompiledLinearization(Linearization):
    """Derivatives by the engine: products of layers, K vectors at once, tasks side by side.

    Blocks of tasks have a size that the tasks' shape alone decides, and sums over tasks run over blocks in order:
    how the work is scheduled does not change a result.
    """

    of_omega = ("logits", "_reference")

    def __init__(
        self,
        learner: Learner,
        tasks: TaskSet,
        dtype: torch.dtype | None,
        report: BackendReport,
        precision: str = "fp32",
    ):
        keep_freed_memory()
        super().__init__(learner, tasks, dtype, report)
        module_plan = compiled_plan(learner, self.device, precision)
        layout = Layout(learner, self.flat, self.dtype, self.device)
        layout.pack(module_plan.packed_weights)
        self.passes, kernels = passes_of(learner, module_plan, layout, self.ways)
        self.threads_inside = isinstance(self.passes, MlpAdaptation)
        self.report.decisions |= {"plan": str(module_plan), "kernels": kernels}
        self._batches: dict[tuple[int, int], Batch] = {}

    @cached_property
    def block_size(self) -> int:
        """Tasks worked on at once: many where a kernel shares them among threads, one where there are images."""
        if self.threads_inside:
            return max(16, min(WHOLE_TASKS, BLOCK_BYTES // (self.omega.element_size() * self.q)))
        example = self.episodes[0]
        numbers = example.support_x.numel() + example.query_x.numel()
        if example.query_x.ndim > 2:
            return 1
        return max(1, min(64, BLOCK_BYTES // (self.omega.element_size() * (8 * numbers + 4 * self.q))))

    @property
    def gradient_blocks(self) -> list[slice]:
        """Of small images several tasks at once, so that the calls between kernels weigh less."""
        self.prepare()
        if self.block_size > 1:
            return self.blocks
        size = max(1, min(MOST_IMAGES, GRADIENT_BYTES // (self.omega.element_size() * self._numbers)))
        return [slice(i, min(self.T, i + size)) for i in range(0, self.T, size)]

    def vectors_at_once(self) -> int:
        """As many as fit into VECTOR_BYTES, or into their share of a limit on memory."""
        return self._vectors

    @cached_property
    def _numbers(self) -> int:
        """What a vector takes in a block."""
        return self.passes.numbers_a_vector(self.omega, self._batch(self.blocks[0]))

    @cached_property
    def _vectors(self) -> int:
        room = share(VECTOR_SHARE, VECTOR_BYTES)
        return max(1, room // (self.omega.element_size() * self._numbers))

    def prepare(self) -> None:
        """The number of vectors at once."""
        _ = self._vectors

    def _batch(self, block: slice) -> Batch:
        """The tasks of a block; stacked once where calls are short."""
        if self.block_size == 1:
            return Batch(self.episodes[block])
        return self._batches.setdefault((block.start, block.stop), Batch(self.episodes[block]))

    def logits_block(self, block: slice) -> Tensor:
        """f, [B, n, C]."""
        return self.passes.logits(self.omega, self._batch(block))

    def jvp_block(self, block: slice, V: Tensor) -> Tensor:
        """J_t v_k: [B, K, n, C]."""
        return self.passes.jvp(self.omega, self._batch(block), V)

    def vjp_block(self, block: slice, U: Tensor) -> Tensor:
        """J_tᵀ u_tk: [B, K, q]."""
        return self.passes.vjp(self.omega, self._batch(block), U)

    def per_query_vjp(self, block: slice, U: Tensor) -> Tensor:
        """J_tᵀ of cotangents of one query each, [B, n, r, q]: through that query alone where nothing couples them."""
        if not self.passes.separable:
            return super().per_query_vjp(block, U)
        return self.passes.per_query_vjp(self.omega, self._batch(block), U, self._vectors)

    def gnvp_block(self, block: slice, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t J_tᵀ Λ_t J_t v_k over the block, [K, q]."""
        return self.passes.gnvp(self.omega, self._batch(block), V, weights)

    def adaptation_block(self, block: slice, V: Tensor) -> Tensor:
        """(∂θ_t/∂ω) v_k, [B, K, p]."""
        return self.passes.adaptation(self.omega, self._batch(block), V)

    def gradients_block(self, block: slice) -> Tensor:
        """∇_ω L_t, [B, q]."""
        return self.passes.gradients(self.omega, self._batch(block), self.targets[block])[1]

    def losses_and_gradients(self) -> tuple[Tensor, Tensor]:
        """L_t [T] and ∇_ω L_t [T, q]: the pass of the gradients has the logits too."""
        _ = self.prepare(), self.targets

        def both(block: slice) -> tuple[Tensor, Tensor]:
            return self.passes.gradients(self.omega, self._batch(block), self.targets[block])

        with task_threads(self._side_by_side) as each:
            logits, gradients = zip(*each(both, self.gradient_blocks), strict=True)
        self.logits = torch.cat(logits)
        return self.losses(), torch.cat(gradients)

    def hvp_block(self, block: slice, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t ∇²L_t v_k over the block, [K, q]."""
        obstacle = self.passes.no_third_derivative()
        if obstacle is not None:
            self.report.decisions["exact Hessian products"] = f"reference: {obstacle}"
            return self._reference.hvp_block(block, V, weights)
        return self.passes.hvp(self.omega, self._batch(block), V, weights, self.targets[block])

    @cached_property
    def _reference(self) -> ReferenceLinearization:
        return ReferenceLinearization(self.learner, self.tasks, self.dtype, self.report).at(self.omega)


class MetaGradient:
    """∇_ω L_t of one task after another, at whatever ω is at the time: what `meta_train` averages.

    Raises Unsupported where the engine has no plan for the learner's module.
    """

    def __init__(self, learner: Learner):
        parameters = learner.parameters()
        first = next(iter(parameters.values()))
        backend = backend_of(first.device)
        if backend is None or first.dtype not in (torch.float32, torch.float64):
            raise Unsupported(f"the engine has no kernels for {first.dtype} on {first.device}")
        if why_not(backend) is not None:
            raise Unsupported(why_not(backend))
        module_plan = compiled_plan(learner, first.device)
        if getattr(learner, "first_order", False):
            raise Unsupported("first-order MAML drops the chain through the inner steps")
        self.learner, self.flat = learner, FlatParameters(parameters)
        self.dtype, self.device = first.dtype, first.device
        layout = Layout(learner, self.flat, self.dtype, self.device)
        layout.pack(module_plan.packed_weights)
        self.passes = lambda ways: passes_of(learner, module_plan, layout, ways)[0]

    def __call__(self, omega: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """L_t, and ∇_ω L_t, [q]."""
        episode = Episode.of(task, self.dtype, self.device)
        y = task.query_y.to(self.device, self.dtype if task.regression else torch.int64)[None]
        try:
            logits, gradients = self.passes(task.ways).gradients(omega, Batch([episode]), y)
        except (RuntimeError, LearnerError):
            self.learner.check(task)  # which says in words what does not fit
            raise
        return self.learner.loss(logits[0], y[0]), gradients[0]
