"""The Gauss-Newton product of a whole ProtoNet head: from tangents of the embeddings to their cotangents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.utils.weak import WeakTensorKeyDictionary

from tlxml_fast.errors import TaskError, TlxError
from tlxml_fast.ops._dispatch import (
    buffer,
    check,
    check_out,
    choose,
    deliver,
    dense,
    has_kernel,
    launch,
    share,
    traced,
)
from tlxml_fast.ops.prototypes import class_means, head_jvp, head_vjp, proto_head, prototype_logits
from tlxml_fast.ops.softmax_gn import softmax_gn_ref

CODES = {"sqeuclidean": 0, "euclidean": 1, "cosine": 2}  # the core's enum Distance
_checked = WeakTensorKeyDictionary()  # labels on a device that were good → their version then, and the ways


def proto_gn(
    support_z: Tensor,
    query_z: Tensor,
    support_y: Tensor,
    dsupport_z: Tensor,
    dquery_z: Tensor,
    *,
    ways: int,
    distance: str = "sqeuclidean",
    scale: float = 1.0,
    backend: str = "auto",
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """JᵀΛJ dZ of a ProtoNet head, J the Jacobian of `proto_logits` in the embeddings Z = (support, query).

    Whatever the distance, ∂f_mc/∂z_m = α_mc z_m + β_mc c_c and ∂f_mc/∂c_c = β_mc z_m + γ_mc c_c, so

        df_mc = α_mc⟨z_m, dz_m⟩ + β_mc(⟨c_c, dz_m⟩ + ⟨z_m, dc_c⟩) + γ_mc⟨c_c, dc_c⟩,      w = Λ df
        gz_m  = (Σ_c α_mc w_mc) z_m + Σ_c β_mc w_mc c_c
        gc_c  = Σ_m β_mc w_mc z_m + (Σ_m γ_mc w_mc) c_c

    and a support example gets gc of its class divided by the class's shots. With s = scale, ε = 1e-12:

        sqeuclidean  f = −s‖z−c‖²             α = γ = −2s, β = 2s
        euclidean    f = −s√(‖z−c‖²+ε) = −sd  α = γ = −s/d, β = s/d
        cosine       f = s⟨z,c⟩/(|z||c|)      α = −f/|z|², γ = −f/|c|², β = s/(|z||c|),      |x|² = ‖x‖²+ε

    Prototypical networks: Snell et al. 2017, arXiv:1703.05175. Influence: TLXML, arXiv:2501.14271.

    Args:
        support_z: [T, S, D], float32 or float64, embeddings of T tasks; any strides.
        query_z: [T, n, D].
        support_y: [T, S] int64, in 0..ways−1, each class at least once; shots may differ between classes.
        dsupport_z, dquery_z: [T, K, S, D] and [T, K, n, D], K tangents a task.
        ways: the number of classes C.
        distance: "sqeuclidean", "euclidean" or "cosine".
        scale: the factor s of the logits.
        backend: "native" (C++, CPU tensors), "triton" (CUDA tensors, at most 256 ways), "reference" (pure torch), or
            "auto": the compiled one of the tensors' device where it can run.
        out: the two tensors to write, shaped as the results and sharing no memory with the
            inputs or each other.

    Returns:
        (gsupport, gquery), [T, K, S, D] and [T, K, n, D]. Native results are bit-identical for any
        number of threads and any batching of T and K.

    Raises:
        TaskError: labels out of range, or a class without support examples.
        TlxError: shapes, dtypes or devices do not fit, or there is no such distance.
        BackendError: the compiled backend named cannot run on these tensors, or there is no such backend.
    """
    size = check(
        "proto_gn",
        support_z=(support_z, "T S D"),
        query_z=(query_z, "T n D"),
        support_y=(support_y, "T S"),
        dsupport_z=(dsupport_z, "T K S D"),
        dquery_z=(dquery_z, "T K n D"),
    )
    inputs = (support_z, query_z, support_y, dsupport_z, dquery_z)
    if distance not in CODES:
        raise TlxError(f'proto_gn: there is no distance "{distance}"; choose one of {", ".join(CODES)}.')
    if not traced(support_y):
        _check_labels(support_y, ways)
    outs = (None, None) if out is None else out
    for buf, like in zip(outs, (dsupport_z, dquery_z), strict=True):
        if buf is not None:
            check_out("proto_gn", buf, like, *inputs)
    if all(buf is not None for buf in outs) and not traced(*outs) and share(*outs):
        raise TlxError("proto_gn: the two tensors of out share memory with each other.")
    if choose("proto_gn", backend, *inputs).backend == "reference":
        # the reference has forward mode inside, which torch.compile and an outer dual level cannot nest
        plain = proto_gn_ref if backend == "reference" else _by_formula
        results = plain(*inputs, ways=ways, distance=distance, scale=scale)
        return deliver(results[0], outs[0]), deliver(results[1], outs[1])

    gsupport, gquery = buffer(outs[0], dsupport_z), buffer(outs[1], dquery_z)
    launch(
        "proto_gn", *map(dense, inputs), gsupport, gquery,
        size["T"], size["K"], size["S"], size["n"], ways, size["D"], CODES[distance], scale, flops=_flops(size, ways),
    )  # fmt: skip
    return deliver(gsupport, outs[0]), deliver(gquery, outs[1])


class HeadProduct:
    """w_t JᵀΛJ of T heads at one ω, for the engine: tangents as it has them, what is the embeddings' alone made once.

    z [T, S + n, D], support first; labels, ways, distance and scale as of `proto_gn`.
    """

    def __init__(self, z: Tensor, labels: Tensor, ways: int, distance: str, scale: float):
        self.labels, self.ways, self.distance, self.scale = labels, ways, distance, scale
        S = labels.shape[1]
        self.support, self.query = z[:, :S].contiguous(), z[:, S:].contiguous()
        self.primal = None
        if has_kernel("proto_gn_primal", z):
            _check_labels(labels, ways)
            T, n, D = self.query.shape
            self.primal = launch(
                "proto_gn_primal", self.support, self.query, labels, T, S, n, ways, D, CODES[distance], scale
            )  # fmt: skip

    def __call__(self, dz: Tensor, weights: Tensor) -> Tensor:
        """[T, S + n, K, D] → the same; weights [T]."""
        T, _, K, D = dz.shape
        S, n = self.support.shape[1], self.query.shape[1]
        if self.primal is not None:
            dz, weights = dz.contiguous(), weights.contiguous()
            gz = torch.empty_like(dz)
            launch(
                "proto_gn_beside", self.query, self.primal, dz, gz, weights, T, K, S, n, self.ways, D,
                CODES[self.distance], flops=_flops({"T": T, "K": K, "S": S, "n": n, "D": D}, self.ways),
            )  # fmt: skip
            return gz
        dz = dz.transpose(1, 2)
        parts = proto_gn(
            self.support, self.query, self.labels, dz[:, :, :S], dz[:, :, S:],
            ways=self.ways, distance=self.distance, scale=self.scale,
        )  # fmt: skip
        joined = torch.cat(parts, 2).transpose(1, 2)
        return torch.mul(
            joined,
            weights[:, None, None, None],
            out=torch.empty_like(joined, memory_format=torch.contiguous_format),
        )


def proto_gn_ref(
    support_z: Tensor,
    query_z: Tensor,
    support_y: Tensor,
    dsupport_z: Tensor,
    dquery_z: Tensor,
    *,
    ways: int,
    distance: str = "sqeuclidean",
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`proto_gn` by differentiating `proto_logits`: a jvp, Λ, and a vjp; knows nothing of α, β and γ."""

    def task(support: Tensor, query: Tensor, labels: Tensor, dsupport: Tensor, dquery: Tensor):
        def head(s: Tensor, q: Tensor) -> Tensor:
            return proto_logits(s, q, labels, ways=ways, distance=distance, scale=scale)

        logits, pull = vjp(head, support, query)

        def product(ds: Tensor, dq: Tensor) -> tuple[Tensor, ...]:
            return pull(softmax_gn_ref(logits, jvp(head, (support, query), (ds, dq))[1]))

        return vmap(product)(dsupport, dquery)

    return vmap(task)(support_z, query_z, support_y, dsupport_z, dquery_z)


def _by_formula(
    support_z: Tensor,
    query_z: Tensor,
    support_y: Tensor,
    dsupport_z: Tensor,
    dquery_z: Tensor,
    *,
    ways: int,
    distance: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """`proto_gn` by the coefficients α, β and γ, without any transform."""
    head = proto_head(torch.cat([support_z, query_z], 1), support_y, ways, distance, scale)
    tangents = head_jvp(head, torch.cat([dsupport_z, dquery_z], 2))
    pulled = head_vjp(head, softmax_gn_ref(head.logits, tangents))
    S = support_z.shape[1]
    return pulled[:, :, :S], pulled[:, :, S:]


def proto_logits(
    support_z: Tensor,
    query_z: Tensor,
    support_y: Tensor,
    *,
    ways: int,
    distance: str = "sqeuclidean",
    scale: float = 1.0,
) -> Tensor:
    """Logits of a ProtoNet head: minus the scaled distance, or the cosine, of queries to prototypes.

    A prototype is the mean of the support embeddings of its class (Snell et al. 2017, arXiv:1703.05175). Plain
    torch: works under every torch.func transform, differentiable to any order. `proto_gn` has the formulas.

    Args:
        support_z: [..., S, D].
        query_z: [..., n, D].
        support_y: [..., S], integer labels in 0..ways−1, each class at least once (not checked).
        ways, distance, scale: as for `proto_gn`.

    Returns:
        [..., n, ways].
    """
    prototypes = class_means(support_z, support_y, ways)
    return prototype_logits(query_z, prototypes, distance, scale)


def _flops(size: Mapping[str, int], ways: int) -> int:
    """To the leading order in D."""
    T, K, S, n, D = (size[letter] for letter in "TKSnD")
    # a tangent: its class means; ⟨z, dz⟩ and ⟨c, dc⟩; ⟨c, dz⟩ + ⟨z, dc⟩; the two halves of the result
    tangent = D * (S + 2 * n + 2 * ways + 4 * n * ways + n + ways + 4 * n * ways)
    task = D * (S + 2 * n + 3 * n * ways)  # class means, norms, distances
    return T * (K * tangent + task)


def _check_labels(support_y: Tensor, ways: int) -> None:
    """Raise TaskError where a label is not a class or a class has no label.

    On a device that waits for all that was launched, so that a tensor is looked at once, until it is written.
    """
    tracked = support_y.is_cuda and not support_y.is_inference()
    state = (support_y._version, ways) if tracked else None
    if tracked and _checked.get(support_y) == state:
        return
    expected = set(range(ways))
    for task, labels in enumerate(support_y.tolist()):
        if set(labels) != expected:
            raise TaskError(
                f"proto_gn: the support labels of task {task} must be 0 to {ways - 1}, each at least once; "
                f"they are {sorted(set(labels))}."
            )
    if tracked:
        _checked[support_y] = state


def example(dtype: torch.dtype, generator: torch.Generator) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """A small call of `proto_gn`, for self-tests: its positional and keyword arguments."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=generator)

    labels = torch.arange(6).remainder(3).expand(2, 6)
    return (normal(2, 6, 9), normal(2, 4, 9), labels, normal(2, 5, 6, 9), normal(2, 5, 4, 9)), {"ways": 3}
