"""Bags of visual words: images as counts of local descriptors, by a codebook of k-means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..task import Task, TaskSet
from .pool import ImagePool

Tasks = TypeVar("Tasks", Task, TaskSet)

LEAST_PATCH = 3
# Images that the codebook is learnt from: enough descriptors for a few dozen words.
LEARNT_FROM = 2000


@dataclass(frozen=True)
class VisualWords:
    """An image as how often each of W visual words occurs in it, standardised over the images learnt from.

    A local descriptor is a square patch of pixels, as it is: a darker image has other words. Patches are a quarter of
    the image wide and half overlap. A word is a centre of k-means over descriptors; a descriptor counts for the
    nearest.

    patch    the width of a patch, in pixels
    centres  [W, patch²·C]
    mean     [W] of the words' shares over the images learnt from
    scale    [W] their standard deviation
    """

    patch: int
    centres: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, pool: ImagePool, words: int = 34, seed: int = 0) -> VisualWords:
        """The codebook of a pool's images; 34 words, as in the TLXML paper (arXiv 2501.14271), unless told otherwise.

        Raises DataError without scikit-learn, for images smaller than a patch, and for fewer descriptors than words.
        """
        try:
            from sklearn.cluster import MiniBatchKMeans
        except ImportError:
            raise DataError(
                "visual words: scikit-learn is not installed; pip install 'tlxml_fast[experiments]'"
            ) from None
        if words < 1:
            raise DataError(f"visual words: {words} words; there is at least 1")
        rng = np.random.default_rng([seed, words])
        rows = rng.permutation(np.flatnonzero(pool.labels >= 0))[:LEARNT_FROM]
        patch = max(LEAST_PATCH, pool.image_size // 4)
        images = pool.images[np.sort(rows)].astype(np.float32) / np.float32(255)
        found = _descriptors(images, patch, pool.label)
        distinct = len(np.unique(found.reshape(-1, found.shape[-1]), axis=0))
        if distinct < words:
            raise DataError(
                f"visual words: {pool.label} has {distinct} distinct patches, fewer than {words} words"
            )
        means = MiniBatchKMeans(words, n_init=3, batch_size=4096, random_state=seed)
        centres = means.fit(found.reshape(-1, found.shape[-1])).cluster_centers_.astype(np.float32)
        shares = _shares(found, centres)
        spread = shares.std(0)
        return cls(patch, centres, shares.mean(0), np.where(spread > 0, spread, 1).astype(np.float32))

    def features(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] → [N, W], in their dtype."""
        found = _descriptors(images.detach().cpu().numpy().astype(np.float32), self.patch, "a task")
        if found.shape[-1] != self.centres.shape[1]:
            raise DataError(
                f"visual words: patches of {found.shape[-1]} numbers, and the codebook was learnt from patches of "
                f"{self.centres.shape[1]}"
            )
        return torch.from_numpy((_shares(found, self.centres) - self.mean) / self.scale).to(images)

    def __call__(self, tasks: Tasks) -> Tasks:
        """The same tasks with features for images. Takes a Task or a TaskSet and returns the same kind, lazily."""
        return tasks.map(self._of) if isinstance(tasks, TaskSet) else self._of(tasks)

    def _of(self, task: Task) -> Task:
        return task.replace(support_x=self.features(task.support_x), query_x=self.features(task.query_x))


@dataclass(frozen=True)
class FeaturePool:
    """A pool whose tasks have visual words for images."""

    images: ImagePool
    words: VisualWords

    def sample(self, *arguments: object, **named: object) -> TaskSet:
        """`ImagePool.sample`, in visual words."""
        return self.words(self.images.sample(*arguments, **named))  # type: ignore[arg-type]


def _descriptors(images: np.ndarray, patch: int, what: str) -> np.ndarray:
    """[N, C, H, W] → [N, patches, patch²·C]."""
    if images.ndim != 4 or min(images.shape[2:]) < patch:
        raise DataError(
            f"visual words: {what} has images of shape {images.shape[1:]}; they are [C, H, W], at least {patch} wide"
        )
    stride = max(1, patch // 2)
    windows = np.lib.stride_tricks.sliding_window_view(images, (patch, patch), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]  # [N, C, rows, columns, patch, patch]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(images), -1, images.shape[1] * patch * patch)


def _shares(descriptors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """[N, patches, D] → [N, W], the share of the patches nearest to each centre."""
    count, words = len(descriptors), len(centres)
    # ‖d − c‖² less ‖d‖², which decides nothing
    apart = (centres * centres).sum(1) - 2 * descriptors @ centres.T
    nearest = apart.argmin(-1) + words * np.arange(count)[:, None]
    counts = np.bincount(nearest.ravel(), minlength=count * words).reshape(count, words)
    return (counts / descriptors.shape[1]).astype(np.float32)
