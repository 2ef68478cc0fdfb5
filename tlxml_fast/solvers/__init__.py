"""Inverses of a curvature: one class a file."""

from .base import FittedInverse, Inverse, Relative
from .certificate import Certificate, Solution
from .cg import CG, FittedCG
from .dense import Dense, FittedDense
from .lanczos import FittedLanczos, Lanczos
from .memory import require_memory
from .nystrom import FittedNystrom, Nystrom
from .preconditioners import Diagonal, NystromPreconditioner, Preconditioner, Sketch
from .spectrum import Extremes, extreme_eigenvalues
from .woodbury import FittedWoodbury, Woodbury

__all__ = [
    "CG",
    "Certificate",
    "Dense",
    "Diagonal",
    "Extremes",
    "FittedCG",
    "FittedDense",
    "FittedInverse",
    "FittedLanczos",
    "FittedNystrom",
    "FittedWoodbury",
    "Inverse",
    "Lanczos",
    "Nystrom",
    "NystromPreconditioner",
    "Preconditioner",
    "Relative",
    "Sketch",
    "Solution",
    "Woodbury",
    "extreme_eigenvalues",
    "require_memory",
]
