"""The Triton twins of csrc/cpu, one file an op, for CUDA devices; proven without one by `make gpu-check`.

A launcher has the name and the arguments of the op's kernel in csrc/ops.h, with tensors for pointers: contiguous
inputs, outputs that it alone writes. (`stacked_mm` has a precision besides. A device's only are the products of
`convolution`, whose arguments ops/convolution.py has, and the two halves of `proto_gn`. Sums of `norm_act_pool` come in
parts, [T, P, 2, K, C].) Where TRITON_INTERPRET=1,
Triton's interpreter runs the same kernels on the CPU's tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

# op → the file it is in
WHERE = {
    "softmax_gn": "softmax_gn",
    "proto_gn": "proto_gn",
    "proto_gn_primal": "proto_gn",
    "proto_gn_beside": "proto_gn",
    "channel_moments": "norm_act_pool",
    "norm_act_pool": "norm_act_pool",
    "norm_act_pool_gather": "norm_act_pool",
    "norm_act_pool_jvp": "norm_act_pool",
    "norm_act_pool_affine": "norm_act_pool",
    "norm_act_pool_vjp": "norm_act_pool",
    "norm_act_pool_hvp": "norm_act_pool_hvp",
    "conv_weights": "convolution",
    "conv_push": "convolution",
    "conv_pull": "convolution",
    "conv_gram": "convolution",
    "stacked_mm": "stacked_mm",
    "topk": "topk",
    "maml_mlp": "maml_mlp",
    "sjlt": "sjlt",
    "srht": "srht",
    "rademacher": "rademacher",
}


@cache
def launcher(op: str) -> Callable[..., None] | None:
    """The function that launches `op`, or None if it has no Triton kernel. Imports triton."""
    if op not in WHERE:
        return None
    return getattr(import_module(f"{__name__}.{WHERE[op]}"), op)
