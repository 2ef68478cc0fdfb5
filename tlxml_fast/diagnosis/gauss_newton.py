"""What does Gauss-Newton drop?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import memory
from ..curvature import GaussNewton, Hessian
from ..solvers.products import gaussian, generator
from .check import Check, at_most, figure
from .subject import Subject

# Vectors of each kind, and how many of all of them are held at once.
PROBES, HELD = 4, 12
DROPPED = (0.1, 1.0)
NAME = "Gauss-Newton"


def gauss_newton(subject: Subject) -> Check:
    """Exact Hessian-vector products against Gauss-Newton's, both without weight decay, over a sample of the tasks.

    random     ‖(H − G)v‖/‖Hv‖ and the cosine of Hv and Gv for Gaussian v: the matrices as a whole
    gradients  the same for test gradients v = g_i
    systems    ‖(H − G)x_i‖/‖g_i‖ for the solutions x_i = H⁺g_i: the relative residual of x_i in the exact equation,
               which is where the approximation enters a score

    What is dropped has random signs from task to task, and over s of M tasks its mean is longer than over all:
    E‖d_s‖² = ‖d_M‖² + (1/s − 1/M)σ². The sample is split into halves a and b, and (1 − s/M)‖d_a − d_b‖²/4, which has
    that expectation, is taken off ‖d_s‖².

    Graded by the median over systems (over gradients where these are compressed): good to 0.1; bad above 1, where x_i
    solves the exact equation no better than x = 0.
    """
    if isinstance(subject.influence.curvature, Hessian):
        return Check(NAME, "good", "Nothing is dropped: the curvature is the exact Hessian.")
    memory.require(8 * HELD * PROBES * subject.q, f"products of {PROBES} vectors of {subject.q:,} numbers")
    gradients = subject.raw_test_gradients(PROBES)
    random = gaussian(PROBES, subject.q, generator(0), gradients.device)
    kinds = {"random": random, "gradients": gradients}
    compressed = subject.influence.compression is not None
    if not compressed:
        kinds["systems"] = subject.solutions[:PROBES]
    measured = _measure(subject, torch.cat(list(kinds.values())))
    found: dict[str, Any] = {}
    start = 0
    for kind, vectors in kinds.items():
        of = slice(start, start + len(vectors))
        start = of.stop
        if kind == "systems":
            left = measured.dropped[of] / gradients.norm(dim=1)
            found |= {"systems.residual": _median(left), "systems.worst_residual": float(left.max())}
        else:
            error = measured.dropped[of] / measured.exact[of].norm(dim=1)
            found[f"{kind}.error"] = _median(error)
            found[f"{kind}.cosine"] = _median(measured.cosine[of])
    graded = found["gradients.error" if compressed else "systems.residual"]
    where = (
        f"‖(H − G)g‖ is {figure(graded)} of ‖Hg‖ on the median test gradient"
        if compressed
        else f"In the exact equation the solutions have a relative residual of {figure(graded)} in the median"
    )
    return Check(
        NAME,
        at_most(graded, *DROPPED),
        f"{where}; on random directions ‖(H − G)v‖ is {figure(found['random.error'])} of ‖Hv‖, with cosine "
        f"{found['random.cosine']:.3f}. Estimated over {len(subject.sample):,} tasks.",
        {**found, "tasks": len(subject.sample)},
        "compare with the scores of the exact Hessian where it can be had, or raise the damping",
    )


def _median(x: Tensor) -> float:
    """The mean of the two in the middle where their number is even; torch gives the lower."""
    return float(np.median(x.cpu()))


@dataclass(frozen=True)
class _Measured:
    """Of K vectors: Hv over the sample, [K, q]; ‖(H − G)v‖ as over all tasks, and the cosine of Hv and Gv, [K]."""

    exact: Tensor
    dropped: Tensor
    cosine: Tensor


def _measure(subject: Subject, V: Tensor) -> _Measured:
    sample, M = subject.sample, len(subject.train)
    halves = [part for part in (sample[::2], sample[1::2]) if part]
    parts = [_products(subject, half, V) for half in halves]
    shares = [len(half) / len(sample) for half in halves]
    h, g = (sum(share * part[k] for share, part in zip(shares, parts, strict=True)) for k in (0, 1))
    squared = (h - g).square().sum(1)
    if len(parts) == 2:
        (h_a, g_a), (h_b, g_b) = parts
        noise = ((h_a - g_a) - (h_b - g_b)).square().sum(1) / 4
        squared = (squared - (1 - len(sample) / M) * noise).clamp_min(0)
    return _Measured(h, squared.sqrt(), torch.nn.functional.cosine_similarity(h, g, dim=1))


def _products(subject: Subject, chosen: Sequence[int], V: Tensor) -> tuple[Tensor, Tensor]:
    """HV and GV over some tasks, without weight decay."""
    with subject.exactly(chosen) as exact:
        decay = exact.decay * V
        return exact.product(V) - decay, exact.with_curvature(GaussNewton()).product(V) - decay
