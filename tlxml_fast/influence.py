"""Task-level influence: TLXML's three quantities for every pair of training and test task."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .compression import Compression
from .curvature import Curvature, CurvatureOperator, GaussNewton, Identity
from .distributed import World
from .errors import CurvatureError, InfluenceWarning, LearnerError, TaskError, TlxError
from .explained import Explained
from .gradients import Gradients
from .kept import Result, digest
from .learners import Learner
from .linearize import Linearization, choose_backend, linearize
from .linearize.roster import Roster
from .memory import parse_limit
from .profiling import span
from .scores import Scores, TaskAxis
from .session import Session, Sessions
from .solvers import Certificate, Dense, FittedInverse, Inverse, Relative, Solution
from .solvers.base import check_damping, check_rank
from .streamed import StreamedScores
from .sweep import DampingSweep, RankSweep
from .targets import check_target
from .task import Task, TaskSet

CONFIDENT = 0.99
FAR_FROM_STATIONARY = 0.5
# Right-hand sides in one solve: beyond these, conjugate gradients' own work outgrows the passes that they share.
SOLVED_AT_ONCE = 256
EXAMPLES = {
    "curvature": "GaussNewton()",
    "inverse": "Dense(damping=1e-3)",
    "compression": "SJLT(2048)",
}


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
    graphs        replay products of small tasks on a CUDA device as CUDA graphs (`linearize`)
    prefetch      keep tasks on the host, and copy each block to a CUDA device during the one before it (`linearize`)
    dtype         torch.float32 or torch.float64; the parameters' own unless given
    weight_decay  δ; taken from the learner where training recorded it, and a different value raises
    progress      draw progress bars
    compression   gradients and rows are projected as they are produced: SJLT(2048), SRHT(2048) or Rademacher(2048)
    memory        what the process may have resident, such as "8GiB"; chunks are chosen by it
    store         a directory that keeps gradients, rows, factors and scores: the same fit goes on from there after it
                  was stopped, and a fit to more tasks computes only theirs

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
        compression: Compression | None = None,
        memory: str | int | None = None,
        store: str | os.PathLike[str] | None = None,
        graphs: bool = False,
        prefetch: bool = False,
    ):
        for what, given, kind in (
            ("curvature", curvature, Curvature),
            ("inverse", inverse, Inverse),
            ("compression", compression, Compression),
        ):
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
        self._linearize = partial(
            linearize, backend=backend, dtype=dtype, precision=precision, graphs=graphs, prefetch=prefetch
        )
        self.compression = compression
        self._sessions = Sessions(
            learner,
            self._linearize,
            self.curvature,
            compression,
            self.curvature.by_rows or self.inverse.by_rows or compression is not None,
            None if memory is None else parse_limit(memory),
            store,
            {"precision": precision},
        )
        self._session: Session | None = None
        self._fingerprint = ""
        self._tests: TaskSet | None = None
        self._gradients: Gradients | None = None
        self._inverse: FittedInverse | None = None
        self._axis = TaskAxis((), (), ())
        self._by_id: dict[str, int] = {}

    # ---- fit ----------------------------------------------------------------------------------------

    def fit(self, train_tasks: TaskSet | Iterable[Task]) -> TaskInfluence:
        """Gradients of the training tasks, the curvature at them, and its inverse.

        Raises TaskError, LearnerError or CurvatureError, before long work where it can be known then. Warns
        with InfluenceWarning where Λ nearly vanishes (the median query confidence is above 0.99), and where
        the parameters are far from a stationary point (‖∇L‖ above half the median ‖∇L_t‖).
        """
        with self._sessions.active(_task_set(train_tasks)) as session:
            self._fit(session)
        self._warn()
        return self

    def _fit(self, session: Session) -> None:
        shards, kept, roster = session.shards, session.kept, session.roster
        decay, decayed = self._decay(shards.first)
        start = time.perf_counter()
        gradients = Gradients(shards, kept, self.compression, self.progress)
        gradient_seconds = time.perf_counter() - start
        start = time.perf_counter()
        operator = CurvatureOperator(self.curvature, shards, decay, self.compression, kept, self.progress)
        fitted = None if isinstance(self.curvature, Identity) else self.inverse.fit(operator)
        curvature_seconds = time.perf_counter() - start  # rows included
        self._session, self._gradients, self._inverse, self._axis = session, gradients, fitted, roster.axis
        self._fingerprint = self.learner.fingerprint()
        self._by_id = {task: i for i, task in reversed(list(enumerate(self._axis.ids)))}
        self.report = {
            "learner": {**self.learner.describe(), "parameters": shards.first.q},
            "curvature": self._describe_curvature(fitted),
            "compression": None if self.compression is None else self.compression.describe(),
            "training_tasks": len(shards),
            "shapes": roster.shapes,
            **gradients.describe(decayed),
            "weight_decay": self.weight_decay,
            "dtype": str(shards.first.dtype).removeprefix("torch."),
            "backend": _describe_backend(shards.first, operator),
            "processes": shards.world.size,
            "notes": self._notes(roster),
            "seconds": {"gradients": gradient_seconds, **operator.seconds, "curvature": curvature_seconds},
        }

    def _warn(self) -> None:
        norm, typical = self.report["gradient_norm"], self.report["median_task_gradient_norm"]
        if norm > FAR_FROM_STATIONARY * typical:
            warnings.warn(
                f"the gradient of the objective ({norm:.3g}) is not small beside that of a task ({typical:.3g}): the "
                "parameters are far from a stationary point, where influence has its meaning",
                InfluenceWarning,
                stacklevel=3,
            )
        confidence = self.report["median_confidence"]
        if confidence is not None and confidence > CONFIDENT:
            warnings.warn(
                f"the median query confidence is {confidence:.4f}: the output Hessian nearly vanishes, and "
                "ranks by Gauss-Newton curvature may be noise",
                InfluenceWarning,
                stacklevel=3,
            )

    # ---- the three influences -----------------------------------------------------------------------

    def meta(self, train_task: Task | int) -> Tensor:
        """I_meta(j) = −H⁺ ∇_ω L_j, [q], float64. A task that was not in `fit` is added, not upweighted."""
        self._require_fit()
        if self.compression is not None:
            raise TlxError(
                "I_meta lies among the meta-parameters, and the gradients were compressed; fit without"
            )
        with self._session.active():
            return -self._solve(self._gradient(train_task)[None], self._inverse).X[0]

    def solve(self, B: Tensor) -> Solution:
        """H⁺ b_k for the rows of B, [K, q] → [K, q], float64, with their certificate (None with Identity()).

        Raises CurvatureError for rows of another length, or a solve that did not converge.
        """
        self._require_fit()
        with self._session.active():
            return self._solve(B, self._inverse)

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
                     "margin" between the predicted class's logit and the next, or that class's "probability"; or
                     "adapted NAME[i, j]", one entry of the adapted parameters θ_i: of the two ends neither is better,
                     and `helpful` has those that lower it
        """
        self._require_fit()
        check_target(target, per_query)
        start = time.perf_counter()
        tests = self._tests = TaskSet(test_tasks)
        with self._session.active():
            if train_tasks is None:
                train, (tensors, found) = self._axis, self._kept_scores(tests, target, per_query)
            else:
                with self._sessions.active(_task_set(train_tasks), stored=False) as session:
                    gradients = Gradients(session.shards, session.kept, self.compression, self.progress)
                    train = session.roster.axis
                    tensors, found = self._scores(tests, gradients.blocks, target, per_query)
        in_fit = torch.tensor([task in self._by_id for task in train.ids])
        notes = self.report["notes"]
        if not in_fit.all():
            notes = [*notes, "training tasks that were not fitted are scored as if they were added"]
        seconds = {**self.report["seconds"], "scores": time.perf_counter() - start}
        info = {**self.report, **found, "notes": notes, "seconds": seconds}
        return Scores(tensors["values"].cpu(), TaskAxis.of(tests), train, in_fit, target, info)

    def stream_scores(
        self, test_tasks: TaskSet | Iterable[Task], per_query: bool = False, target: str = "loss"
    ) -> StreamedScores:
        """`scores` by the fitted tasks, of more pairs than memory holds: only what is asked of them is computed."""
        self._require_fit()
        check_target(target, per_query)
        if isinstance(self.curvature, Identity) and self.curvature.normalize:
            raise TlxError("cosines are not streamed; use scores")
        tests = self._tests = TaskSet(test_tasks)
        with self._session.active():
            explained = self._explain(tests, target, per_query)
            solution = self._solve(explained.rows, self._inverse)
        info = {**self.report, "certificate": solution.certificate and solution.certificate.describe()}
        directions = explained.per_task(solution.X).to(self._session.shards.first.dtype)
        in_fit = torch.ones(len(self._axis), dtype=torch.bool)
        blocks, world = self._gradients.blocks, self._session.shards.world
        return StreamedScores(directions, blocks, explained.axis, self._axis, in_fit, target, info, world)

    def damping_sweep(
        self,
        dampings: Sequence[float | Relative],
        test_tasks: TaskSet | Iterable[Task] | None = None,
        target: str = "loss",
    ) -> DampingSweep:
        """Scores of the fitted tasks at every damping, with how far ranks hang on it.

        From the one factorisation that `fit` made, where the inverse has one for all dampings: `Dense`, `Nystrom`, and
        `Woodbury` by eigendecomposition. Gradients of the test tasks are computed once.

        dampings    numbers, or Relative(fraction) of the largest |eigenvalue|
        test_tasks  those that `scores` was last asked for, unless given

        Raises CurvatureError for a pseudo-inverse, and what `scores` raises.
        """
        scores = self._swept(
            "damping",
            dampings,
            test_tasks,
            target,
            check_damping,
            lambda fitted, damping: fitted.at(damping),
        )
        return DampingSweep(scores, tuple(s.info["certificate"]["damping"] for s in scores))

    def rank_sweep(
        self,
        ranks: Sequence[int],
        test_tasks: TaskSet | Iterable[Task] | None = None,
        target: str = "loss",
    ) -> RankSweep:
        """Scores of the fitted tasks by pseudo-inverses that keep so many eigen-directions, those of largest |λ|.

        From the one eigendecomposition that `fit` made: `Dense`'s, or of at most as many directions `Lanczos`'s.

        Raises CurvatureError for another inverse or a rank above the numerical one, and what `scores` raises.
        """
        scores = self._swept(
            "rank", ranks, test_tasks, target, check_rank, lambda fitted, rank: fitted.of_rank(rank)
        )
        return RankSweep(scores, tuple(ranks))

    # ---- inside -------------------------------------------------------------------------------------

    def _swept(
        self,
        what: str,
        grid: Sequence[Any],
        test_tasks: TaskSet | Iterable[Task] | None,
        target: str,
        check: Callable[[Any], None],
        inverse_at: Callable[[FittedInverse, Any], FittedInverse],
    ) -> tuple[Scores, ...]:
        """Scores at every point of a grid; the test tasks are explained once."""
        self._require_fit()
        check_target(target)
        if self._inverse is None:
            raise CurvatureError(f"Identity() has no {what} to sweep")
        if not isinstance(grid, Sequence) or len(grid) == 0:
            raise CurvatureError(f"a sweep needs a list of {what}s, one at least")
        if test_tasks is None and self._tests is None:
            raise TlxError("give test_tasks: scores have not been asked for yet")
        tests = self._tests if test_tasks is None else TaskSet(test_tasks)
        for point in grid:
            check(point)
        inverse = inverse_at(self._inverse, grid[0])  # refuses what has no such sweep before long work
        with self._session.active():
            explained, made = self._explain(tests, target, per_query=False), []
            for point in grid:
                if made:
                    del inverse  # one at a time: each may be a factorisation
                    inverse = inverse_at(self._inverse, point)
                made.append(self._scores_of(explained, self._gradients.blocks, inverse))
        test, in_fit = TaskAxis.of(tests), torch.ones(len(self._axis), dtype=torch.bool)
        return tuple(
            Scores(tensors["values"].cpu(), test, self._axis, in_fit, target, {**self.report, **found})
            for tensors, found in made
        )

    def _explain(self, tasks: TaskSet, target: str, per_query: bool) -> Explained:
        """Gradients of the target of every test task; this process computes its share."""
        world = World.current()
        if len(tasks) == 0:
            raise TaskError("there are no test tasks")
        if len(tasks) < world.size:
            raise TaskError(f"there are {len(tasks)} test tasks for {world.size} processes")
        learner, mine = self.learner.at_evaluation(), world.share(len(tasks))
        share = tasks[mine.start : mine.stop]
        found = Explained.of(learner, share, self._linearize, target, per_query, self.progress)
        if self.compression is not None:
            found = replace(found, rows=self.compression.project(found.rows))
        return found.joined(world)

    def _kept_scores(self, tests: TaskSet, target: str, per_query: bool) -> Result:
        """Scores by the fitted tasks, read where the store has them."""
        depends = {
            "test tasks": tests.ids,
            "evaluation": self.learner.at_evaluation().describe(),
            "target": target,
            "per query": per_query,
            **self._settings(),
        }
        blocks = self._gradients.blocks
        return self._session.kept.whole(
            f"scores-{digest(depends)}", depends, lambda: self._scores(tests, blocks, target, per_query)
        )

    def _scores(self, tests: TaskSet, blocks: Sequence[Tensor], target: str, per_query: bool) -> Result:
        return self._scores_of(self._explain(tests, target, per_query), blocks, self._inverse)

    def _scores_of(
        self, explained: Explained, blocks: Sequence[Tensor], inverse: FittedInverse | None
    ) -> Result:
        solution = self._solve(explained.rows, inverse)
        values = explained.per_task(self._products(solution.X, blocks))
        certificate = None if solution.certificate is None else solution.certificate.describe()
        return {"values": values}, {"certificate": certificate}

    def _settings(self) -> dict[str, Any]:
        """JSON that an inverse depends on, besides the tasks and what the store's context has."""
        return {
            "curvature": self.curvature.describe(),
            "inverse": self.inverse.describe(),
            "compression": None if self.compression is None else self.compression.describe(),
            "weight decay": self.weight_decay,
        }

    def _gradient(self, train_task: Task | int) -> Tensor:
        if isinstance(train_task, Task):
            if train_task.id not in self._by_id:
                with self._sessions.active(TaskSet([train_task]), stored=False) as session:
                    return Gradients(session.shards, session.kept, self.compression, False).row(0)
            train_task = self._by_id[train_task.id]
        count = len(self._axis)
        if not -count <= train_task < count:
            raise TaskError(f"training task {train_task} of {count} fitted ones")
        return self._gradients.row(train_task % count)

    def _products(self, X: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """−x_k·g_j of all training tasks: [K, n_train], float64."""
        lengths = [len(block) for block in blocks]
        mine = X.new_empty(sum(lengths), len(X))
        start = 0
        for block in blocks:
            with span("scores", 2 * len(X) * block.numel(), block.nbytes, dtype=torch.float64):
                torch.mm(self._scaled(block.double()), X.mT, out=mine[start : start + len(block)])
            start += len(block)
        return -World.current().cat(mine).mT

    def _solve(self, B: Tensor, inverse: FittedInverse | None) -> Solution:
        """H⁺ b_k, or b_k itself (normalised) where the curvature is the identity; float64."""
        B = B.double()
        if inverse is None:
            return Solution(self._scaled(B), None)
        parts = [inverse.solve(part) for part in B.split(SOLVED_AT_ONCE)]
        return Solution(torch.cat([X for X, _ in parts]), Certificate.join([found for _, found in parts]))

    def _scaled(self, B: Tensor) -> Tensor:
        """Rows of unit length where the curvature is Identity(normalize=True)."""
        cosine = isinstance(self.curvature, Identity) and self.curvature.normalize
        return torch.nn.functional.normalize(B, dim=1) if cosine else B

    def _decay(self, lin: Linearization) -> tuple[Tensor, Tensor]:
        """δ of every meta-parameter, [q], float64, and its gradient δ∘ω; both as gradients are compressed."""
        given = self.weight_decay
        names = list(lin.flat.shapes)
        if isinstance(given, dict) and set(given) != set(names):
            odd = sorted(set(given) ^ set(names))[0]
            raise CurvatureError(
                f"weight_decay and the meta-parameters differ: {odd!r} is in one of them only"
            )
        each = [given[name] for name in names] if isinstance(given, dict) else [given] * len(names)
        decay = torch.repeat_interleave(
            torch.tensor(each, dtype=torch.float64, device=lin.device),
            torch.tensor(lin.flat.sizes, device=lin.device),
        )
        decayed = decay * lin.omega.double()
        if self.compression is None:
            return decay, decayed
        if len(set(each)) > 1:
            raise CurvatureError("compression needs one weight decay for all parameters, and theirs differ")
        return decay.new_full((self.compression.dimension,), each[0]), self.compression.project(
            decayed[None]
        )[0]

    def _describe_curvature(self, fitted: FittedInverse | None) -> dict[str, Any]:
        if fitted is None:
            return self.curvature.describe()
        made_of = self.curvature.describe()
        inverse = {f"inverse_{k}" if k in made_of else k: v for k, v in self.inverse.describe().items()}
        return {**made_of, **inverse, "spectrum": fitted.describe()}

    def _notes(self, roster: Roster) -> list[str]:
        notes = [*self.learner.notes(), *roster.notes(self.learner)]
        if self.compression is not None:
            notes.append(
                f"gradients and rows were compressed to {self.compression.dimension:,} numbers: the certificate is of "
                "the compressed system, and says nothing of what compression changed"
            )
        recorded = self.learner.training
        if not recorded:
            notes.append("how the parameters were trained is not recorded; weight decay is as given")
            return notes
        if recorded.get("done", 0) < recorded.get("steps", 0):
            notes.append(f"training was stopped after {recorded['done']} of {recorded['steps']} steps")
        if recorded.get("tasks", 0) > len(roster.tasks):
            notes.append(
                f"trained on {recorded['tasks']:,} tasks and fitted to {len(roster.tasks):,}: the curvature is an "
                "estimate over these, and scores have no leave-one-out reading"
            )
        return notes

    def _require_fit(self) -> None:
        if self._gradients is None:
            raise TlxError("call fit(train_tasks) first")
        if self.learner.fingerprint() != self._fingerprint:
            raise LearnerError(
                "the learner's parameters, buffers or settings have changed since fit; fit again"
            )


def _task_set(tasks: TaskSet | Iterable[Task]) -> TaskSet:
    """As it is, or the tasks held."""
    return tasks if isinstance(tasks, TaskSet) else TaskSet(tasks)


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


def _describe_backend(lin: Linearization, operator: CurvatureOperator) -> dict[str, Any]:
    return {
        "backend": lin.report.backend,
        "why": lin.report.reason,
        **lin.report.decisions,
        "assembly": operator.decisions,
    }
