"""The embedded data set: which letters, what they look like, how they are divided and kept."""

from __future__ import annotations

import unicodedata
from collections import Counter
from importlib import import_module

import numpy as np
import pytest

from tlxml_fast.data import glyphs
from tlxml_fast.errors import DataError

SCRIPTS = {"latin", "georgian", "cyrillic", "armenian", "greek", "lao"}
module = import_module("tlxml_fast.data.glyphs")  # the package's attribute of that name is the function


def test_about_765_letters_of_six_scripts(all_glyphs):
    assert set(all_glyphs.groups) == SCRIPTS
    assert 700 < len(all_glyphs.classes) < 830  # the exact number follows matplotlib's fonts
    for name, script in zip(all_glyphs.classes, all_glyphs.groups, strict=True):
        char = unicodedata.lookup(name)
        assert name.split()[0] == script
        assert unicodedata.category(char).startswith("L")
        assert not unicodedata.decomposition(char)


def test_letters_that_look_alike_are_one_class(all_glyphs):
    assert "latin capital letter a" in all_glyphs.classes
    assert "greek capital letter alpha" not in all_glyphs.classes
    assert "cyrillic capital letter a" not in all_glyphs.classes
    assert len({image.tobytes() for image in all_glyphs.images}) == len(all_glyphs)


def test_faces():
    names = {path.stem for path in module._faces()}
    assert {"DejaVuSans", "DejaVuSerif-BoldItalic", "STIXGeneral"} <= names
    assert not any(name.startswith(("LastResort", "cm", "STIXNonUni", "STIXSiz")) for name in names)
    assert not any(name.endswith("Display") for name in names)


def test_every_class_has_eight_faces_of_four_examples(all_glyphs):
    counts = all_glyphs.source_counts
    assert set(np.unique(counts)) == {0, 4}
    assert (counts > 0).sum(1).min() >= 8


def test_pictures_are_white_on_black_centred_and_whole(all_glyphs):
    images = all_glyphs.images[:, 0].astype(float)
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    assert border.max() == 0
    assert 0.05 < images.mean() / 255 < 0.20  # Omniglot at this size: 0.08
    assert images.max((1, 2)).min() > 80
    grid = np.arange(28) - 13.5
    for axis in (1, 2):
        ink = images.sum(3 - axis)
        centre = (ink * grid).sum(1) / ink.sum(1)
        assert abs(centre.mean()) < 1
        assert np.abs(centre).max() < 7


def test_splits_are_disjoint_and_hold_each_script_in_proportion(all_glyphs, glyph_cache):
    splits = {name: glyphs(name, cache_dir=glyph_cache) for name in ("train", "val", "test")}
    names = [name for pool in splits.values() for name in pool.classes]
    assert sorted(names) == sorted(all_glyphs.classes)
    whole = Counter(all_glyphs.groups)
    for name, share in (("train", 0.64), ("val", 0.16), ("test", 0.20)):
        part = Counter(splits[name].groups)
        assert all(abs(part[script] - share * whole[script]) <= 1 for script in SCRIPTS)
        assert min(part.values()) >= 5  # 5-way tasks in every script and split


def test_tasks_stay_in_a_script_and_never_share_a_face(glyph_cache):
    pool = glyphs("test", cache_dir=glyph_cache)
    faces = {image.tobytes(): face for image, face in zip(pool.images, pool.sources, strict=True)}

    def seen(x):
        return {faces[image.tobytes()] for image in (x.numpy() * 255).round().astype(np.uint8)}

    tasks = pool.sample(60, ways=5, shots=5, queries=15, seed=3)
    assert set(tasks.groups) == SCRIPTS
    for task in tasks:
        assert task.name.startswith(f"{pool.split}-{task.group}-")
        assert seen(task.support_x).isdisjoint(seen(task.query_x))


def test_a_second_call_reads_what_the_first_one_wrote(all_glyphs, glyph_cache, monkeypatch):
    monkeypatch.setattr(module, "_render", lambda size: pytest.fail("rendered again"))
    again = glyphs("all")  # $TLXML_CACHE is that folder
    assert np.array_equal(again.images, all_glyphs.images)
    assert [path.suffix for path in glyph_cache.iterdir()] == [".npz"]


def test_rendering_is_repeatable_and_a_damaged_cache_is_rendered_again(few_letters, tmp_path):
    first = glyphs("all", 14, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="is damaged .* rendering again"):
        again = glyphs("all", 14, tmp_path)
    assert np.array_equal(first.images, again.images)
    assert first.image_size == 14
    np.savez_compressed(path, images=again.images, letters=[1], faces=[1])
    with pytest.warns(UserWarning, match="is damaged"):
        glyphs("all", 14, tmp_path)


def test_an_interrupted_write_leaves_nothing(few_letters, tmp_path, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module.np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        glyphs("all", 14, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said(few_letters, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert len(glyphs("all", 14, tmp_path / "file")) > 0


def test_what_is_not_there_is_refused():
    with pytest.raises(DataError, match="'valid' is none of train, val, test, all"):
        glyphs("valid")
    with pytest.raises(DataError, match="image_size 4"):
        glyphs(image_size=4)
