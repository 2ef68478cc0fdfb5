"""Omniglot from folders and from .npz: the same pool either way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlxml_fast.data import omniglot
from tlxml_fast.errors import DataError

PARTS = {"images_background": ["Greek", "Latin"], "images_evaluation": ["Tibetan"]}


@pytest.fixture
def drawings():
    """White on black, [alphabet/character][drawing]."""
    rng = np.random.default_rng(0)
    return {
        f"{part}/{alphabet}/character{c:02}": (rng.random((3, 28, 28)) > 0.8).astype(np.uint8) * 255
        for part, alphabets in PARTS.items()
        for alphabet in alphabets
        for c in (1, 2)
    }


@pytest.fixture
def folders(drawings, tmp_path):
    for name, images in drawings.items():
        directory = tmp_path / "omniglot-py" / name
        directory.mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(255 - image).convert("1").save(directory / f"0001_{i:02}.png")
    return tmp_path


@pytest.fixture
def npz(drawings, tmp_path):
    path = tmp_path / "small.npz"
    x = np.concatenate(list(drawings.values()))
    np.savez(path, x=x, y=np.repeat(np.arange(6), 3).astype(np.int16), classes=np.array(list(drawings)))
    return path


def test_folders_and_npz_agree(folders, npz, drawings):
    for split, classes in (("train", 4), ("test", 2), ("all", 6)):
        a, b = omniglot(folders, split), omniglot(npz, split)
        assert a.classes == b.classes
        assert a.groups == b.groups
        assert len(a.classes) == classes
        assert np.array_equal(a.images, b.images)
        assert np.array_equal(a.labels, b.labels)
    assert np.array_equal(a.images[:, 0], np.concatenate(list(drawings.values())))
    assert a.classes[0] == "Greek/character01"
    assert a.groups[0] == "Greek"


@pytest.mark.parametrize("below", ["omniglot-py", "omniglot-py/images_background"])
def test_the_root_may_lie_deeper(folders, below):
    assert len(omniglot(folders / below).classes) == 4


def test_sizes(folders, npz):
    for path in (folders, npz):
        pool = omniglot(path, image_size=14)
        assert pool.images.shape == (12, 1, 14, 14)
        assert pool.images.mean() == pytest.approx(omniglot(path).images.mean(), rel=0.05)


def test_rotations_are_further_classes_of_the_same_alphabet(npz):
    plain, turned = omniglot(npz), omniglot(npz, rotations=True)
    assert len(turned.classes) == 16
    assert turned.classes[4] == "Greek/character01/rot90"
    assert turned.groups == plain.groups * 4
    upright, quarter = turned.images[turned.rows[0]], turned.images[turned.rows[4]]
    assert np.array_equal(quarter, np.rot90(upright, axes=(2, 3)))


def test_within_alphabets_only_when_asked(npz):
    pool = omniglot(npz)
    assert set(pool.sample(4, 2, 1, 2).groups) == {""}
    assert set(pool.sample(20, 2, 1, 2, within_groups=True).groups) == {"Greek", "Latin"}


def test_refusals(folders, npz, tmp_path):
    def check(message, path, *args):
        with pytest.raises(DataError, match=message):
            omniglot(path, *args)

    check("'val' is none of train, test, all", npz, "val")
    check("no file or folder", tmp_path / "absent")
    check("has no folder images_background", tmp_path / "omniglot-py" / "images_evaluation")
    character = folders / "omniglot-py/images_background/Greek/character01"
    (character / "0001_00.png").write_bytes(b"not a picture")
    check("0001_00.png cannot be read as an image", folders)
    for file in character.iterdir():
        file.unlink()
    check("character01 has no .png file", folders)


X, Y, CLASSES = np.zeros((2, 4, 4), np.uint8), np.array([0, 1]), np.array(["images_background/A/1"] * 2)
BAD_FILES = {
    "no classes": ({"x": X, "y": Y}, "lacks an array"),
    "float x": ({"x": X / 1, "y": Y, "classes": CLASSES}, "not x uint8"),
    "lengths": ({"x": X, "y": Y[:1], "classes": CLASSES}, "not x uint8"),
    "range": ({"x": X, "y": Y + 1, "classes": CLASSES}, "not the names that y counts"),
    "names": ({"x": X, "y": Y, "classes": np.array(["a", "b"])}, "no class whose name starts with"),
    "pickles": ({"x": X, "y": Y, "classes": np.array([{}, {}], object)}, "cannot be read as an .npz"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_something_else_is_refused(case, tmp_path):
    arrays, message = BAD_FILES[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message):
        omniglot(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken"])
def test_a_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file"):
        omniglot(tmp_path / "bad.npz")


def test_the_whole_set():
    default = Path(__file__).parents[2] / "../shared/data/omniglot28.npz"
    path = Path(os.environ.get("TLXML_OMNIGLOT", default))
    if not path.is_file():
        pytest.skip("Omniglot is not here: name omniglot28.npz in $TLXML_OMNIGLOT")
    train, test = omniglot(path), omniglot(path, "test")
    assert (len(train.classes), len(test.classes)) == (964, 659)
    assert (len(set(train.groups)), len(set(test.groups))) == (30, 20)
    assert set(train.groups).isdisjoint(test.groups)
    assert 0.05 < train.images.mean() / 255 < 0.12  # white on black
    assert train.sample(3, ways=20, shots=1, queries=5)[2].ways == 20
