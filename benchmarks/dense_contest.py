"""Scores timed: from end to end, or composed of parts where that would take many minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from .. import TaskInfluence
from .cg import conjugate_gradients
from .general import CG, PRODUCTS, PULL_BACKS, General, gradients
from .measure import OURS, Row, Settings, Timing, contest, relative_error, timed
from .problem import Problem, available

# In float64: what CG is run to where it is validated.
ROUNDING = 1e-12
# None runs again after so many seconds.
ENOUGH = 5.0


class Agreement:
    """How far ours solves, and how many products CG needs to solve as far.

    In float32 CG's recursion goes on falling where its residual no longer does. If that is before it is as small as
    ours, CG is asked for no more than what it reaches. Its products are counted with G as a matrix that torch.func
    made, which is the same operator.

    ours, theirs  the largest ‖(G + damping·I)x − b‖/‖b‖, by curvlinops' product over all training tasks
    asked         the larger of them
    seconds       of the two products that took
    """

    def __init__(
        self, problem: Problem, general: General, influence: TaskInfluence, matrix: Tensor, B: Tensor
    ):
        self.product = general.product(len(B))
        x = problem.solutions(influence).to(B)
        self.ours, first = timed(lambda: general.residual(self.product, x, B))
        solved = conjugate_gradients(lambda V: V @ matrix, B, problem.damping, self.ours)
        self.x = solved.x
        self.theirs, second = timed(lambda: general.residual(self.product, solved.x, B))
        self.seconds = [first, second]
        self.asked = max(self.ours, self.theirs)
        self.iterations = solved.iterations_to(self.asked)

    def describe(self) -> Row:
        """JSON."""
        return {"residuals": {OURS: self.ours, CG: self.theirs}, "iterations_with_matrix": self.iterations}


def whole(
    problem: Problem, with_cg: bool, errors: Mapping[str, float], settings: Settings
) -> tuple[dict[str, Timing], Row]:
    """Every contestant from end to end, in turns."""
    general = problem.general(ROUNDING)
    ways, _ = available(general)
    dense: Row = {}
    influence, _ = problem.influence()
    ways[PULL_BACKS]()  # for its matrix; both have then been warmed up, and what takes longer need not be
    if with_cg:
        B = gradients(general.test)
        agreement = Agreement(problem, general, influence, general.matrix, B)
        general.tolerance = agreement.asked
        dense |= agreement.describe()
    given: dict[str, Tensor] = {}

    def keeping(name: str, run: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: given.update({name: run()})

    runs = {OURS: lambda: problem.influence()[1].values, **ways}
    timings = contest(
        {name: keeping(name, run) for name, run in runs.items()},
        errors,
        settings.rounds,
        min(settings.seconds, ENOUGH),
        warm_ups=0,
    )
    if with_cg:
        dense["residuals"][CG] = general.residual(agreement.product, general.solved.x, B)
        dense["iterations"] = general.solved.iterations
    dense["scores_error"] = {name: relative_error(given[name], given[OURS]) for name in ways}
    return timings, dense


def composed(
    problem: Problem, with_cg: bool, errors: Mapping[str, float], settings: Settings
) -> tuple[dict[str, Timing], Row]:
    """What takes seconds is run whole; what would take many minutes is composed of parts that are measured.

    The updates of CG's vectors are left out, in its favour.
    """
    samples: list[float] = []
    while not samples or (len(samples) < settings.rounds and sum(samples) < ENOUGH):
        (influence, scores), seconds = timed(problem.influence)
        samples.append(seconds)
    general = problem.general(ROUNDING)
    by_pull_backs, seconds = timed(general.ways()[PULL_BACKS])
    matrix = general.matrix
    ours, theirs = Timing.of(samples, errors[OURS]), Timing.of([seconds], errors[PULL_BACKS])
    differ = {PULL_BACKS: relative_error(by_pull_backs, scores.values)}
    if not with_cg:
        return {OURS: ours, PULL_BACKS: theirs}, {"scores_error": differ}

    (B, of_train), gradient_seconds = timed(lambda: (gradients(general.test), gradients(general.train)))
    _, solve_seconds = timed(lambda: general.by_matrix(lambda: matrix)(B))
    agreement = Agreement(problem, general, influence, matrix, B)
    differ[CG] = relative_error(-(agreement.x @ of_train.mT), scores.values)

    timings, each = {OURS: ours}, sum(agreement.seconds) / 2
    for name, count, rest, of_what in (
        (CG, agreement.iterations, gradient_seconds, "gradients"),
        (
            PRODUCTS,
            len(matrix) / len(B),
            gradient_seconds + solve_seconds,
            "gradients and the Cholesky factor",
        ),
    ):
        total = count * each + rest
        parts = (
            f"{count:.4g} products of {len(B)} vectors with {len(problem.train):,} tasks, {each:.3g} s each (the mean "
            f"of 2), and {rest:.2g} s for {of_what}"
        )
        timings[name] = Timing(total, total, total, 0, errors[name], parts)
    return {**timings, PULL_BACKS: theirs}, {"scores_error": differ, **agreement.describe()}
