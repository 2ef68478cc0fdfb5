"""From a learner and its tasks to derivatives: one interface, several backends."""

from __future__ import annotations

import warnings

import torch

from ..errors import BackendError, FallbackWarning
from ..learners import Learner
from ..ops import why_not_native
from ..task import Task, TaskSet
from .base import BackendReport, FlatParameters, Linearization
from .native import MetaGradient, NativeLinearization
from .plan import Unsupported
from .reference import ReferenceLinearization

BACKENDS = ("auto", "native", "reference")

__all__ = [
    "BACKENDS",
    "BackendReport",
    "FlatParameters",
    "Linearization",
    "MetaGradient",
    "NativeLinearization",
    "ReferenceLinearization",
    "Unsupported",
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
    return BackendReport("native", "the compiled core is built")


def linearize(
    learner: Learner,
    tasks: TaskSet | list[Task],
    backend: str = "auto",
    dtype: torch.dtype | None = None,
    strict: bool = False,
) -> Linearization:
    """The derivatives of the query logits and losses of T tasks of one shape, at the learner's ω.

    backend   "reference" (torch.func), "native" (the compiled engine), or "auto"; `.report` says which and why
    dtype     torch.float32 or torch.float64; the parameters' own unless given
    strict    an error instead of the reference where the engine has no plan for the module

    Raises TaskError if the tasks differ in shape, LearnerError if a task does not fit the model or the
    learner's ω is no stationary point, BackendError if the backend named cannot run. Warns with FallbackWarning
    where "native" is asked for and the reference runs.
    """
    device = next(iter(learner.parameters().values())).device
    report = choose_backend(backend, device)
    if report.backend == "reference":
        if strict and backend != "reference":
            raise BackendError(f"strict=True, and the engine cannot run: {report.reason}")
        return ReferenceLinearization(learner, TaskSet(tasks), dtype, report)
    try:
        return NativeLinearization(learner, TaskSet(tasks), dtype, report)
    except Unsupported as error:
        reason = f"the engine has no plan for this {type(learner.module).__name__}: {error}"
    if strict:
        raise BackendError(reason)
    if backend == "native":
        warnings.warn(f"backend='native' runs on the reference: {reason}", FallbackWarning, stacklevel=2)
    return ReferenceLinearization(learner, TaskSet(tasks), dtype, BackendReport("reference", reason))
