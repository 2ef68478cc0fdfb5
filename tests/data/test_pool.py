"""Tasks drawn from a pool: what they hold, what they depend on, and what is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlxml_fast.data import ImagePool
from tlxml_fast.errors import DataError


def pool(per_class: int = 8, classes: int = 6, sources: bool = False, **options) -> ImagePool:
    """Image i is of one grey, i, so that a task's pixels tell which images it took."""
    n = per_class * classes
    labels = np.repeat(np.arange(classes), per_class)
    images = np.arange(n, dtype=np.uint8)[:, None, None, None].repeat(2, 2).repeat(2, 3)
    groups = ["a" if c < classes - 1 else "b" for c in range(classes)]
    faces = np.tile(np.arange(per_class) // 2, classes) if sources else None
    return ImagePool(images, labels, [f"class {c}" for c in range(classes)], groups, faces, **options)


def taken(x: torch.Tensor) -> list[int]:
    return (x[:, 0, 0, 0] * 255).round().int().tolist()


@given(
    ways=st.integers(1, 5),
    shots=st.integers(1, 4),
    queries=st.integers(1, 4),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 10**9 - 1),
    sources=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_task_is_what_was_asked_for(ways, shots, queries, seed, index, sources):
    task = pool(sources=sources).sample(10**9, ways, shots, queries, seed)[index]
    assert task.support_x.shape == (ways * shots, 1, 2, 2)
    assert task.support_x.dtype == torch.float32
    assert task.shots == (shots,) * ways
    assert torch.bincount(task.query_y).tolist() == [queries] * ways
    support, query = taken(task.support_x), taken(task.query_x)
    assert len({*support, *query}) == ways * (shots + queries)  # no image twice
    of = {label: image // 8 for label, image in zip(task.support_y.tolist(), support, strict=True)}
    assert len(set(of.values())) == ways
    assert [of[label] for label in task.query_y.tolist()] == [image // 8 for image in query]
    if sources:
        assert {i % 8 // 2 for i in support}.isdisjoint({i % 8 // 2 for i in query})


def test_an_index_gives_one_task_whatever_else_happens():
    first = pool().sample(3, 5, 1, 2, seed=4)
    ids = first.ids
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state is what must not matter
    torch.manual_seed(1)
    longer = pool().sample(10**9, 5, 1, 2, seed=4)
    assert [longer[i].id for i in (2, 0, 1)] == [ids[i] for i in (2, 0, 1)]
    assert len(set(ids)) == 3
    assert pool().sample(1, 5, 1, 2, seed=5)[0].id != ids[0]


def test_label_order_carries_no_information():
    tasks = pool().sample(200, 2, 1, 1)
    ascending = [images[0] < images[1] for images in (taken(task.support_x) for task in tasks)]
    assert 60 < sum(ascending) < 140


def test_groups():
    grouped = pool(within_groups=True).sample(12, 5, 1, 1)
    assert set(grouped.groups) == {"a"}  # b has a single class
    assert grouped[3].name == "all-a-0003"
    mixed = pool(within_groups=True).sample(40, 2, 1, 1, within_groups=False)
    assert mixed[7].name == "all-0007"
    assert mixed.groups == [""] * 40
    assert any(max(taken(task.support_x)) >= 40 for task in mixed)  # class 5, of group b


def test_groups_are_drawn_evenly_whatever_their_size():
    drawn = pool(within_groups=True).sample(200, 1, 1, 1).groups
    assert 60 < drawn.count("b") < 140


REFUSED = {
    "ways": ({"ways": 7}, "a 7-way task needs 7 classes, it has 6"),
    "ways within a group": ({"ways": 6, "within_groups": True}, "its largest group, 'a', has 5"),
    "images": ({"queries": 8}, "class 'class 0' has 8 images, a task takes 1 for support and 8 for query"),
    "no shots": ({"shots": 0}, "shots is 0"),
    "seed": ({"seed": -1}, "seed is -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_drawn_is_refused_before_drawing(case):
    changed, message = REFUSED[case]
    with pytest.raises(DataError, match=f"toy/train: .*{message}"):
        pool(name="toy", split="train").sample(
            **({"n_tasks": 1, "ways": 2, "shots": 1, "queries": 1} | changed)
        )


def test_a_class_whose_sources_cannot_serve_both_sides_is_refused():
    labels, faces = [0] * 6 + [1] * 6, [0, 0, 0, 1, 1, 1] * 2
    two = ImagePool(np.zeros((12, 1, 2, 2), np.uint8), labels, ["x", "y"], sources=faces)
    assert two.sample(4, 2, 3, 3)[3].shots == (3, 3)
    with pytest.raises(DataError, match=r"class 'x' has 6 images from 2 sources.*no source can serve both"):
        two.sample(1, 2, 2, 4)


def test_classes_whose_sources_do_not_go_together_are_named():
    labels, faces = [0] * 4 + [1] * 4, [0, 0, 0, 1, 0, 1, 1, 1]
    two = ImagePool(np.zeros((8, 1, 2, 2), np.uint8), labels, ["x", "y"], sources=faces)
    with pytest.raises(DataError, match=r"gives each of '[xy]', '[xy]' 3 \+ 1 images"):
        two.sample(1, 2, 3, 1)[0]


def test_select():
    chosen = pool(name="toy").select(["class 4", 1], split="mine")
    assert (chosen.classes, chosen.groups) == (("class 4", "class 1"), ("a", "a"))
    assert len(chosen) == 16
    assert {i // 8 for i in taken(chosen.sample(1, 2, 4, 4)[0].support_x)} == {1, 4}
    assert repr(chosen) == "ImagePool(toy/mine: 16 images of 1×2×2, 2 classes in 1 groups)"
    assert chosen.select([1]).classes == ("class 1",)
    for wanted, message in (
        (["class 9"], "no class 'class 9'"),
        ([0, "class 0"], "selected twice"),
        ([6], "6"),
    ):
        with pytest.raises(DataError, match=message):
            pool().select(wanted)


X = np.zeros((2, 1, 2, 2), np.uint8)
MISFITS = {
    "dimensions": ((X[0], [0], ["a"]), "not \\[N, C, H, W\\]"),
    "dtype": ((X.astype(float), [0, 1], ["a", "b"]), "dtype float64, not uint8"),
    "labels": ((X, [0], ["a"]), "2 images and labels"),
    "range": ((X, [0, 1], ["a"]), "a label lies outside"),
    "empty": ((X, [0, 0], ["a", "b"]), "class 'b' has no image"),
    "twice": ((X, [0, 1], ["a", "a"]), "the same name"),
    "groups": ((X, [0, 1], ["a", "b"], ["g"]), "2 classes and 1 groups"),
    "sources": ((X, [0, 1], ["a", "b"], None, [0]), "2 images and sources"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_parts_that_do_not_fit_are_refused(case):
    parts, message = MISFITS[case]
    with pytest.raises(DataError, match=message):
        ImagePool(*parts)
