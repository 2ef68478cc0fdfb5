"""What a method has to hold beside the learner and the tasks, by the formulas that its classes state."""

from __future__ import annotations

from ...solvers import Dense, Inverse, Lanczos, Nystrom, Woodbury
from ...solvers.lanczos import LARGEST_BLOCK

SINGLE, DOUBLE = 4, 8


def held(inverse: Inverse | None, tasks: int, rows: int, numbers: int, compressed: bool) -> int:
    """Bytes of the training tasks' gradients, of the rows where they are kept, and of what is factored.

    inverse     None for no curvature
    rows        of the curvature, all tasks' together
    numbers     in a gradient or a row as they are kept
    compressed  whether they were projected: the matrix is then made of rows that are kept
    """
    gradients = SINGLE * tasks * numbers
    kept = SINGLE * rows * numbers
    if inverse is None:
        return gradients
    if isinstance(inverse, Dense):
        return gradients + (kept if compressed else 0) + 4 * DOUBLE * numbers**2
    if isinstance(inverse, Woodbury):
        return gradients + kept + 3 * DOUBLE * rows**2
    if isinstance(inverse, Nystrom):
        return gradients + 4 * DOUBLE * inverse.rank * numbers
    if isinstance(inverse, Lanczos):
        basis = min(numbers, 2 * inverse.rank + 4 * min(LARGEST_BLOCK, inverse.rank))
        return gradients + DOUBLE * (basis + inverse.rank) * numbers
    raise TypeError(f"what {inverse.name} holds is not known")
