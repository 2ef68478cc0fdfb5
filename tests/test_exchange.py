"""Arrays of other libraries come in without a copy, and scores go out to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast import Scores, Task, TaskError
from tlxml_fast.scores import TaskAxis


class Foreign:
    """An array that speaks DLPack and nothing else, as JAX's and CuPy's do."""

    def __init__(self, data: torch.Tensor):
        self.data = data

    def __dlpack__(self, **options):
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()


def test_a_task_of_foreign_arrays_shares_their_memory():
    x, y = torch.rand(4, 3), torch.tensor([0, 0, 1, 1], dtype=torch.int32)
    task = Task(Foreign(x), Foreign(y), Foreign(x), Foreign(y))
    assert task.support_x.data_ptr() == x.data_ptr()
    assert task.id == Task(x, y, x, y).id
    assert tlx.parse_task((Foreign(x), Foreign(y), Foreign(x), Foreign(y))).id == task.id
    assert (
        tlx.parse_tasks({"train": (Foreign(x[None]), Foreign(y[None]))} | {"test": (x[None], y[None])})[0].id
        == task.id
    )


def test_an_array_that_cannot_be_exchanged_is_named():
    x = torch.rand(2, 3, requires_grad=True)  # which DLPack refuses
    with pytest.raises(TaskError, match="support_x is not an array of numbers"):
        Task(Foreign(x), torch.arange(2), x, torch.arange(2))


def scores(per_query: bool = False) -> Scores:
    values = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    if per_query:
        values = torch.stack([values, torch.full_like(values, torch.nan)], 1)
        values[0, 1] = 7
    axes = [
        TaskAxis(tuple(f"{s}{i}" for i in range(n)), ("",) * n, tuple("ab" * n)[:n])
        for s, n in (("t", 2), ("j", 3))
    ]
    return Scores(values, *axes, torch.tensor([True, False, True]))


def test_scores_speak_dlpack():
    made = scores()
    assert np.from_dlpack(made).__array_interface__["data"][0] == made.values.data_ptr()


@pytest.mark.parametrize("per_query", [False, True])
def test_scores_as_xarray(per_query):
    pytest.importorskip("xarray")
    made = scores(per_query)
    array = made.to_xarray()
    assert array.dims == made.dims
    np.testing.assert_array_equal(array.values, made.values)
    assert float(array.sel(train="j2").isel(test=0).min()) == 2
    assert array.train_group.values.tolist() == ["a", "b", "a"]
    assert array.where(array.in_fit, drop=True).sizes["train"] == 2


@pytest.mark.parametrize("per_query", [False, True])
def test_scores_as_arrow(per_query):
    pytest.importorskip("pyarrow")
    table = scores(per_query).to_arrow()
    rows = table.to_pylist()
    assert len(rows) == (9 if per_query else 6)  # pairs that there are
    first = {"test": "t0", "train": "j2", "test_group": "a", "train_group": "a", "score": 2.0}
    assert rows[2] == (first | {"query": 0} if per_query else first)
