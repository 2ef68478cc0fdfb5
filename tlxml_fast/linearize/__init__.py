"""From a learner and its tasks to derivatives: one interface, several backends."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from ..errors import BackendError, FallbackWarning, LearnerError
from ..learners import FunctionLearner, Learner
from ..learners.function import QueryLogits
from ..ops._dispatch import backend_of, why_not
from ..task import Task, TaskSet
from .base import BackendReport, FlatParameters, Linearization
from .compiled import CompiledLinearization, MetaGradient
from .device import DeviceLinearization
from .plan import Unsupported
from .reference import ReferenceLinearization

BACKENDS = ("auto", "native", "triton", "reference")

__all__ = [
    "BACKENDS",
    "BackendReport",
    "CompiledLinearization",
    "DeviceLinearization",
    "FlatParameters",
    "Linearization",
    "MetaGradient",
    "ReferenceLinearization",
    "Unsupported",
    "choose_backend",
    "linearize",
    "linearize_fn",
]


def choose_backend(backend: str, device: torch.device) -> BackendReport:
    """Which backend runs on a device, and why. Raises BackendError if the one named cannot."""
    if backend not in BACKENDS:
        raise BackendError(f"backend is one of {', '.join(BACKENDS)}, not {backend!r}")
    if backend == "reference":
        return BackendReport("reference", "asked for")
    found = backend_of(device)
    if found is None:
        obstacle = f"there are no compiled kernels for {device.type} devices"
    elif backend not in ("auto", found):
        obstacle = f"on the {device.type} device that the parameters are on, {found} runs"
    else:
        obstacle = why_not(found)
    if backend != "auto":
        if obstacle:
            raise BackendError(f"backend={backend!r} cannot run: {obstacle}")
        return BackendReport(backend, "asked for")
    if obstacle:
        return BackendReport("reference", obstacle)
    return BackendReport(found, f"the {found} kernels are there")


def linearize(
    learner: Learner,
    tasks: TaskSet | list[Task],
    backend: str = "auto",
    dtype: torch.dtype | None = None,
    strict: bool = False,
    precision: str = "fp32",
    graphs: bool = False,
    prefetch: bool = False,
) -> Linearization:
    """The derivatives of the query logits and losses of T tasks of one shape, at the learner's ω.

    backend    "reference" (torch.func), "native" (the compiled engine on the CPU), "triton" (the same on CUDA devices),
               or "auto"; `.report` says which and why
    dtype      torch.float32 or torch.float64; the parameters' own unless given
    strict     an error instead of the reference where the engine has no plan for the module
    precision  what a device makes products of float32 of: "fp32", or on tensor cores "tf32x3", "tf32" or "bf16"
    graphs     record Gauss-Newton and Hessian products of tasks that fit a CUDA device at once as CUDA graphs, and
               replay them: faster where tasks are small and products many, for memory that stays taken
    prefetch   keep tasks in pinned memory of the host, and copy each block to a CUDA device while the one before it is
               worked on: for more tasks than the device holds

    Raises TaskError if the tasks differ in shape, LearnerError if a task does not fit the model or the
    learner's ω is no stationary point, BackendError if the backend named cannot run. Warns with FallbackWarning
    where a compiled backend is asked for and the reference runs, and where a device's memory runs out.
    """
    if not isinstance(learner, Learner):
        raise LearnerError(
            f"a learner is linearized, not a {type(learner).__name__}; tlx.parse_learner makes one of a module"
        )
    device = next(iter(learner.parameters().values())).device
    report = choose_backend(backend, device)
    if precision != "fp32" and report.backend != "triton":
        raise BackendError(f"precision={precision!r} is for CUDA devices; the {report.backend} backend runs")
    for name, asked in (("graphs", graphs), ("prefetch", prefetch)):
        if asked and (device.type != "cuda" or report.backend != "triton"):
            there = (
                f"the parameters are on {device}"
                if device.type != "cuda"
                else f"the {report.backend} backend runs"
            )
            raise BackendError(f"{name}=True is for CUDA devices; {there}")
    if report.backend == "reference":
        if strict and backend != "reference":
            raise BackendError(f"strict=True, and the engine cannot run: {report.reason}")
        return ReferenceLinearization(learner, TaskSet(tasks), dtype, report)
    try:
        if report.backend == "triton":
            return DeviceLinearization(learner, TaskSet(tasks), dtype, report, precision, graphs, prefetch)
        return CompiledLinearization(learner, TaskSet(tasks), dtype, report)
    except Unsupported as error:
        reason = f"the engine has no plan for this {type(learner.module).__name__}: {error}"
        unused = [f"{name}={value!r}" for name, value, plain in (
            ("precision", precision, "fp32"), ("graphs", graphs, False), ("prefetch", prefetch, False)
        ) if value != plain]  # fmt: skip
        if unused:
            reason += f"; {' and '.join(unused)} {'are' if unused[1:] else 'is'} not used"
    if strict:
        raise BackendError(reason)
    if backend != "auto":
        warnings.warn(f"backend={backend!r} runs on the reference: {reason}", FallbackWarning, stacklevel=2)
    return ReferenceLinearization(learner, TaskSet(tasks), dtype, BackendReport("reference", reason))


def linearize_fn(
    query_logits: QueryLogits,
    params: Any,
    tasks: TaskSet | list[Task],
    loss: str = "cross_entropy",
    dtype: torch.dtype | None = None,
) -> Linearization:
    """`linearize` of a plain function logits(params, support_x, support_y, query_x), any adaptation inside.

    params   a tensor, or dicts, lists and tuples of them: flat vectors of q concatenate its leaves in order
    loss     as of `MAML`

    It runs on the reference (torch.func), and `.report` says so. For influence give `FunctionLearner(query_logits,
    params)` to `TaskInfluence`. Raises what `linearize` and `FunctionLearner` raise.
    """
    return linearize(FunctionLearner(query_logits, params, loss), tasks, dtype=dtype)
