"""How many iterations block conjugate gradients are expected to take: a guess, where everything else is counted.

The spectrum is not known before it is computed. It is taken to fall as 1/i, as those of trained networks roughly do.
"""

from __future__ import annotations

import math

# Of the bound √κ/2·ln(2/tol), what a single right-hand side takes; and how many directions' worth of iterations it
# takes to be rid of one leading direction. Both observed on spectra of a ProtoNet and a MAML, at κ = 10² … 10⁴.
OF_BOUND, A_DIRECTION = 0.55, 2.0


def iterations(condition: float, tol: float, K: int, rank: int) -> int:
    """Of K right-hand sides at once, at a condition number κ and with `rank` directions that are curved.

    One takes c√κ, with c = 0.55·ln(2/tol)/2. K of them span Kj directions after j iterations: once m leading
    directions are dealt with, κ has fallen to κ/m, so that 2m/K + 2c√(κ/m) is least at m = (cK√κ/2)^{2/3}; and all are
    after rank/K, or rather 1.2 times as many in floating point.
    """
    c = OF_BOUND * math.log(2 / tol) / 2
    alone = c * math.sqrt(condition)
    m = max(1.0, (c * K * math.sqrt(condition) / 2) ** (2 / 3))
    together = A_DIRECTION * (m / K + c * math.sqrt(condition / m))
    return max(1, math.ceil(min(alone, together, 1.2 * rank / K + 2)))


def sketched_condition(condition: float, rank: int, rows: int) -> float:
    """κ after preconditioning by a sketch of N rows: (1 + √γ)⁴ + 0.15γ^{3/2}κ, γ = d/N, of an effective dimension d.

    d = 0.7κ·ln(1 + rank/κ) for a spectrum that falls as 1/i. With fewer rows than a third of d a sketch makes
    matters worse than none; the constants are fitted to what was seen.
    """
    ratio = 0.7 * condition * math.log1p(rank / condition) / rows
    return (1 + math.sqrt(ratio)) ** 4 + 0.15 * ratio**1.5 * condition
