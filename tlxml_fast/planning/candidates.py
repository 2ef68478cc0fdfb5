"""The curvatures and inverses that a job could be done by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..compression import SJLT
from ..linearize.shards import KEPT
from ..solvers.dual import LARGEST_EIGH
from ..solvers.effective import PROBE_TOL, PROBES
from ..solvers.woodbury import MOST_EIGH
from .engine import Projected
from .iterations import iterations, sketched_condition
from .job import Phase
from .phases import DOUBLE, Phases
from .plans import ESTIMATE, EXACT, OTHER, Plan

# Of a sketch by products, and of leading directions; of q where that is less.
NYSTROM_RANK, LANCZOS_RANK = 256, 64
# What is kept of a gradient where a compression is not asked for by name.
PROJECTED = 2048
# Vectors in a pass of Lanczos, and passes that it takes for LANCZOS_RANK directions.
LANCZOS_BLOCK, LANCZOS_PASSES = 16, 24
G = "GaussNewton"


def candidates(on: Phases) -> list[Plan]:
    """All plans of a job; without a compression, those with one as well."""
    if on.job.compression is not None:
        return [*_projected(on, G, exact=True), *_projected(on, _fisher(on), exact=False), _identity(on)]
    job = replace(on.job, compression=SJLT(PROJECTED))
    projected = Phases(job, on.rates, Projected(on.engine, job.work, on.rates))
    return [*_exact(on), *_estimates(on), *_others(on), *_projected(projected, _fisher(on), exact=False)]


def _exact(on: Phases) -> Iterator[Plan]:
    """Gauss-Newton as it is."""
    job, make = on.job, partial(_plan, on, G, kind=EXACT)
    q, K, N = job.work.q, job.tests, job.tasks * job.work.outputs
    first, last, rows = [on.gradients()], [on.scores(K)], on.rows(job.work.outputs, exact=True)
    yield make("Dense", [*first, on.assembly(), *_by_matrix(on, q), *last], decomposed=q)
    yield make("Woodbury", [*first, rows, *_by_rows(on, N), *last])
    curved, ends = min(q, N), on.ends()
    plain = iterations(job.condition, job.tol, K, curved)
    steps = [_rank(on, iterations(job.condition, PROBE_TOL, PROBES, curved), 0), _steps(on, plain, 0)]
    yield make("CG", [*first, ends, on.tests(), *steps, *last], assumes=f"{plain} iterations")
    s, N = job.rows_per_task, job.tasks * job.rows_per_task
    # it converges in the sketch's norm, which is up to √κ times the one asked for
    tol = job.tol / math.sqrt(job.condition)
    sketched = sketched_condition(job.condition, curved, N)
    few = iterations(sketched, tol, K, curved)
    steps = [
        _rank(on, iterations(sketched, PROBE_TOL / math.sqrt(job.condition), PROBES, curved), N),
        _steps(on, few, N),
    ]
    sketch = [on.rows(s, exact=False), on.gram(N), on.eigh(N)]
    yield make(
        f"CG, Sketch({_fisher(on)})",
        [*first, ends, *sketch, on.tests(), *steps, *last],
        decomposed=N,
        assumes=f"{few} iterations",
    )


def _estimates(on: Phases) -> Iterator[Plan]:
    """Gauss-Newton, sketched."""
    job, make = on.job, partial(_plan, on, kind=ESTIMATE)
    q, K, s = job.work.q, job.tests, job.rows_per_task
    first, last, rows = [on.gradients()], [on.scores(K)], on.rows(s, exact=False)
    yield make(_fisher(on), "Woodbury", [*first, rows, *_by_rows(on, job.tasks * s), *last])
    rank = min(NYSTROM_RANK, q)
    size = DOUBLE * rank * q
    factor = on.orthogonal("factor of the sketch", 8 * rank**2 * q, holds=size, needs=3 * size)
    sketch = [on.ends(), on.products(rank, f"products with {rank} vectors"), factor]
    certified = on.products(K, "solves, certified")
    yield make(G, f"Nystrom({rank})", [*first, *sketch, on.tests(), certified, *last])


def _others(on: Phases) -> Iterator[Plan]:
    """What is no estimate of damped Gauss-Newton scores."""
    job, make = on.job, partial(_plan, on, kind=OTHER)
    q, K = job.work.q, job.tests
    first, last, rank = [on.gradients()], [on.scores(K)], min(LANCZOS_RANK, q)
    block = min(LANCZOS_BLOCK, rank)
    flops = LANCZOS_PASSES * 8 * block * 2 * rank * q
    basis = on.orthogonal("orthogonalisation", flops, DOUBLE * rank * q, DOUBLE * (rank + 64) * q)
    said = f"{LANCZOS_PASSES} passes"
    passes = on.products(block, "").repeated(said, LANCZOS_PASSES)
    leading = [*first, passes, basis, on.tests(), on.basis_solves(K, rank), *last]
    yield make(G, f"Lanczos({rank})", leading, assumes=said)
    yield make("Hessian", "Dense", [*first, on.hessian(), *_by_matrix(on, q), *last], decomposed=q)
    yield _identity(on)


def _projected(on: Phases, curvature: str, exact: bool) -> Iterator[Plan]:
    """In a projection, as a matrix or by rows."""
    job, make = on.job, partial(_plan, on, curvature, kind=ESTIMATE)
    a_task = job.work.outputs if exact else job.rows_per_task
    first, last = [on.gradients(), on.rows(a_task, exact)], [on.scores(job.tests)]
    by_matrix = [on.normal(a_task), *_by_matrix(on, job.width)]
    yield make("Dense", [*first, *by_matrix, *last], decomposed=job.width)
    yield make("Woodbury", [*first, *_by_rows(on, job.tasks * a_task), *last])


def _identity(on: Phases) -> Plan:
    phases = [on.gradients(), on.tests(), on.scores(on.job.tests)]
    return _plan(on, "Identity", "", phases, kind=OTHER)


# ---- parts ----------------------------------------------------------------------------------------------------


def _by_matrix(on: Phases, n: int) -> list[Phase]:
    """Once there is a matrix of n × n."""
    return [on.eigh(n, stays=True), on.tests(), on.dense_solves(on.job.tests, n)]


def _by_rows(on: Phases, N: int) -> list[Phase]:
    """Once there are N rows: one factorisation for all dampings, where it can be had."""
    factor = [on.eigh(N)] if N <= MOST_EIGH else [on.row_ends(N), on.cholesky(N)]
    return [on.gram(N), *factor, on.tests(), on.row_solves(on.job.tests, N)]


def _steps(on: Phases, count: int, sketched: int) -> Phase:
    """Of conjugate gradients, preconditioned by so many rows."""
    return on.iteration(on.job.tests, sketched).repeated(f"{count} iterations", count)


def _rank(on: Phases, count: int, sketched: int) -> Phase:
    """The effective rank, by so many iterations with its probes."""
    return on.iteration(PROBES, sketched).repeated("effective rank", count)


def _fisher(on: Phases) -> str:
    return f"Fisher({on.job.rows_per_task})"


def _plan(
    on: Phases,
    curvature: str,
    inverse: str,
    phases: list[Phase],
    kind: str,
    decomposed: int = 0,
    assumes: str = "",
) -> Plan:
    """decomposed: rows of the largest eigendecomposition."""
    job, rates = on.job, on.rates
    mine = -(-job.tasks // rates.processes)
    projected = job.compression is not None
    return Plan(
        curvature=f"{curvature} {job.compression.name}({job.width})" if projected else curvature,
        inverse=inverse,
        kind=kind,
        projected=projected,
        phases=tuple(phases),
        room=rates.room,
        base=rates.base,
        tasks=min(2 * job.precision * job.work.numbers * mine, int(KEPT * rates.room)),
        processes=rates.processes,
        write=rates.write,
        read=rates.read,
        unlike=f"LAPACK decomposes {LARGEST_EIGH:,} rows at most" if decomposed > LARGEST_EIGH else "",
        assumes=assumes,
    )
