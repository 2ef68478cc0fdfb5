"""From a learner and its tasks to derivatives: one interface, several backends."""

from __future__ import annotations

import torch

from ..errors import BackendError
from ..learners import Learner
from ..ops import why_not_native
from ..task import Task, TaskSet
from .base import BackendReport, FlatParameters, Linearization
from .native import NativeLinearization
from .reference import ReferenceLinearization

BACKENDS = ("auto", "native", "reference")

__all__ = [
    "BACKENDS",
    "BackendReport",
    "FlatParameters",
    "Linearization",
    "NativeLinearization",
    "ReferenceLinearization",
    "choose_backend",
    "linearize",
]


def choose_backend(backend: str, device: torch.device) -> BackendReport:
    """Which backend runs on a device, and why. Raises BackendError if the one named cannot."""
    if backend not in BACKENDS:
        raise BackendError(f"backend is one of {', '.join(BACKENDS)}, not {backend!r}")
    if backend == "reference":
        return BackendReport("reference", "asked for")
    obstacle = (
        why_not_native() if device.type == "cpu" else f"the compiled kernels run on the CPU, not on {device}"
    )
    if backend == "native":
        if obstacle:
            raise BackendError(f"backend='native' cannot run: {obstacle}")
        return BackendReport("native", "asked for")
    if obstacle:
        return BackendReport("reference", obstacle)
    return BackendReport(
        "native",
        "the compiled core is built: heads of Gauss-Newton products run there, the rest by torch.func",
    )


def linearize(
    learner: Learner,
    tasks: TaskSet | list[Task],
    backend: str = "auto",
    dtype: torch.dtype | None = None,
) -> Linearization:
    """The derivatives of the query logits and losses of T tasks of one shape, at the learner's ω.

    backend   "reference" (torch.func), "native" (compiled heads), or "auto"; `.report` says which and why
    dtype     torch.float32 or torch.float64; the parameters' own unless given

    Raises TaskError if the tasks differ in shape, LearnerError if a task does not fit the model or the
    learner's ω is no stationary point, BackendError if the backend named cannot run.
    """
    device = next(iter(learner.parameters().values())).device
    report = choose_backend(backend, device)
    kind = NativeLinearization if report.backend == "native" else ReferenceLinearization
    return kind(learner, TaskSet(tasks), dtype, report)
