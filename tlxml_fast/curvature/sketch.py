"""Random cotangents of the logits of a task, whose pull-backs stand for its Gauss-Newton matrix in expectation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..losses import OuterLoss


def generator(seed: int, task: str) -> np.random.Generator:
    """Philox, keyed by the seed and the task's content: no draw depends on other tasks, their order or the process."""
    return np.random.Generator(np.random.Philox(key=[seed, int(task[:16], 16)]))


def rademacher(loss: OuterLoss, logits: Tensor, s: int, random: np.random.Generator) -> Tensor:
    """B z / √(ns) with independent signs z, B the factor of Λ: any loss. logits [n, C] → [s, n, C]."""
    n, r = len(logits), loss.rank(logits.shape[1])
    z = _as(logits, 2 * random.integers(0, 2, (s, n, r)) - 1)
    return torch.einsum("ncr,snr->snc", loss.factor(logits), z) / (n * s) ** 0.5


def labels(loss: OuterLoss, logits: Tensor, s: int, random: np.random.Generator) -> Tensor:
    """(p − e_ŷ) / √(ns) with labels ŷ drawn from the model: the Fisher information of cross-entropy."""
    p = logits.double().softmax(-1)
    draws = _as(p, random.random((s, len(p), 1)))
    drawn = (p.cumsum(-1) < draws).sum(-1).clamp_max(p.shape[1] - 1)
    hot = torch.nn.functional.one_hot(drawn, p.shape[1])
    return ((p - hot) / (len(p) * s) ** 0.5).to(logits.dtype)


def _as(like: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(like)


SKETCHES: dict[str, Callable[..., Tensor]] = {"labels": labels, "rademacher": rademacher}
