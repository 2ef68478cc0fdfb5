"""The fused operations: one file an op, with its public function, its checks and its pure-torch reference.

`xxx` chooses between the compiled kernel and `xxx_ref`; `OPS` lists them for the doctor and for benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import torch

from tlxml_fast.ops import im2col as _im2col
from tlxml_fast.ops import maml_mlp as _maml_mlp
from tlxml_fast.ops import norm_act_pool as _norm_act_pool
from tlxml_fast.ops import stacked_mm as _stacked_mm
from tlxml_fast.ops import winograd as _winograd
from tlxml_fast.ops._dispatch import Choice, choose
from tlxml_fast.ops._native import native_available, why_not_native
from tlxml_fast.ops.proto_gn import example as _proto_gn_example
from tlxml_fast.ops.proto_gn import proto_gn, proto_gn_ref, proto_logits
from tlxml_fast.ops.rademacher import example as _rademacher_example
from tlxml_fast.ops.rademacher import rademacher, rademacher_ref
from tlxml_fast.ops.sjlt import example as _sjlt_example
from tlxml_fast.ops.sjlt import sjlt, sjlt_ref
from tlxml_fast.ops.softmax_gn import example as _softmax_gn_example
from tlxml_fast.ops.softmax_gn import softmax_gn, softmax_gn_ref
from tlxml_fast.ops.srht import example as _srht_example
from tlxml_fast.ops.srht import srht, srht_ref
from tlxml_fast.ops.topk import TopK, topk, topk_ref
from tlxml_fast.ops.topk import example as _topk_example


class Op(NamedTuple):
    """An op, its reference, and a small example call: `example(dtype, generator)` → (args, kwargs)."""

    function: Callable
    reference: Callable
    example: Callable


def _layer_ops() -> dict[str, Op]:
    """Those that only the engine calls; their modules give functions, references and arguments by name."""

    def example(module: ModuleType, name: str) -> Callable:
        return lambda dtype, generator: (module.examples(dtype, generator)[name][2], {})

    return {
        name: Op(function, reference, example(module, name))
        for module in (_norm_act_pool, _im2col, _winograd, _stacked_mm, _maml_mlp)
        for name, (function, reference, _) in module.examples(torch.float32, torch.Generator()).items()
    }


OPS = {
    "softmax_gn": Op(softmax_gn, softmax_gn_ref, _softmax_gn_example),
    "proto_gn": Op(proto_gn, proto_gn_ref, _proto_gn_example),
    "topk": Op(topk, topk_ref, _topk_example),
    "sjlt": Op(sjlt, sjlt_ref, _sjlt_example),
    "srht": Op(srht, srht_ref, _srht_example),
    "rademacher": Op(rademacher, rademacher_ref, _rademacher_example),
    **_layer_ops(),
}


def in_double(value: Any) -> Any:
    """An argument of an op in float64: a tensor, a record of tensors, or anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if is_dataclass(value):
        return replace(value, **{f.name: in_double(getattr(value, f.name)) for f in fields(value)})
    return value


__all__ = [
    "OPS",
    "Choice",
    "Op",
    "TopK",
    "choose",
    "in_double",
    "native_available",
    "proto_gn",
    "proto_gn_ref",
    "proto_logits",
    "rademacher",
    "rademacher_ref",
    "sjlt",
    "sjlt_ref",
    "softmax_gn",
    "softmax_gn_ref",
    "srht",
    "srht_ref",
    "topk",
    "topk_ref",
    "why_not_native",
]
