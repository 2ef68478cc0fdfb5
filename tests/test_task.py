"""Task refuses what cannot be used, in one sentence; TaskSet is a lazy list."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlxml_fast.errors import TaskError
from tlxml_fast.task import Task, TaskSet, TaskShape


def fields(**changed):
    kept = {
        "support_x": torch.linspace(0, 1, 24).reshape(4, 2, 3),
        "support_y": torch.tensor([0, 1, 0, 1]),
        "query_x": torch.linspace(1, 2, 18).reshape(3, 2, 3),
        "query_y": torch.tensor([1, 0, 1]),
        "name": "t",
    }
    return kept | changed


NAN = torch.full((4, 2, 3), float("nan"))
REFUSED = {
    "label too high": ({"query_y": torch.tensor([0, 1, 2])}, "query_y has label 2 out of range"),
    "label negative": ({"support_y": torch.tensor([0, -1, 0, 1])}, "support_y has a label out of range: -1"),
    "class missing": ({"support_y": torch.tensor([0, 2, 0, 2])}, "class 1 is missing from the support set"),
    "class far away": ({"support_y": torch.tensor([0, 1, 0, 10**9])}, "class 2 is missing"),
    "shapes differ": ({"query_x": torch.zeros(3, 3, 2)}, "support_x and query_x differ in shape"),
    "dtypes differ": ({"query_x": torch.zeros(3, 2, 3).double()}, "support_x and query_x differ in dtype"),
    "empty support": ({"support_x": torch.zeros(0, 2, 3)}, "support_x is empty"),
    "empty query": ({"query_x": torch.zeros(0, 2, 3)}, "query_x is empty"),
    "NaN": ({"support_x": NAN}, "support_x has NaN or infinite"),
    "infinite": ({"query_x": torch.full((3, 2, 3), float("inf"))}, "query_x has NaN or infinite"),
    "bytes": ({"support_x": torch.zeros(4, 2, 3).byte()}, "support_x has dtype torch.uint8"),
    "lengths": ({"support_y": torch.tensor([0, 1, 0])}, r"support_y has shape \(3,\) for 4 examples"),
    "label columns": ({"support_y": torch.tensor([[0], [1], [0], [1]])}, "labels are one-dimensional"),
    "missing": ({"support_y": None}, "support_y is missing"),
    "not numbers": ({"support_x": np.array(["a"] * 4)}, "support_x is not an array of numbers"),
    "mixed kinds": ({"query_y": torch.zeros(3)}, "query_y has dtype torch.float32"),
    "NaN targets": ({"support_y": NAN[:, 0, 0], "query_y": torch.zeros(3)}, "support_y has NaN or infinite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_the_task_and_the_field(case):
    changed, message = REFUSED[case]
    with pytest.raises(TaskError, match=f"task 't': .*{message}"):
        Task(**fields(**changed))


def test_shape_and_sizes():
    task = Task(**fields())
    assert task.shape == TaskShape(2, 4, 3, (2, 3), torch.float32, False, True)
    assert (task.ways, task.shots, task.label) == (2, (2, 2), "t")
    assert str(task.shape) == "2-way, 4 support + 3 query of 2×3"


def test_regression_and_unlabelled():
    task = Task(**fields(support_y=torch.zeros(4, 5), query_y=torch.zeros(3, 5)))
    assert task.regression
    assert task.ways == 5
    assert not Task(**fields(query_y=None)).shape.labelled


def test_numpy_arrays_are_not_copied():
    x = np.zeros((4, 2, 3), np.float32)
    assert Task(**fields(support_x=x)).support_x.data_ptr() == x.__array_interface__["data"][0]


def test_gradients_do_not_follow_a_task():
    assert not Task(**fields(support_x=torch.zeros(4, 2, 3, requires_grad=True))).support_x.requires_grad


def test_id_is_of_the_content_alone():
    task = Task(**fields())
    strided = task.support_x.transpose(0, 1).contiguous().transpose(0, 1)
    assert task.id == Task(**fields(name="other", group="g", support_x=strided)).id
    assert task.id == Task(**fields(support_y=torch.tensor([0, 1, 0, 1], dtype=torch.int16))).id
    others = [
        {"support_x": task.support_x + 1},
        {"support_y": torch.tensor([1, 0, 0, 1])},
        {"query_y": None},
        {"support_x": task.support_x.reshape(4, 3, 2), "query_x": task.query_x.reshape(3, 3, 2)},
        {"support_x": task.support_x.double(), "query_x": task.query_x.double()},
    ]
    assert len({task.id, *(Task(**fields(**other)).id for other in others)}) == 1 + len(others)


def test_replace_validates_again():
    task = Task(**fields())
    assert task.replace(name="new").id == task.id
    with pytest.raises(TaskError, match="query_y"):
        task.replace(query_y=torch.tensor([0, 0, 5]))


# ---- TaskSet ----------------------------------------------------------------------------------------


def numbered(i: int) -> Task:
    return Task(**fields(support_x=torch.full((4, 2, 3), float(i)), name=f"n{i}", group=f"g{i % 2}"))


def lazy(length: int) -> TaskSet:
    return TaskSet.lazy(numbered, length, "numbers")


@given(st.integers(0, 6), st.slices(6), st.lists(st.integers(-6, 5), max_size=4))
def test_indexing_is_that_of_a_list(length, window, positions):
    tasks, names = lazy(length), [f"n{i}" for i in range(length)]
    assert tasks.names == names
    assert tasks[window].names == names[window]
    positions = [p for p in positions if -length <= p < length]
    for index in (positions, np.array(positions, int), torch.tensor(positions, dtype=torch.long)):
        assert tasks[index].names == [names[p] for p in positions]
    assert (tasks + tasks[window]).names == names + names[window]
    with pytest.raises(IndexError):
        tasks[length]
    with pytest.raises(IndexError):
        tasks[-length - 1]


def test_nothing_is_made_before_it_is_asked_for():
    made = []
    tasks = TaskSet.lazy(lambda i: made.append(i) or numbered(i), 10**9)
    tail = (tasks[5::2] + tasks).map(lambda task: task.replace(group="new"))
    assert len(tail) > 10**9
    assert made == []
    task = tail[1]
    assert (task.name, task.group, made) == ("n7", "new", [7])


def test_masks_groups_and_ids():
    tasks = lazy(4)
    assert tasks[np.array([True, False, False, True])].names == ["n0", "n3"]
    assert tasks.groups == ["g0", "g1", "g0", "g1"]
    assert len(set(tasks.ids)) == 4


def test_only_tasks_are_held():
    with pytest.raises(TaskError, match="item 1 of the task set is a int"):
        TaskSet([numbered(0), 3])
    with pytest.raises(TaskError, match="cannot have -1 tasks"):
        lazy(-1)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(IndexError, match="a mask of 2 for a set of 4 tasks"):
        lazy(4)[np.array([True, False])]


def test_an_index_error_inside_make_does_not_end_the_set():
    with pytest.raises(IndexError):
        list(TaskSet.lazy([numbered(0)].__getitem__, 2))
