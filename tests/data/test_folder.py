"""A directory a class: layouts, sizes, laziness, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tlxml_fast.data import folder
from tlxml_fast.errors import DataError

COLOURS = {"cat": (255, 0, 0), "dog": (0, 255, 0), "owl": (0, 0, 255)}


def make(root, per_class: int = 3):
    for name, colour in COLOURS.items():
        (root / name / "images").mkdir(parents=True)
        for i in range(per_class):
            where = root / name / ("images" if i else "")  # at any depth
            Image.new("RGB", (20 + 5 * i, 30), colour).save(where / f"{i}.{('png', 'bmp', 'PNG')[i % 3]}")
        (root / name / ".hidden.png").write_bytes(b"not a picture")
        (root / name / "notes.txt").write_text("not a picture either")
    (root / ".git").mkdir()
    return root


def test_a_directory_a_class(tmp_path):
    pool = folder(make(tmp_path), image_size=8)
    assert pool.classes == ("cat", "dog", "owl")
    assert (len(pool), pool.in_channels, pool.image_size) == (9, 3, 8)
    task = pool.sample(5, ways=3, shots=1, queries=2)[4]
    for x, y in ((task.support_x, task.support_y), (task.query_x, task.query_y)):
        kinds = x.mean((2, 3)).argmax(1)
        assert x.shape[1:] == (3, 8, 8)
        assert len({*zip(y.tolist(), kinds.tolist(), strict=True)}) == 3


def test_grayscale_and_the_middle_of_oblong_images(tmp_path):
    (tmp_path / "a").mkdir()
    array = np.zeros((10, 30), np.uint8)
    array[:, 10:20] = 200
    Image.fromarray(array).save(tmp_path / "a" / "x.png")
    image = folder(tmp_path, 10, grayscale=True).images[np.array([0])]
    assert image.shape == (1, 1, 10, 10)
    assert (image == 200).all()


def test_deep_images_are_not_clipped(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((4, 4), 100 * 256, np.uint16)).save(tmp_path / "a" / "deep.png")
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "a" / "real.tiff")
    images = folder(tmp_path, 4).images
    assert (images[np.array([0])] == 100).all()
    with pytest.raises(DataError, match="mode F have no fixed range"):
        images[np.array([1])]


def test_splits(tmp_path):
    make(tmp_path / "train")
    make(tmp_path / "test", per_class=1)
    assert len(folder(tmp_path, split="train")) == 9
    assert repr(folder(tmp_path, split="test")).startswith(f"ImagePool({tmp_path.name}/test: 3 images")
    with pytest.raises(DataError, match="is divided into train, test; name one as split"):
        folder(tmp_path)
    with pytest.raises(DataError, match="no split 'val'"):
        folder(tmp_path, split="val")


def test_files_are_read_when_needed_and_once(tmp_path, monkeypatch):
    pool = folder(make(tmp_path), image_size=8)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or real(path))
    tasks = pool.sample(10**9, 2, 1, 1)
    assert not opened
    assert tasks[3].id == tasks[3].id
    assert len(opened) == 4


def test_refusals(tmp_path):
    with pytest.raises(DataError, match="no directory"):
        folder(tmp_path / "absent")
    with pytest.raises(DataError, match="has no image files in class directories"):
        folder(tmp_path)
    make(tmp_path / "set")
    (tmp_path / "set" / "dog" / "1.png").write_bytes(b"broken")
    pool = folder(tmp_path / "set")
    with pytest.raises(DataError, match=r"1\.png cannot be read as an image"):
        list(pool.sample(20, 3, 1, 2))
    (tmp_path / "set" / "elk").mkdir()
    with pytest.raises(DataError, match="elk has no image file"):
        folder(tmp_path / "set")
