"""The fused operations: one file an op, with its public function, its checks and its pure-torch reference.

`xxx` chooses between the compiled kernel and `xxx_ref`; `OPS` lists them for the doctor and for benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tlxml_fast.ops._dispatch import Choice, choose
from tlxml_fast.ops._native import native_available, why_not_native
from tlxml_fast.ops.proto_gn import example as _proto_gn_example
from tlxml_fast.ops.proto_gn import proto_gn, proto_gn_ref, proto_logits
from tlxml_fast.ops.softmax_gn import example as _softmax_gn_example
from tlxml_fast.ops.softmax_gn import softmax_gn, softmax_gn_ref


class Op(NamedTuple):
    """An op, its reference, and a small example call: `example(dtype, generator)` → (args, kwargs)."""

    function: Callable
    reference: Callable
    example: Callable


OPS = {
    "softmax_gn": Op(softmax_gn, softmax_gn_ref, _softmax_gn_example),
    "proto_gn": Op(proto_gn, proto_gn_ref, _proto_gn_example),
}

__all__ = [
    "OPS",
    "Choice",
    "Op",
    "choose",
    "native_available",
    "proto_gn",
    "proto_gn_ref",
    "proto_logits",
    "softmax_gn",
    "softmax_gn_ref",
    "why_not_native",
]
