"""Which implementation of an op runs, and why; and the checks of shapes and dtypes that come before."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _len_torch_dispatch_stack

from tlxml_fast.errors import BackendError, FallbackWarning, TlxError
from tlxml_fast.ops import _native, _triton
from tlxml_fast.profiling import span

BACKENDS = ("auto", "native", "triton", "reference")


class Choice(NamedTuple):
    """The implementation that runs ("native", "triton" or "reference") and the reason in words."""

    backend: str
    why: str


def traced(*tensors: Tensor) -> str | None:
    """Why these tensors must stay with operations that torch can see, or None when plain memory is enough."""
    if torch.compiler.is_compiling():
        return "torch.compile is tracing"
    if any(is_functorch_wrapped_tensor(x) for x in tensors):
        return "a tensor is inside a torch.func transform"
    if any(type(x) not in (Tensor, torch.nn.Parameter) for x in tensors) or _len_torch_dispatch_stack():
        return "a tensor is fake, traced or of a Tensor subclass"
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return "autograd records this call"
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        return "a tensor carries a forward-mode tangent"
    return None


def backend_of(device: torch.device) -> str | None:
    """Which compiled backend works on tensors of a device: "native" on the CPU, "triton" on CUDA, None elsewhere.

    Where Triton's interpreter stands in for a device, "triton" on the CPU.
    """
    if device.type == "cpu":
        return "triton" if _triton.INTERPRETED else "native"
    return "triton" if device.type == "cuda" else None


def why_not(backend: str) -> str | None:
    """Why a compiled backend cannot run in this process; None if it can."""
    return _native.why_not_native() if backend == "native" else _triton.why_not_triton()


def choose(op: str, backend: str, *tensors: Tensor) -> Choice:
    """Choose the implementation of `op`; a BackendError if the compiled `backend` named cannot run on these tensors."""
    if backend not in BACKENDS:
        raise BackendError(f'{op} has no backend "{backend}"; choose one of {", ".join(BACKENDS)}.')
    if backend == "reference":
        return Choice("reference", "it was asked for")
    device, missing = tensors[0].device, False
    found = backend_of(device)
    if not (why := traced(*tensors)):
        if found is None or (backend != "auto" and backend != found):
            why = f"on {device.type} tensors {found or 'the reference'} runs"
        elif missing := why_not(found) is not None:
            why = why_not(found)
        elif missing := _kernel(op, tensors[0]) is None:
            why = f"this build of the {found} kernels has none of {op}"
    if why is None:
        return Choice(found, f"{device.type} tensors, and the {found} kernels are there")
    if backend != "auto":
        raise BackendError(f"{op} cannot run on backend {backend} here: {why}.")
    if missing:
        warnings.warn(f"{op} runs on the slower reference: {why}.", FallbackWarning, stacklevel=3)
    return Choice("reference", why)


def _kernel(op: str, x: Tensor) -> Callable[..., None] | None:
    """The compiled kernel of `op` for tensors like x."""
    found = backend_of(x.device)
    if found == "native":
        return _native.kernel(op, x.dtype)
    return None if found is None else _triton.kernel(op)


def check(op: str, **named: tuple[Tensor, str]) -> dict[str, int]:
    """Match tensors to shapes spelled like "T K n C" and return the sizes.

    The first tensor rules: all must share its device, and all but labels (named `…_y`, int64) its
    dtype, float32 or float64. Every size is at least 1, and a letter means one size wherever it stands.

    Raises:
        TlxError: naming the op, the tensor and what was expected of it.
    """
    sizes: dict[str, int] = {}
    lead = next(iter(named.values()))[0]
    for name, (x, letters) in named.items():
        expected = letters.split()
        if x.dim() != len(expected) or 0 in x.shape:
            raise TlxError(
                f"{op}: {name} has shape {tuple(x.shape)}, expected [{', '.join(expected)}], no size zero."
            )
        for letter, size in zip(expected, x.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise TlxError(
                    f"{op}: {name} has {letter} = {size}, but {letter} = {sizes[letter]} elsewhere."
                )
        if x.device != lead.device:
            raise TlxError(f"{op}: {name} is on {x.device}, the other tensors on {lead.device}.")
        if name.endswith("_y"):
            if x.dtype != torch.int64:
                raise TlxError(f"{op}: {name} is {x.dtype}, expected torch.int64.")
        elif x.dtype != lead.dtype or x.dtype not in (torch.float32, torch.float64):
            raise TlxError(f"{op}: {name} is {x.dtype}; all must be torch.float32, or all torch.float64.")
    return sizes


def check_out(op: str, out: Tensor, like: Tensor, *inputs: Tensor) -> None:
    """Refuse an output buffer of another shape, dtype or device than `like`, or in the memory of an input."""
    if out.shape != like.shape or out.dtype != like.dtype or out.device != like.device:
        raise TlxError(
            f"{op}: out is {out.dtype} {tuple(out.shape)} on {out.device}, "
            f"expected {like.dtype} {tuple(like.shape)} on {like.device}."
        )
    if not traced(out, *inputs) and any(share(out, x) for x in inputs):
        raise TlxError(f"{op}: out shares memory with an input.")


def share(a: Tensor, b: Tensor) -> bool:
    """Whether two plain tensors lie in one storage."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def dense(x: Tensor) -> Tensor:
    """`x` as a kernel reads it: contiguous, and its numbers in memory, not their lazy negatives."""
    return x.resolve_neg().contiguous()


def buffer(out: Tensor | None, like: Tensor) -> Tensor:
    """A contiguous tensor for a kernel to write: `out` itself where it can be."""
    if out is not None and out.is_contiguous() and not out.is_neg():
        return out
    return torch.empty(like.shape, dtype=like.dtype, device=like.device)


def deliver(result: Tensor, out: Tensor | None) -> Tensor:
    """`result`, copied into `out` if there is one and it is another tensor."""
    return result if out is None or out is result else out.copy_(result)


def device_of(x: Tensor) -> AbstractContextManager:
    """Launches go to the current device: make it x's."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


# ---- ops that only the engine calls: it gives them plain, contiguous tensors of one dtype --------------


def has_kernel(op: str, x: Tensor, *others: Tensor | None) -> bool:
    """Whether `op` has a compiled kernel for these tensors, all that it reads; the engine has checked the rest."""
    return _kernel(op, x) is not None and not traced(x, *(other for other in others if other is not None))


def launch(op: str, *arguments: Any, flops: int = 0, strided: tuple[Tensor | None, ...] = ()) -> Any:
    """Run a kernel: tensors contiguous, by address where it is native, None as a null pointer, numbers as they are.

    On a device those that are `strided` need not be contiguous, and what the launcher gives back is returned.
    """
    tensors = [x for x in arguments if isinstance(x, Tensor)]
    native = backend_of(tensors[0].device) == "native"
    for x in tensors:
        if not x.is_contiguous() and (native or not any(x is s for s in strided)):
            raise TlxError(f"{op}: a tensor of shape {tuple(x.shape)} is not contiguous.")
    lead = tensors[0]
    with span(op, flops, sum(x.nbytes for x in tensors), dtype=lead.dtype), device_of(lead):
        if native:
            passed = [x.data_ptr() if isinstance(x, Tensor) else 0 if x is None else x for x in arguments]
            return _native.kernel(op, lead.dtype)(*passed)
        return _triton.kernel(op)(*arguments)
