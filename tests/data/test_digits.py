from __future__ import annotations

import sys

import numpy as np
import pytest

from tlxml_fast.data import digits
from tlxml_fast.errors import DataError


def test_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    train, test, both = digits("train"), digits("test"), digits("all")
    assert train.classes + test.classes == both.classes == tuple("0123456789")
    assert both.images.shape == (1797, 1, 8, 8)
    assert (both.images.min(), both.images.max()) == (0, 255)
    assert both.images[0, 0].argmax() == np.argmax([0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15])
    assert len(set(train.sample(4, ways=5, shots=5, queries=15).ids)) == 4


def test_refusals(monkeypatch):
    with pytest.raises(DataError, match="'val' is none of train, test, all"):
        digits("val")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'tlxml_fast\[digits\]'"):
        digits()
