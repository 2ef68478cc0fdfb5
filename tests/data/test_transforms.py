"""Changes made to tasks: what they change, what they keep, and that sets stay lazy."""

from __future__ import annotations

import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast.data import darken, noise, permute_classes, rotate
from tlxml_fast.errors import DataError
from tlxml_fast.task import Task, TaskSet


def task(i: int = 0) -> Task:
    rng = torch.Generator().manual_seed(i)
    x = torch.rand(40, 1, 8, 8, generator=rng) * 3 - 1
    y = torch.arange(20) % 5
    return Task(x[:20], y, x[20:], y, name=f"t{i}", group="g")


def test_noise_fills_the_range_of_its_task_and_keeps_the_rest():
    old, new = task(), noise(task())
    assert torch.equal(new.support_y, old.support_y)
    assert torch.equal(new.query_y, old.query_y)
    assert (new.name, new.group, new.shape) == ("t0-noise", "g", old.shape)
    x = torch.cat([new.support_x, new.query_x])
    assert -1 <= x.min() < -0.99
    assert 1.99 < x.max() <= 2
    pixels = x.flatten(1)
    assert (pixels.mean() - 0.5).abs() < 0.05
    assert torch.corrcoef(pixels).fill_diagonal_(0).abs().max() < 0.6  # independent images
    assert noise(task(), group="noise").group == "noise"


def test_noise_depends_on_seed_and_content_alone():
    assert noise(task()).id == noise(task().replace(name="other", group="")).id
    assert len({noise(task()).id, noise(task(), seed=1).id, noise(task(1)).id}) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_keeps_its_range(dtype):
    old = task()
    old = old.replace(support_x=old.support_x.to(dtype), query_x=old.query_x.to(dtype))
    new = noise(old)
    assert new.query_x.dtype == darken(old, 0.3).query_x.dtype == dtype
    for x in (new.support_x, new.query_x):
        assert x.min() >= min(old.support_x.min(), old.query_x.min())
        assert x.max() <= max(old.support_x.max(), old.query_x.max())


def test_darken():
    old, new = task(), darken(task(), 0.25)
    assert torch.equal(new.support_x, 0.75 * old.support_x)
    assert torch.equal(new.query_x, 0.75 * old.query_x)
    assert (new.name, new.group) == ("t0-dark0.25", "g")
    assert darken(old, 0).id == old.id
    assert not darken(old, 1).query_x.any()


@pytest.mark.parametrize(
    "change", [noise, lambda tasks: darken(tasks, 0.5), lambda tasks: rotate(tasks, 1), permute_classes]
)
def test_a_set_is_changed_lazily(change):
    made = []
    tasks = change(TaskSet.lazy(lambda i: made.append(i) or task(i), 10**9, "many"))
    assert isinstance(tasks, TaskSet)
    assert len(tasks) == 10**9
    assert made == []
    assert tasks[2].id == change(task(2)).id
    assert made == [2]


def test_rotate_turns_every_image():
    old, new = task(), rotate(task(), 1)
    assert torch.equal(
        new.support_x[3, 0, 0], old.support_x[3, 0, :, -1]
    )  # the right column becomes the top row
    assert (new.name, new.group) == ("t0-rot90", "g")
    assert rotate(rotate(old, 3), 1).id == rotate(old, 4).id == old.id


def test_renamed_classes_are_the_same_in_support_and_query():
    old, new = task(), permute_classes(task(), seed=2)
    pairs = set(zip(old.support_y.tolist(), new.support_y.tolist(), strict=True))
    assert len(pairs) == 5
    assert pairs == set(zip(old.query_y.tolist(), new.query_y.tolist(), strict=True))
    assert torch.equal(new.support_x, old.support_x)
    assert len({permute_classes(task(), seed=s).id for s in range(6)}) > 1


def test_a_protonet_does_not_see_renamed_classes_and_maml_does():
    tasks = TaskSet([task()])
    for learner, sees in (
        (tlx.ProtoNet(tlx.models.mlp(64, 4, 3, seed=0)), False),
        (tlx.MAML(tlx.models.mlp(64, 4, 5, seed=0)), True),
    ):
        before, after = (tlx.linearize(learner, t).losses() for t in (tasks, permute_classes(tasks, 1)))
        assert torch.allclose(before, after, rtol=1e-5) != sees


def test_features_cannot_be_turned():
    flat = Task(torch.rand(2, 3), torch.arange(2), torch.rand(2, 3), torch.arange(2), name="flat")
    with pytest.raises(DataError, match="task 'flat' has no images to turn"):
        rotate(flat, 1)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_is_a_share(alpha):
    with pytest.raises(DataError, match="must lie between 0 and 1"):
        darken(task(), alpha)


def test_a_negative_seed_is_refused():
    with pytest.raises(DataError, match="seed is -1"):
        noise(task(), seed=-1)
    with pytest.raises(DataError, match="seed is -1"):
        permute_classes(task(), seed=-1)
