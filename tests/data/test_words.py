"""Visual words: counts of nearest centres, standardised; darker images have other words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tlxml_fast.data import FeaturePool, ImagePool, VisualWords, darken, digits
from tlxml_fast.errors import DataError

WORDS = VisualWords.fit(digits("all"), words=5, seed=0)


def by_hand(words: VisualWords, image: np.ndarray) -> np.ndarray:
    """Patch after patch, distances in full."""
    counts, width = np.zeros(len(words.centres)), words.patch
    for top in range(0, image.shape[1] - width + 1, width // 2):
        for left in range(0, image.shape[2] - width + 1, width // 2):
            patch = image[:, top : top + width, left : left + width].ravel()
            counts[np.argmin([np.sum((patch - centre) ** 2) for centre in words.centres])] += 1
    return (counts / counts.sum() - words.mean) / words.scale


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 8, 8), (1, 14, 9)])
def test_features_are_counts_by_hand(shape):
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for image, found in zip(images, WORDS.features(images), strict=True):
        np.testing.assert_allclose(found, by_hand(WORDS, image.numpy().astype(np.float32)), atol=1e-5)


def test_features_are_standardised_over_the_images_learnt_from():
    pool = digits("all")
    found = WORDS.features(torch.from_numpy(pool.images.astype(np.float32) / 255)).double()
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(0, correction=0), 1, atol=1e-4)


def test_tasks_keep_all_but_their_images():
    pool = FeaturePool(digits("all"), WORDS)
    task, image_task = (p.sample(2, ways=3, shots=1, queries=2, seed=4)[1] for p in (pool, pool.images))
    assert task.support_x.shape == (3, 5)
    assert (task.name, task.group) == (image_task.name, image_task.group)
    assert torch.equal(task.query_y, image_task.query_y)
    assert torch.equal(task.query_x, WORDS.features(image_task.query_x))


def test_darker_images_have_other_words():
    task = digits("all").sample(1, ways=3, shots=2, queries=2, seed=0)[0]
    changes = [
        float((WORDS(darken(task, alpha)).query_x - WORDS(task).query_x).norm()) for alpha in (0, 0.5, 1)
    ]
    assert changes[0] == 0 < changes[1] < changes[2]


def test_patches_are_a_quarter_of_the_image_wide(all_glyphs):
    assert WORDS.patch == 3
    assert VisualWords.fit(all_glyphs, words=4).patch == 7


def test_a_codebook_is_that_of_its_seed():
    again = VisualWords.fit(digits("all"), words=5, seed=0)
    np.testing.assert_array_equal(again.centres, WORDS.centres)
    assert not np.array_equal(VisualWords.fit(digits("all"), words=5, seed=1).centres, WORDS.centres)


def test_what_cannot_be_learnt_from_is_refused():
    black = ImagePool(np.zeros((4, 1, 8, 8), np.uint8), [0, 0, 1, 1], ["a", "b"])
    with pytest.raises(DataError, match="pool has 1 distinct patches, fewer than 2 words"):
        VisualWords.fit(black, words=2)
    with pytest.raises(DataError, match="at least 3 wide"):
        WORDS.features(torch.rand(1, 1, 2, 8))
    with pytest.raises(DataError, match="the codebook was learnt from patches of 9"):
        WORDS.features(torch.rand(1, 3, 8, 8))
