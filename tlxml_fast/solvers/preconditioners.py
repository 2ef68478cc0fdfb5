"""Preconditioners for conjugate gradients: M = EEᵀ close to C + D, whose factor E is cheap to invert."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..curvature import Curvature
from ..kept import Tensors
from .base import check_count, check_rank
from .dual import Spectral
from .low_rank import DiagonalPlusRows, Factor, RowsLike, require_positive, uniform, weighted_gram
from .memory import require_memory
from .nystrom import kept_factor
from .products import Products, generator


class Split(Protocol):
    """E, with which A is solved as E⁻¹AE⁻ᵀ; each method takes and gives rows, [K, q]."""

    def whiten(self, B: Tensor) -> Tensor:
        """E⁻¹ b_k."""

    def unwhiten(self, V: Tensor) -> Tensor:
        """E⁻ᵀ v_k."""

    def restore(self, V: Tensor) -> Tensor:
        """E v_k."""


class FittedPreconditioner(ABC):
    """A preconditioner of C + D for any positive diagonal D."""

    @abstractmethod
    def split(self, D: Tensor) -> Split:
        """E with EEᵀ ≈ C + diag D."""


class Preconditioner(ABC):
    """A way to make one."""

    name: str

    @abstractmethod
    def fit(self, products: Products) -> FittedPreconditioner:
        """What does not depend on the damping. `products` counts the passes it takes."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""


class NoPreconditioner(Preconditioner, FittedPreconditioner):
    """E = I."""

    name = "none"

    def fit(self, products: Products) -> NoPreconditioner:
        """Nothing to do."""
        return self

    def split(self, D: Tensor) -> NoPreconditioner:
        """Itself."""
        return self

    def whiten(self, B: Tensor) -> Tensor:
        """b_k."""
        return B

    unwhiten = restore = whiten

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        return {"name": self.name}


@dataclass(frozen=True)
class Diagonal(Preconditioner):
    """M = diag C + D.

    diag C is exact, the sum of squares of its rows, where the curvature is known by them (`Fisher`). Else it is
    estimated without bias as the mean of z∘Cz over `probes` random sign vectors z, in passes of 256, and what comes
    out negative is set to 0 (Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix, 2007).
    """

    probes: int = 64
    seed: int = 0
    name = "diagonal"

    def __post_init__(self) -> None:
        check_count("probes", self.probes)

    def fit(self, products: Products) -> FittedDiagonal:
        """diag C, by rows or by probes."""
        operator = products.operator
        if operator.by_rows:
            return FittedDiagonal(operator.rows().squares())

        def compute() -> Tensors:
            signs = torch.randint(0, 2, (self.probes, operator.q), generator=generator(self.seed))
            signs = (2 * signs - 1).to(operator.device, torch.float64)
            return {"diagonal": (signs * products.without_decay(signs)).mean(0).clamp_min(0)}

        return FittedDiagonal(**products.once("diagonal", self.describe(), compute))

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        return {"name": self.name, "probes": self.probes, "seed": self.seed}


@dataclass(frozen=True)
class FittedDiagonal(FittedPreconditioner):
    """diag C, [q]."""

    diagonal: Tensor

    def split(self, D: Tensor) -> DiagonalSplit:
        """E = (diag C + D)^{1/2}."""
        require_positive(self.diagonal + D)
        return DiagonalSplit((self.diagonal + D).sqrt())


@dataclass(frozen=True)
class DiagonalSplit:
    """E = diag(root)."""

    root: Tensor

    def whiten(self, B: Tensor) -> Tensor:
        """E⁻¹ b_k."""
        return B / self.root

    unwhiten = whiten

    def restore(self, V: Tensor) -> Tensor:
        """E v_k."""
        return V * self.root


@dataclass(frozen=True)
class NystromPreconditioner(Preconditioner):
    """M = Uᵀ(Λ − λ_r)U + λ_r + D from a Nyström sketch UᵀΛU of C, whose smallest eigenvalue is λ_r.

    To a factor λ_r + D that of Frangella, Tropp and Udell, Randomized Nyström preconditioning, SIMAX 2023. The
    condition number falls to about 1 + λ_r/D. Takes `rank` products with C; 8·rank·q flops a vector and iteration;
    rank·q·8 bytes, four times that while it is made.
    """

    rank: int = 64
    seed: int = 0
    name = "nystrom"

    def __post_init__(self) -> None:
        check_rank(self.rank)

    def fit(self, products: Products) -> FittedLowRank:
        """Sketch C."""
        operator = products.operator
        rank = min(self.rank, operator.q)
        require_memory(32 * rank * operator.q, f"a Nyström preconditioner of rank {rank}", operator.device)
        values, U = kept_factor(products, rank, self.seed)
        floor = float(values[-1])
        return FittedLowRank(Factor((values - floor).sqrt()[:, None] * U), floor)

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        return {"name": self.name, "rank": self.rank, "seed": self.seed}


@dataclass(frozen=True)
class Sketch(Preconditioner):
    """M = RᵀR + D with R the rows of another curvature at the same tasks: `Sketch(Fisher(8))`.

    For exact Gauss-Newton scores at the cost of a few iterations: the sketch takes one pull-back a row, once, and an
    eigendecomposition of its N × N Gram matrix, 9N³ flops and 24N² bytes; 8Nq flops a vector and iteration.
    """

    curvature: Curvature
    name = "sketch"

    def fit(self, products: Products) -> FittedLowRank:
        """The other curvature's rows."""
        rows = products.operator.with_curvature(self.curvature).rows()
        require_memory(24 * rows.N**2, f"a preconditioner of {rows.N:,} rows", products.operator.device)
        return FittedLowRank(rows, 0.0)

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        return {"name": self.name, **self.curvature.describe()}


class FittedLowRank(FittedPreconditioner):
    """RᵀR + floor, for which one Gram matrix serves every uniform D."""

    def __init__(self, rows: RowsLike, floor: float):
        self.rows, self.floor = rows, floor
        self._gram: Spectral | None = None

    def split(self, D: Tensor) -> DiagonalPlusRows:
        """E = D'^{1/2}(I + D'^{-1/2}RᵀRD'^{-1/2})^{1/2} with D' = D + floor."""
        D = D + self.floor
        require_positive(D)
        if not uniform(D):
            return DiagonalPlusRows(self.rows, D, Spectral.of(weighted_gram(self.rows, D)))
        if self._gram is None:
            self._gram = Spectral.of(self.rows.gram())
        return DiagonalPlusRows(self.rows, D, self._gram.scaled(1 / float(D[0])))


NAMED = {"diagonal": Diagonal, "nystrom": NystromPreconditioner}
