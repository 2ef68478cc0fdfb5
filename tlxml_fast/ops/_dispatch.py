"""Which implementation of an op runs, and why; and the checks of shapes and dtypes that come before."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _len_torch_dispatch_stack

from tlxml_fast.errors import BackendError, FallbackWarning, TlxError
from tlxml_fast.ops import _native
from tlxml_fast.profiling import span

BACKENDS = ("auto", "native", "reference")


class Choice(NamedTuple):
    """The implementation that runs ("native" or "reference") and the reason in words."""

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


def choose(op: str, backend: str, *tensors: Tensor) -> Choice:
    """Choose the implementation of `op`; a BackendError if `backend="native"` cannot run on these tensors."""
    if backend not in BACKENDS:
        raise BackendError(f'{op} has no backend "{backend}"; choose one of {", ".join(BACKENDS)}.')
    if backend == "reference":
        return Choice("reference", "it was asked for")
    missing = False
    if not (why := traced(*tensors)):
        if (device := tensors[0].device.type) != "cpu":
            why = f"there is no kernel for {device} tensors yet"
        elif missing := not _native.native_available():
            why = _native.why_not_native()
        elif missing := _native.kernel(op, tensors[0].dtype) is None:
            why = f"the compiled core is older than this source and has no {op}; rebuild it"
    if why is None:
        return Choice("native", "CPU tensors and the compiled core is loaded")
    if backend == "native":
        raise BackendError(f"{op} cannot run natively here: {why}.")
    if missing:
        warnings.warn(f"{op} runs on the slower reference: {why}.", FallbackWarning, stacklevel=3)
    return Choice("reference", why)


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


# ---- ops that only the engine calls: it gives them plain, contiguous tensors of one dtype --------------


def on_native(op: str, x: Tensor) -> bool:
    """Whether `op` has a kernel for this tensor; the engine has checked the rest."""
    return x.device.type == "cpu" and _native.kernel(op, x.dtype) is not None and not traced(x)


def launch(op: str, first: Tensor, *arguments: Tensor | float | None) -> None:
    """Run a kernel: tensors by address, None as a null pointer, numbers as they are."""
    held = [first, *arguments]
    for x in held:
        if isinstance(x, Tensor) and not x.is_contiguous():
            raise TlxError(f"{op}: a tensor of shape {tuple(x.shape)} is not contiguous.")
    passed = [x.data_ptr() if isinstance(x, Tensor) else 0 if x is None else x for x in held]
    with span(op, bytes=sum(x.nbytes for x in held if isinstance(x, Tensor)), dtype=first.dtype):
        _native.kernel(op, first.dtype)(*passed)
