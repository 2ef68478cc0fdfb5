"""Tensors of more than 2^31 numbers: kernels find the second task's tangents beyond them.

Only the programs of the first tangents of two tasks are launched, on memory that is mostly never touched.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

pytest.importorskip("triton")
import strict_interpreter

from tlxml_fast.ops import proto_gn_ref, softmax_gn_ref

FAR = 2**31 + 4096


def test_softmax_gn():
    from tlxml_fast.kernels.softmax_gn import TANGENTS, TILES, _softmax_gn

    n, C, tile = 128, 8, TILES[0]
    K = FAR // (n * C)
    logits, x = torch.randn(2, n, C), torch.randn(n * C)
    first, size = K * n * C, n * C
    with ExitStack() as stack:
        (u, u_memory), (out, out_memory) = (
            stack.enter_context(strict_interpreter.reserved(first + TANGENTS * size)) for _ in range(2)
        )
        u_memory[first : first + size] = x.numpy()
        _softmax_gn[(1, 1, 2)](logits, u, out, K, n, C, tile.classes, tile.rows, TANGENTS)
        got = torch.from_numpy(out_memory[first : first + size].copy())
    want = softmax_gn_ref(logits[1:], x.view(1, 1, n, C))
    torch.testing.assert_close(got.view_as(want), want)


def test_proto_gn():
    from tlxml_fast.kernels import proto_gn as file

    S, n, C, D, tile = 4, 32, 2, 64, file.TILES[0]
    K = FAR // (n * D)
    labels = torch.arange(S).remainder(C).expand(2, S).contiguous()
    support, query = torch.randn(2, S, D) / 8, torch.randn(2, n, D) / 8
    dquery = torch.randn(n, D)
    members, means, centre = torch.empty(2, S, C), torch.empty(2, C, D), torch.empty(2, D)
    shared = torch.empty(2, 4, n, C)
    grids = file._grids(tile, 2, 1, n, D)
    file._class_means[grids[0]](support, labels, members, means, centre, S, D, C, True, *tile[:3])
    file._coefficients[grids[1]](query, means, centre, shared, 1.0, n, D, C, file.SQEUCLIDEAN, *tile[:3])
    with ExitStack() as stack:

        def far(*sizes: int):
            return stack.enter_context(strict_interpreter.reserved((K + 1) * torch.Size(sizes).numel()))

        (ds, _), (dq, dq_memory), (gs, gs_memory), (gq, gq_memory) = (
            far(S, D),
            far(n, D),
            far(S, D),
            far(n, D),
        )
        pulls, _ = far(n, C)
        dq_memory[K * n * D :] = dquery.flatten().numpy()
        file._tangents[(1, 2)](
            query, members, ds, dq, gs, gq, None, means, centre, shared, pulls,
            K, S, n, D, C, True, False, *tile[:3],
        )  # fmt: skip
        got = [torch.from_numpy(m[K * size :].copy()) for m, size in ((gs_memory, S * D), (gq_memory, n * D))]
    want = proto_gn_ref(
        support[1:], query[1:], labels[1:], torch.zeros(1, 1, S, D), dquery.view(1, 1, n, D), ways=C
    )
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g.view_as(w), w, rtol=1e-4, atol=1e-5)
