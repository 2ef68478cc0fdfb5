"""The phases of an influence computation: each one's cost by the formulas that its class states."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .engine import Engine
from .job import Job, Phase
from .rates import Rates

DOUBLE = 8
# Passes over the tasks, of 4 vectors each, for the ends of a spectrum: at most 40 are taken; 11 to 28 were seen.
ENDS, END_VECTORS = 20, 4
# A QR or an SVD of a block of vectors, as a share of the speed of a product.
ORTHOGONAL = 0.25


@dataclass(frozen=True)
class Phases:
    """Those of a job, by the rates of a process and of its engine."""

    job: Job
    rates: Rates
    engine: Engine

    # ---- passes over tasks ------------------------------------------------------------------------------------

    def gradients(self) -> Phase:
        """∇L_t of every training task: M gradients, kept."""
        job, m = self.job, self._mine
        flops = job.tasks * (2 * job.work.primal + job.work.vector)
        kept = m * job.row_bytes
        return Phase(
            "training gradients", m * self.engine.gradient(), flops, stored=kept, needs=self._working
        )

    def rows(self, a_task: int, exact: bool) -> Phase:
        """R of every training task: so many pull-backs each, kept."""
        job, m = self.job, self._mine
        seconds = m * (self.engine.factor() if exact else self.engine.sketch(a_task))
        flops = job.tasks * (2 * job.work.primal + a_task * job.work.vector)
        kept = m * a_task * job.row_bytes
        return Phase(f"{a_task} rows a task", seconds, flops, stored=kept, needs=self._working)

    def assembly(self) -> Phase:
        """G in float64, [q, q]: the cheaper of n(C−1) pull-backs with n(C−1)q² flops, and of q products a task."""
        job, q = self.job, self.job.work.q
        rows = job.work.outputs * (job.work.vector + q**2)
        flops = job.tasks * (job.work.primal + min(rows, 2 * q * job.work.vector))
        return self._reduced("Gauss-Newton matrix", self._mine * self.engine.matrix(), flops)

    def hessian(self) -> Phase:
        """H in float64, [q, q]: q products a task."""
        job = self.job
        flops = job.tasks * (2 * job.work.primal + job.work.q * job.work.second)
        return self._reduced("Hessian matrix", self._mine * self.engine.hessians(job.work.q), flops)

    def products(self, K: int, name: str) -> Phase:
        """(C + diag δ)V: a pass over all tasks for K vectors, and a sum over processes."""
        job = self.job
        flops = job.tasks * (job.work.primal + 2 * K * job.work.vector)
        seconds = self._mine * self.engine.products(K)
        sent = self._summed(DOUBLE * K * job.work.q)
        needs = self._working + 2 * DOUBLE * K * job.work.q
        return self._phase(name, seconds, flops, needs=needs, traffic=sent)

    def ends(self) -> Phase:
        """The ends of the spectrum by block Lanczos."""
        return self.products(END_VECTORS, "").repeated("ends of the spectrum", ENDS)

    def tests(self) -> Phase:
        """Gradients of the test tasks, which every process gets."""
        job, mine = self.job, -(-self.job.tests // self.rates.processes)
        flops = job.tests * (job.work.primal + job.work.vector)
        size = job.tests * job.width * (job.precision + 2 * DOUBLE)
        sent = mine * job.row_bytes * (self.rates.processes - 1)
        return self._phase(
            "test gradients",
            mine * self.engine.gradient(),
            flops,
            holds=size,
            needs=self._working,
            traffic=sent,
        )

    # ---- linear algebra ---------------------------------------------------------------------------------------

    def normal(self, a_task: int) -> Phase:
        """RᵀR in float64, [w, w]: Nw² flops, summed over processes."""
        w, rows = self.job.width, self._mine * a_task
        seconds = rows * w**2 / self.rates.gram
        phase = self._reduced("matrix of the rows", seconds, self.job.tasks * a_task * w**2, w)
        return replace(phase, read=rows * self.job.row_bytes, moved=rows * self.job.row_bytes)

    def gram(self, N: int) -> Phase:
        """RRᵀ in float64, [N, N]: N²w flops; rows change hands by columns."""
        job, P = self.job, self.rates.processes
        flops, mine = N**2 * job.width, N / P * job.row_bytes
        sent = mine * (P - 1) / P + self._summed(DOUBLE * N**2)
        seconds = flops / P / self.rates.gram
        panels = 8192 * N * self.job.precision
        return self._phase(
            "Gram matrix",
            seconds,
            flops,
            moved=mine,
            read=mine,
            holds=DOUBLE * N**2,
            needs=panels,
            traffic=sent,
        )

    def eigh(self, n: int, stays: bool = False) -> Phase:
        """9n³ flops, on every process; n²·8 bytes three times, four where the matrix `stays` beside its vectors."""
        size = DOUBLE * n**2
        seconds = 9 * n**3 / self.rates.eigh
        return self._phase(
            "eigendecomposition", seconds, 9 * n**3, holds=size if stays else 0, needs=2 * size
        )

    def cholesky(self, n: int) -> Phase:
        """n³/3 flops, on every process, in place."""
        return self._phase("Cholesky factorisation", n**3 / 3 / self.rates.cholesky, n**3 / 3)

    def row_ends(self, N: int) -> Phase:
        """The ends of RᵀR by block Lanczos: 4Nw flops a vector and pass."""
        job, P = self.job, self.rates.processes
        flops = ENDS * 4 * END_VECTORS * N * job.width
        moved = 2 * ENDS * N / P * (job.row_bytes + 2 * DOUBLE * job.width)
        sent = ENDS * self._summed(DOUBLE * END_VECTORS * (job.width + N))
        seconds = flops / P / self.rates.product + moved / self.rates.copy
        read = 2 * ENDS * N / P * job.row_bytes
        return self._phase("ends of the spectrum", seconds, flops, moved=moved, read=read, traffic=sent)

    def dense_solves(self, K: int, n: int) -> Phase:
        """6n² flops a right-hand side, with its residual."""
        return self._algebra("solves", 6 * K * n**2, 3 * DOUBLE * n**2, 3 * DOUBLE * K * n)

    def basis_solves(self, K: int, rank: int) -> Phase:
        """6·rank·q flops a right-hand side, with its residual, by vectors of q numbers."""
        q = self.job.work.q
        return self._algebra("solves", 6 * K * rank * q, 3 * DOUBLE * rank * q, 3 * DOUBLE * K * q)

    def row_solves(self, K: int, N: int) -> Phase:
        """8Nw + 4N² flops a right-hand side, with its residual: rows are read four times, and made float64."""
        job, P = self.job, self.rates.processes
        mine = N / P * job.row_bytes
        across = 8 * K * N * job.width
        seconds = (across / P + 4 * K * N**2) / self.rates.product
        moved = 4 * mine * (1 + 2 * DOUBLE * job.width / job.row_bytes)
        sent = 4 * DOUBLE * K * (N / P * (P - 1) if P > 1 else 0) + 2 * self._summed(DOUBLE * K * job.width)
        return self._phase(
            "solves",
            seconds + moved / self.rates.copy,
            across + 4 * K * N**2,
            moved=moved,
            read=4 * mine,
            needs=5 * DOUBLE * K * job.width,
            traffic=sent,
        )

    def iteration(self, K: int, sketched: int) -> Phase:
        """Of conjugate gradients: a product with K vectors, 14K²q flops, and 16Nq a vector for a sketch of N rows."""
        job, P = self.job, self.rates.processes
        product = self.products(K, "")
        recurrences = 14 * K**2 * job.work.q
        whitening = 16 * K * sketched * job.width
        dual = 8 * K * sketched**2
        seconds = recurrences / (ORTHOGONAL * self.rates.product)
        seconds += (whitening / P + dual) / self.rates.product
        mine = sketched / P * job.row_bytes
        moved = 4 * mine * (1 + 2 * DOUBLE * job.width / job.row_bytes) if sketched else 0.0
        sent = self._summed(2 * DOUBLE * K * job.work.q) if sketched else 0.0
        own = self._phase("", seconds + moved / self.rates.copy, recurrences + whitening + dual, traffic=sent)
        return replace(
            product,
            seconds=product.seconds + own.seconds,
            flops=product.flops + own.flops,
            moved=moved,
            read=4 * mine,
            traffic=product.traffic + sent,
            needs=10 * DOUBLE * K * job.work.q + self._working,
        )

    def orthogonal(self, name: str, flops: float, holds: float, needs: float) -> Phase:
        """Bases of vectors of q numbers, on every process."""
        seconds = flops / (ORTHOGONAL * self.rates.product)
        return self._phase(name, seconds, flops, holds=holds, needs=needs)

    def scores(self, K: int) -> Phase:
        """−x_k·g_t of all pairs: 2KMw flops in float64; gathered on every process."""
        job, m, P = self.job, self._mine, self.rates.processes
        kept = m * job.row_bytes
        moved = kept + 2 * DOUBLE * m * job.width
        seconds = 2 * K * m * job.width / self.rates.product + moved / self.rates.copy
        sent = DOUBLE * K * m * (P - 1)
        matrix = 2 * DOUBLE * K * job.tasks
        flops = 2 * K * job.tasks * job.width
        return self._phase("scores", seconds, flops, moved=moved, read=kept, needs=matrix, traffic=sent)

    # ---- inside -----------------------------------------------------------------------------------------------

    @property
    def _mine(self) -> int:
        """Tasks of one process."""
        return -(-self.job.tasks // self.rates.processes)

    @property
    def _working(self) -> int:
        """What the engine works in: at most half a gibibyte a thread on a processor, and what there is on a device."""
        return self.rates.working

    def _summed(self, size: float) -> float:
        """Bytes that a process sends for a sum of so many over all."""
        P = self.rates.processes
        return 2 * size * (P - 1) / P

    def _reduced(self, name: str, seconds: float, flops: float, width: int | None = None) -> Phase:
        """A matrix that all processes add to; assembled beside the sum of a block of tasks."""
        size = DOUBLE * (width or self.job.work.q) ** 2
        return self._phase(
            name, seconds, flops, holds=size, needs=3 * size + self._working, traffic=self._summed(size)
        )

    def _algebra(self, name: str, flops: float, moved: float, needs: float) -> Phase:
        seconds = flops / self.rates.product + moved / self.rates.copy
        return self._phase(name, seconds, flops, moved=moved, needs=needs)

    def _phase(self, name: str, seconds: float, flops: float, **sizes: float) -> Phase:
        """With the time its traffic takes."""
        return Phase(name, seconds + sizes.get("traffic", 0.0) / self.rates.link, flops, **sizes)
