"""Inverses of a curvature: one class a file."""

from .base import FittedInverse, Inverse, Relative
from .dense import Dense, FittedDense

__all__ = ["Dense", "FittedDense", "FittedInverse", "Inverse", "Relative"]
