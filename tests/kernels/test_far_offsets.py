"""Tensors of more than 2^31 numbers: kernels find the second task's tangents beyond them.

Only the programs of the first tangents of two tasks are launched, on memory that is mostly never touched.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
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


@pytest.mark.parametrize("beside", [False, True])
def test_proto_gn(beside):
    from tlxml_fast.kernels import proto_gn as file

    S, n, C, D, tile = 4, 32, 2, 64, file.TILES[0]
    K = FAR // (((S + n) if beside else n) * D)
    labels = torch.arange(S).remainder(C).expand(2, S).contiguous()
    support, query = torch.randn(2, S, D) / 8, torch.randn(2, n, D) / 8
    dquery = torch.randn(n, D)
    members, means, centre = torch.empty(2, S, C), torch.empty(2, C, D), torch.empty(2, D)
    shared = torch.empty(2, 4, n, C)
    grids = file._grids(tile, 2, 1, n, D)
    file._class_means[grids[0]](support, labels, members, means, centre, S, D, C, True, *tile[:3])
    file._coefficients[grids[1]](query, means, centre, shared, 1.0, n, D, C, file.SQEUCLIDEAN, *tile[:3])
    with ExitStack() as stack:

        def far(numbers: int) -> tuple[object, np.ndarray]:
            return stack.enter_context(strict_interpreter.reserved(numbers))

        def of_task_1(memory: np.ndarray, examples: int) -> np.ndarray:
            """Its first tangent, [examples, D], where the layout has it."""
            first = memory[K * examples * D :]
            return first.reshape(examples, K, D)[:, 0] if beside else first.reshape(examples, D)

        if beside:
            (dz, dz_memory), (gz, gz_memory) = (far(2 * (S + n) * K * D) for _ in range(2))
            queries = (
                strict_interpreter.pointer_to(memory[S * K * D :]) for memory in (dz_memory, gz_memory)
            )
            tangents = (dz, next(queries), gz, next(queries))
            of_task_1(dz_memory, S + n)[S:] = dquery.numpy()
        else:
            sizes = [(K + 1) * examples * D for examples in (S, n, S, n)]
            (ds, _), (dq, dq_memory), (gs, gs_memory), (gq, gq_memory) = map(far, sizes)
            tangents = (ds, dq, gs, gq)
            of_task_1(dq_memory, n)[:] = dquery.numpy()
        pulls, _ = far((K + 1) * n * C)
        file._tangents[(1, 2)](
            query,
            members,
            *tangents,
            None,
            means,
            centre,
            shared,
            pulls,
            K,
            S,
            n,
            D,
            C,
            True,
            beside,
            *tile[:3],
        )
        if beside:
            got = torch.from_numpy(of_task_1(gz_memory, S + n).copy()).split([S, n])
        else:
            got = [torch.from_numpy(of_task_1(m, k).copy()) for m, k in ((gs_memory, S), (gq_memory, n))]
    want = proto_gn_ref(
        support[1:], query[1:], labels[1:], torch.zeros(1, 1, S, D), dquery.view(1, 1, n, D), ways=C
    )
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g.view_as(w), w, rtol=1e-4, atol=1e-5)
