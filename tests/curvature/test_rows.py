"""Rows in blocks: every product of R, and its Gram matrix, are those of the rows one under another."""

from __future__ import annotations

import pytest
import torch
from oracle import near

from tlxml_fast.curvature import rows as rows_module
from tlxml_fast.curvature.rows import Rows

SCALE = 0.25


def made(q: int, dtype: torch.dtype = torch.float64) -> tuple[Rows, torch.Tensor]:
    g = torch.Generator().manual_seed(q)
    blocks = [torch.randn(n, q, generator=g, dtype=torch.float64).to(dtype) for n in (3, 0, 1, 5)]
    return Rows(blocks, q, SCALE), SCALE**0.5 * torch.cat(blocks).double()


@pytest.mark.parametrize("q", [1, 7, 23])
def test_products(q):
    rows, R = made(q)
    V, W = torch.randn(4, q, dtype=torch.float64), torch.randn(4, len(R), dtype=torch.float64)
    near(rows.push(V), V @ R.mT)
    near(rows.pull(W), W @ R)
    near(rows.squares(), R.square().sum(0))
    near(rows.dense(), R.mT @ R)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [4, 8192])
@pytest.mark.parametrize("weighted", [False, True])
def test_gram(monkeypatch, dtype, columns, weighted):
    monkeypatch.setattr(rows_module, "COLUMNS", columns)
    rows, R = made(23, dtype)
    w = torch.linspace(0.1, 3, 23, dtype=torch.float64)
    before = [block.clone() for block in rows.blocks]
    found = rows.gram(w) if weighted else rows.gram()
    near(found, (R * w if weighted else R) @ R.mT, 1e-12 if dtype == torch.float64 else 1e-5)
    assert found.dtype == torch.float64
    assert all(torch.equal(a, b) for a, b in zip(rows.blocks, before, strict=True))
