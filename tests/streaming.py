"""Directions, stored gradients and cases that the tests of streamed scores share."""

import torch

from tlxml_fast.tiles import tiles

# n, d, rows of the blocks
SHAPES = [
    (1, 1, (1,)),
    (1, 7, (48,)),
    (2, 1, (3, 1)),
    (5, 3, (1, 1, 47, 49, 2)),
    (8, 64, (100, 480, 481)),
    (13, 33, (7, 0, 1000, 5)),
    (128, 1024, (481, 960, 30)),
]
DTYPES = [
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.float64, torch.float64),
    (torch.float64, torch.bfloat16),
]


def problem(n, d, rows, dtype=torch.float32, stored=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    gradients = torch.randn(sum(rows), d, generator=g, dtype=torch.float64).to(stored)
    return (
        torch.randn(n, d, generator=g, dtype=torch.float64).to(dtype),
        gradients,
        list(gradients.split(rows)),
    )


def values_of(X, blocks):
    return torch.cat([tile.values for tile in tiles(X, blocks)], 1)


def assert_same(got, want):
    """The same rankings, NaN where NaN is."""
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
