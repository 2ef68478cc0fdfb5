"""What is compared: curvatures and inverses, and what people would do without influence."""

from __future__ import annotations

from ... import baselines
from ...compression import SJLT
from ...curvature import Curvature, Fisher, GaussNewton, Hessian, Identity
from ...scores import Scores
from ...solvers import Dense, Lanczos, Nystrom, Woodbury
from .memory import DOUBLE, SINGLE, held
from .methods import Baseline, ByInfluence, Damped, Method, Problem

ROWS = (1, 2, 4, 8, 16, 32)
EXACT_HESSIAN, GAUSS_NEWTON = "exact Hessian", "Gauss-Newton"
DROPPED = f"{EXACT_HESSIAN}, negative dropped"
FISHER, PROJECTED, LOW_RANK = "Fisher rows", "compressed", "low rank"
NO_CURVATURE, BASELINE = "no curvature", "baseline"


def _hessian(name: str, negative: str, shared: bool = False) -> Method:
    return ByInfluence(
        name, EXACT_HESSIAN, Hessian(), lambda damping: Dense(damping, negative=negative), shared=shared
    )


def sketch(rows: int) -> str:
    """The name of a sketch by so many rows a task."""
    return f"Fisher({rows})"


def _fisher(rows: int, inverse: Damped) -> Method:
    return ByInfluence(sketch(rows), FISHER, Fisher(rows), inverse)


def _projected(curvature: Curvature, name: str, dimension: int, inverse: Damped) -> Method:
    return ByInfluence(f"{name}, SJLT({dimension})", PROJECTED, curvature, inverse, SJLT(dimension))


def _nystrom(rank: int) -> Method:
    return ByInfluence(f"Nystrom({rank})", LOW_RANK, GaussNewton(), lambda damping: Nystrom(rank, damping))


def _lanczos(rank: int) -> Method:
    return ByInfluence(f"Lanczos({rank})", LOW_RANK, GaussNewton(), lambda _: Lanczos(rank), damped=False)


def _gradients(problem: Problem, _: Scores) -> int:
    return held(None, len(problem.train), 0, problem.parameters, compressed=False)


def _embeddings(problem: Problem, scores: Scores) -> int:
    return DOUBLE * scores.info["curvature"]["dimension"] * (len(problem.train) + len(problem.test))


PLAIN: tuple[Method, ...] = (
    ByInfluence("Identity()", NO_CURVATURE, Identity(), damped=False),
    Baseline("gradient cosine", BASELINE, baselines.gradient_cosine, _gradients),
    Baseline("embedding similarity", BASELINE, baselines.embedding_similarity, _embeddings),
    Baseline(
        "loss magnitude", BASELINE, baselines.loss_magnitude, lambda problem, _: DOUBLE * len(problem.train)
    ),
    Baseline(
        "gradient ascent", BASELINE, baselines.ascent, lambda problem, _: 2 * SINGLE * problem.parameters
    ),
    Baseline("random", BASELINE, baselines.random, lambda problem, _: 0),
)
WHOLE = ByInfluence(GAUSS_NEWTON, GAUSS_NEWTON, GaussNewton(), Dense)
HESSIANS = (
    _hessian(EXACT_HESSIAN, "abs"),
    _hessian(DROPPED, "drop", shared=True),
    _hessian(f"{EXACT_HESSIAN}, negative kept", "keep", shared=True),
)

EXACT: tuple[Method, ...] = (
    WHOLE,
    *HESSIANS,
    *(_fisher(rows, Dense) for rows in ROWS),
    *(_projected(GaussNewton(), GAUSS_NEWTON, d, Dense) for d in (256, 512)),
    _projected(Fisher(8), sketch(8), 512, Dense),
    *(_nystrom(rank) for rank in (64, 256)),
    *(_lanczos(rank) for rank in (16, 64)),
    *PLAIN,
)
LARGE: tuple[Method, ...] = (
    ByInfluence(GAUSS_NEWTON, GAUSS_NEWTON, GaussNewton(), Woodbury),
    *(_fisher(rows, Woodbury) for rows in ROWS),
    *(_projected(Fisher(8), sketch(8), d, Woodbury) for d in (512, 2048)),
    _nystrom(64),
    *PLAIN,
)
QUICK: tuple[Method, ...] = (
    WHOLE,
    *HESSIANS,
    *(_fisher(rows, Dense) for rows in (1, 8)),
    _projected(Fisher(8), sketch(8), 512, Dense),
    _nystrom(64),
    _lanczos(16),
    *PLAIN,
)
