"""scikit-learn's handwritten digits: 1,797 images of 8×8, small enough for quick trials."""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .pool import ImagePool

# Ten classes leave two splits that both allow 5-way tasks, and nothing for validation.
SPLITS = {"train": range(0, 5), "test": range(5, 10), "all": range(0, 10)}


def digits(split: str = "train") -> ImagePool:
    """Digits 0–4 ("train"), 5–9 ("test") or all ten ("all"), white on black, [N, 1, 8, 8].

    Raises DataError for an unknown split or without scikit-learn.
    """
    if split not in SPLITS:
        raise DataError(f"digits: split {split!r} is none of {', '.join(SPLITS)}")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("digits: scikit-learn is not installed; pip install 'tlxml_fast[digits]'") from None
    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[:, None]  # stored as counts 0 … 16
    pool = ImagePool(images, data.target, [str(digit) for digit in range(10)], name="digits")
    return pool if split == "all" else pool.select(SPLITS[split], split)
