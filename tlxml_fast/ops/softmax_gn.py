"""The Gauss-Newton factor Λ of the mean cross-entropy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tlxml_fast.ops._dispatch import buffer, check, check_out, choose, deliver, dense, launch


def softmax_gn(logits: Tensor, u: Tensor, *, backend: str = "auto", out: Tensor | None = None) -> Tensor:
    """Multiply by Λ, the Hessian of each task's mean cross-entropy in its logits.

        (Λu)_m = p_m ∘ (u_m − ⟨p_m, u_m⟩) / n,      p = softmax(logits)

    Λ = (1/n) blockdiag_m(diag p_m − p_m p_mᵀ) is symmetric, positive semi-definite, and depends on no labels:
    it is what the Gauss-Newton approximation keeps of the loss (TLXML, arXiv:2501.14271).

    Args:
        logits: [T, n, C], float32 or float64, for T tasks of n queries and C classes; any strides.
        u: [T, K, n, C], K vectors a task, of the same dtype and device.
        backend: "native" (C++, CPU tensors), "triton" (CUDA tensors), "reference" (pure torch), or "auto": the
            compiled one of the tensors' device where it can run.
        out: where to write; [T, K, n, C], sharing no memory with the inputs.

    Returns:
        Λu, [T, K, n, C]. Native results are bit-identical for any number of threads and any
        batching of T and K.

    Raises:
        TlxError: shapes, dtypes or devices do not fit.
        BackendError: the compiled backend named cannot run on these tensors, or there is no such backend.
    """
    size = check("softmax_gn", logits=(logits, "T n C"), u=(u, "T K n C"))
    if out is not None:
        check_out("softmax_gn", out, u, logits, u)
    if choose("softmax_gn", backend, logits, u).backend == "reference":
        return deliver(softmax_gn_ref(logits, u), out)

    flops = 5 * u.numel() + 5 * logits.numel()  # a product and a sum, then p(u − ⟨p, u⟩)/n; and the softmax
    logits, u = dense(logits), dense(u)
    result = buffer(out, u)
    launch("softmax_gn", logits, u, result, *(size[letter] for letter in "TKnC"), flops=flops)
    return deliver(result, out)


def softmax_gn_ref(logits: Tensor, u: Tensor) -> Tensor:
    """`softmax_gn` in plain torch: differentiable, for any transform and device."""
    p = logits.softmax(-1)
    if u.dim() > p.dim():
        p = p.unsqueeze(-3)
    return p * (u - (p * u).sum(-1, keepdim=True)) / logits.shape[-2]


def example(dtype: torch.dtype, generator: torch.Generator) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """A small call of `softmax_gn`, for self-tests: its positional and keyword arguments."""
    logits = torch.randn(2, 7, 5, dtype=dtype, generator=generator)
    return (logits, torch.randn(2, 3, 7, 5, dtype=dtype, generator=generator)), {}
