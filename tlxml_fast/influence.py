"""Task-level influence: TLXML's three quantities for every pair of training and test task."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .curvature import Curvature, CurvatureOperator, GaussNewton, Identity
from .errors import CurvatureError, InfluenceWarning, LearnerError, TaskError, TlxError
from .learners import Learner
from .linearize import Linearization, choose_backend, linearize
from .linearize.buckets import Buckets
from .profiling import span
from .progress import progress_bar
from .scores import Scores, TaskAxis
from .solvers import Dense, FittedInverse, Inverse
from .targets import check_target, target_cotangents
from .task import Task, TaskSet

CONFIDENT = 0.99
FAR_FROM_STATIONARY = 0.5
EXAMPLES = {"curvature": "GaussNewton()", "inverse": "Dense(damping=1e-3)"}


class TaskInfluence:
    """How much each training task influenced the meta-parameters, an adaptation, and a loss.

    With L(ω) = (1/M) Σ_t L_t(ω) + (δ/2)‖ω‖², g_j = ∇_ω L_j and H⁺ the inverse of its curvature at the trained ω:

        meta        I_meta(j)    = −H⁺ g_j                      [q]
        adaptation  I_adpt(i, j) = (∂θ_i/∂ω) I_meta(j)          [p]
        scores      I_perf(i, j) = ∇_ω L_i · I_meta(j)          [n_test, n_train]

    (TLXML, arXiv 2501.14271.) Upweighting task j by ε moves ω by ε·I_meta(j); removing a group J predicts
    ΔL_i ≈ −(1/M) Σ_{j∈J} I_perf(i, j), the objective keeping its 1/M and δ. I_perf > 0 is harmful.

    learner       at its trained parameters; refused where they are no stationary point (FOMAML)
    curvature     GaussNewton() unless given; Hessian(); Identity() uses no inverse
    inverse       Dense(damping=1e-3) unless given
    backend       "auto", "native" (the CPU's), "triton" (CUDA devices') or "reference"
    precision     what a device makes products of float32 of: "fp32", "tf32x3", "tf32" or "bf16" (`linearize`)
    dtype         torch.float32 or torch.float64; the parameters' own unless given
    weight_decay  δ; taken from the learner where training recorded it, and a different value raises
    progress      draw progress bars

    Test tasks are adapted with the learner's evaluation steps, training tasks with its training steps.
    """

    def __init__(
        self,
        learner: Learner,
        curvature: Curvature | None = None,
        inverse: Inverse | None = None,
        backend: str = "auto",
        dtype: torch.dtype | None = None,
        weight_decay: float | dict[str, float] | None = None,
        progress: bool = False,
        precision: str = "fp32",
    ):
        for what, given, kind in (("curvature", curvature, Curvature), ("inverse", inverse, Inverse)):
            if given is not None and not isinstance(given, kind):
                raise CurvatureError(f"{what} is an object such as {EXAMPLES[what]}, not {given!r}")
        learner.refuse_influence()
        choose_backend(backend, next(iter(learner.parameters().values())).device)
        self.learner = learner
        self.curvature = curvature or GaussNewton()
        self.inverse = inverse or Dense(damping=1e-3)
        self.weight_decay = _agreed(learner.weight_decay, weight_decay)
        self.progress = progress
        self.report: dict[str, Any] = {}
        """What `fit` found, JSON throughout; part of every `Scores.info`."""
        self._linearize = partial(linearize, backend=backend, dtype=dtype, precision=precision)
        self._train: Buckets | None = None
        self._inverse: FittedInverse | None = None
        self._gradients = torch.empty(0)
        self._by_id: dict[str, int] = {}

    # ---- fit ----------------------------------------------------------------------------------------

    def fit(self, train_tasks: TaskSet | Iterable[Task]) -> TaskInfluence:
        """Gradients of the training tasks, the curvature at them, and its inverse.

        Raises TaskError, LearnerError or CurvatureError, before long work where it can be known then. Warns
        with InfluenceWarning where Λ nearly vanishes (the median query confidence is above 0.99), and where
        the parameters are far from a stationary point (‖∇L‖ above half the median ‖∇L_t‖).
        """
        start = time.perf_counter()
        train = Buckets(self.learner, train_tasks, self._linearize)
        confidence = _median_confidence(train)
        gradients, losses = self._gradients_of(train, "training gradients")
        gradient_seconds = time.perf_counter() - start
        decay = self._decay(train.linearizations[0])
        objective = gradients.double().mean(0) + decay * train.linearizations[0].omega.double()
        start = time.perf_counter()
        operator = CurvatureOperator(self.curvature, train, decay, self.progress)
        fitted = None if isinstance(self.curvature, Identity) else self.inverse.fit(operator)
        self._train, self._inverse, self._gradients = train, fitted, gradients
        self._by_id = {task.id: i for i, task in reversed(list(enumerate(train.tasks)))}
        self.report = {
            "learner": {**self.learner.describe(), "parameters": train.linearizations[0].q},
            "curvature": self._describe_curvature(fitted),
            "training_tasks": len(train),
            "shapes": [str(lin.tasks[0].shape) for lin in train.linearizations],
            "mean_loss": float(losses.double().mean()),
            "gradient_norm": float(objective.norm()),
            "median_task_gradient_norm": float(gradients.double().norm(dim=1).median()),
            "median_confidence": confidence,
            "weight_decay": self.weight_decay,
            "dtype": str(train.linearizations[0].dtype).removeprefix("torch."),
            "backend": _describe_backend(train, operator),
            "notes": self._notes(train),
            "seconds": {"gradients": gradient_seconds, "curvature": time.perf_counter() - start},
        }
        norm, typical = self.report["gradient_norm"], self.report["median_task_gradient_norm"]
        if norm > FAR_FROM_STATIONARY * typical:
            warnings.warn(
                f"the gradient of the objective ({norm:.3g}) is not small beside that of a task ({typical:.3g}): the "
                "parameters are far from a stationary point, where influence has its meaning",
                InfluenceWarning,
                stacklevel=2,
            )
        if confidence is not None and confidence > CONFIDENT:
            warnings.warn(
                f"the median query confidence is {confidence:.4f}: the output Hessian nearly vanishes, and "
                "ranks by Gauss-Newton curvature may be noise",
                InfluenceWarning,
                stacklevel=2,
            )
        return self

    # ---- the three influences -----------------------------------------------------------------------

    def meta(self, train_task: Task | int) -> Tensor:
        """I_meta(j) = −H⁺ ∇_ω L_j, [q], float64. A task that was not in `fit` is added, not upweighted."""
        self._require_fit()
        return -self._solve(self._gradient(train_task)[None])[0]

    def adaptation(self, test_task: Task, train_task: Task | int) -> Tensor:
        """I_adpt(i, j) = (∂θ_i/∂ω) I_meta(j), [p], in the order of `learner.adapt`'s result."""
        lin = self._linearize(self.learner.at_evaluation(), TaskSet([test_task]))
        direction = self.meta(train_task).to(lin.omega)
        return lin.adaptation_block(slice(0, 1), direction[None])[0, 0].double()

    def scores(
        self,
        test_tasks: TaskSet | Iterable[Task],
        train_tasks: TaskSet | Iterable[Task] | None = None,
        per_query: bool = False,
        target: str = "loss",
    ) -> Scores:
        """I_perf(i, j) of every test task i and training task j; see `Scores` for dimensions and sign.

        train_tasks  the fitted ones unless given; the scores of others are those of adding them
        per_query    the influence on each query's own loss; their mean over queries is I_perf
        target       "loss"; or, for test tasks without query labels, the "predicted" class's loss, or the
                     "margin" between the predicted class's logit and the next
        """
        self._require_fit()
        check_target(target)
        start = time.perf_counter()
        test = Buckets(self.learner.at_evaluation(), test_tasks, self._linearize)
        if target == "loss":
            for lin in test.linearizations:
                lin.need_targets()
        train, gradients = self._training_side(train_tasks)
        explained = self._explained(test, target, per_query)
        solved = [self._solve(rows) for rows in explained]
        right = self._scaled(gradients.double()).mT
        flops = 2 * sum(len(rows) for rows in solved) * right.numel()
        with span("scores", flops, 8 * right.numel(), dtype=torch.float64):
            values = torch.nn.utils.rnn.pad_sequence(
                [-(rows @ right) for rows in solved], batch_first=True, padding_value=float("nan")
            )
        info = {**self.report, "seconds": {**self.report["seconds"], "scores": time.perf_counter() - start}}
        in_fit = torch.tensor([task.id in self._by_id for task in train])
        if not in_fit.all():
            info["notes"] = [
                *info["notes"],
                "training tasks that were not fitted are scored as if they were added",
            ]
        return Scores(
            (values if per_query else values[:, 0]).cpu(),
            TaskAxis.of(test.tasks),
            TaskAxis.of(train),
            in_fit,
            target,
            info,
        )

    # ---- inside -------------------------------------------------------------------------------------

    def _gradients_of(self, buckets: Buckets, description: str) -> tuple[Tensor, Tensor]:
        """∇_ω L_t of every task, [M, q], and L_t, [M]; both required to be finite."""
        losses = torch.stack(buckets.gather(lambda lin, block: lin.losses()[block], lambda done: None))
        buckets.require_finite("loss", losses[:, None])
        with progress_bar(description, len(buckets), self.progress) as advance:
            gradients = torch.stack(
                buckets.gather(lambda lin, block: lin.gradients_block(block), advance, one_vector=True)
            )
        buckets.require_finite("gradient", gradients)
        return gradients, losses

    def _explained(self, test: Buckets, target: str, per_query: bool) -> list[Tensor]:
        """Gradients of the target of every test task: [1, q], or [n, q] per query."""
        cotangents = {id(lin): target_cotangents(lin, target) for lin in test.linearizations}

        def rows(lin: Linearization, block: slice) -> Tensor:
            u = cotangents[id(lin)][block]
            if per_query:
                return lin.per_query_vjp(block, u[:, :, None])[:, :, 0]
            return lin.vjp_block(block, u[:, None] / lin.n)

        with progress_bar("test gradients", len(test), self.progress) as advance:
            gradients = test.gather(rows, advance)
        for task, gradient in zip(test.tasks, gradients, strict=True):
            if not torch.isfinite(gradient).all():
                raise TaskError(f"the gradient of test task {task.label!r} is not finite")
        return gradients

    def _training_side(self, train_tasks: TaskSet | Iterable[Task] | None) -> tuple[TaskSet, Tensor]:
        if train_tasks is None:
            return self._train.tasks, self._gradients
        tasks = TaskSet(train_tasks)
        new = [task for task in tasks if task.id not in self._by_id]
        fresh = (
            self._gradients_of(Buckets(self.learner, TaskSet(new), self._linearize), "gradients")[0]
            if new
            else []
        )
        rows = dict(zip((task.id for task in new), fresh, strict=True))
        known = [self._gradients[self._by_id[t.id]] if t.id in self._by_id else rows[t.id] for t in tasks]
        if not known:
            raise TaskError("there are no training tasks to score")
        return tasks, torch.stack(known)

    def _gradient(self, train_task: Task | int) -> Tensor:
        if isinstance(train_task, Task):
            return self._training_side([train_task])[1][0]
        if not -len(self._gradients) <= train_task < len(self._gradients):
            raise TaskError(f"training task {train_task} of {len(self._gradients)} fitted ones")
        return self._gradients[train_task]

    def _solve(self, B: Tensor) -> Tensor:
        """H⁺ b_k, or b_k itself (normalised) where the curvature is the identity; float64."""
        B = B.double()
        return self._scaled(B) if self._inverse is None else self._inverse.apply(B)

    def _scaled(self, B: Tensor) -> Tensor:
        """Rows of unit length where the curvature is Identity(normalize=True)."""
        cosine = isinstance(self.curvature, Identity) and self.curvature.normalize
        return torch.nn.functional.normalize(B, dim=1) if cosine else B

    def _decay(self, lin: Linearization) -> Tensor:
        """δ of every meta-parameter, [q], float64."""
        given = self.weight_decay
        names = list(lin.flat.shapes)
        if isinstance(given, dict) and set(given) != set(names):
            odd = sorted(set(given) ^ set(names))[0]
            raise CurvatureError(
                f"weight_decay and the meta-parameters differ: {odd!r} is in one of them only"
            )
        each = [given[name] for name in names] if isinstance(given, dict) else [given] * len(names)
        return torch.repeat_interleave(
            torch.tensor(each, dtype=torch.float64, device=lin.device),
            torch.tensor(lin.flat.sizes, device=lin.device),
        )

    def _describe_curvature(self, fitted: FittedInverse | None) -> dict[str, Any]:
        if fitted is None:
            return self.curvature.describe()
        return {**self.curvature.describe(), **self.inverse.describe(), "spectrum": fitted.describe()}

    def _notes(self, train: Buckets) -> list[str]:
        notes = self.learner.notes()
        for ways, outputs in sorted({(lin.ways, lin.C) for lin in train.linearizations}):
            if ways < outputs:
                notes.append(f"{outputs} outputs for {ways} ways: the unused logits stay in the softmax")
        recorded = self.learner.training
        if not recorded:
            notes.append("how the parameters were trained is not recorded; weight decay is as given")
            return notes
        if recorded.get("done", 0) < recorded.get("steps", 0):
            notes.append(f"training was stopped after {recorded['done']} of {recorded['steps']} steps")
        if recorded.get("tasks", 0) > len(train):
            notes.append(
                f"trained on {recorded['tasks']:,} tasks and fitted to {len(train):,}: the curvature is an "
                "estimate over these, and scores have no leave-one-out reading"
            )
        return notes

    def _require_fit(self) -> None:
        if self._train is None:
            raise TlxError("call fit(train_tasks) first")
        lin = self._train.linearizations[0]
        if not torch.equal(lin.flat.flatten(self.learner.parameters()).detach().to(lin.omega), lin.omega):
            raise LearnerError("the learner's parameters have changed since fit; fit again")


def _agreed(
    recorded: float | dict[str, float] | None, given: float | dict[str, float] | None
) -> float | dict[str, float]:
    """δ has one owner: what training recorded, or, where it recorded nothing, what is given."""
    for value in given.values() if isinstance(given, dict) else [given or 0.0]:
        if not 0 <= value < float("inf"):
            raise CurvatureError(f"weight_decay is at least 0, not {value}")
    if recorded is None:
        return given or 0.0
    if given is not None and given != recorded:
        raise CurvatureError(f"the learner was trained with weight_decay={recorded}, and {given} is given")
    return recorded


def _median_confidence(buckets: Buckets) -> float | None:
    """The median over all queries of the largest class probability; None for regression."""
    if buckets.linearizations[0].learner.loss.regression:
        return None
    top = [lin.logits.softmax(-1).amax(-1).flatten() for lin in buckets.linearizations]
    return float(torch.cat(top).median())


def _describe_backend(buckets: Buckets, operator: CurvatureOperator) -> dict[str, Any]:
    report = buckets.linearizations[0].report
    return {
        "backend": report.backend,
        "why": report.reason,
        **report.decisions,
        "assembly": operator.decisions,
    }
