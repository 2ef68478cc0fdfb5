"""What other libraries hold becomes the same task; what could mean two things is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlxml_fast.errors import TaskError
from tlxml_fast.parse import parse_task, parse_tasks
from tlxml_fast.task import Task, TaskSet

WAYS, SHOTS, QUERIES = 3, 2, 4
FEATURES = (1, 4, 4)


def arrays(seed: int = 0, ways: int = WAYS, shots: int = SHOTS, queries: int = QUERIES):
    rng = torch.Generator().manual_seed(seed)
    xs = torch.rand(ways * shots, *FEATURES, generator=rng)
    xq = torch.rand(ways * queries, *FEATURES, generator=rng)
    return (
        xs,
        torch.arange(ways).repeat_interleave(shots),
        xq,
        torch.arange(ways).repeat_interleave(queries),
    )


def stacked(count: int):
    return tuple(torch.stack(parts) for parts in zip(*(arrays(i) for i in range(count)), strict=True))


def grid(parts):
    """HowToTrainYourMAML's form of a task: images first, a row a class, float labels, and a seed."""
    xs, ys, xq, yq = parts

    def rows(a):
        return a.reshape(WAYS, -1, *a.shape[1:])

    return rows(xs), rows(xq), rows(ys).float(), rows(yq).float(), 17


def numpy(parts):
    return tuple(part.numpy() for part in parts)


XS, YS, XQ, YQ = arrays()
SAME = {
    "support-query": ((XS, YS, XQ, YQ), {}),
    "list": ([XS, YS, XQ, YQ], {}),
    "numpy": (numpy(arrays()), {}),
    "int32 labels": ((XS, YS.int(), XQ, YQ.int()), {}),
    "images-first": ((XS, XQ, YS, YQ), {}),
    "torchmeta": ({"train": (XS, YS), "test": (XQ, YQ)}, {}),
    "torchmeta, collated to lists": ({"test": [XQ, YQ], "train": [XS, YS]}, {}),
    "easyfsl": ((XS, YS, XQ, YQ, [12, 5, 40]), {}),
    "easyfsl, ids as a tensor": ((XS, YS, XQ, YQ, torch.tensor([12, 5, 40])), {}),
    "howtotrainyourmaml": (grid(arrays()), {}),
    "named": ((XS, YS, XQ, YQ), {"layout": "support-query"}),
    "relabelled": ((XS, 10 * YS + 7, XQ, 10 * YQ + 7), {"relabel": True}),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_task_from_every_layout(case):
    obj, options = SAME[case]
    task = parse_task(obj, name="t", group="g", **options)
    assert task.id == Task(*arrays()).id
    assert (task.name, task.group) == ("t", "g")


BATCHES = {
    "support-query": stacked(3),
    "numpy": numpy(stacked(3)),
    "torchmeta": {"train": stacked(3)[:2], "test": stacked(3)[2:]},
    "images-first": tuple(stacked(3)[i] for i in (0, 2, 1, 3)),
    "list of tasks": [arrays(0), Task(*arrays(1)), {"train": arrays(2)[:2], "test": arrays(2)[2:]}],
    "loader of batches": iter([stacked(2), tuple(a[None] for a in arrays(2))]),
    "easyfsl loader": ((*arrays(i), [1, 2, 3]) for i in range(3)),
    "howtotrainyourmaml": tuple(
        torch.stack(a) if torch.is_tensor(a[0]) else torch.tensor(a)
        for a in zip(*(grid(arrays(i)) for i in range(3)), strict=True)
    ),
    "task set": TaskSet([Task(*arrays(i)) for i in range(3)]),
}


@pytest.mark.parametrize("case", BATCHES)
def test_the_same_tasks_from_every_batch(case):
    assert parse_tasks(BATCHES[case]).ids == [Task(*arrays(i)).id for i in range(3)]


def test_names_count_through_batches():
    tasks = parse_tasks([stacked(2), arrays(2)], name="new", group="g")
    assert tasks.names == ["new-0000", "new-0001", "new-0002"]
    assert set(tasks.groups) == {"g"}


def test_a_task_passes_through():
    task = Task(*arrays(), name="mine")
    assert parse_task(task) is task
    assert parse_tasks(task)[0] is task


def test_query_labels_may_be_unknown():
    assert parse_task((XS, YS, XQ, None)).query_y is None


# ---- unsplit data -----------------------------------------------------------------------------------


def unsplit(per_class: int, ways: int = WAYS):
    y = torch.arange(ways).repeat_interleave(per_class)
    return torch.arange(len(y)).float()[:, None], y


def test_alternate_is_learn2learns_rule():
    x, y = unsplit(2 * SHOTS)
    even = np.zeros(len(y), dtype=bool)
    even[np.arange(SHOTS * WAYS) * 2] = True
    task = parse_task((x, y), shots=SHOTS, split="alternate")
    assert torch.equal(task.support_x, x[even])
    assert torch.equal(task.query_x, x[~even])
    assert torch.equal(task.query_y, y[~even])


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_first_takes_the_first_of_each_class_in_any_order(ways, shots, queries, random):
    x, y = unsplit(shots + queries, ways)
    order = list(range(len(y)))
    random.shuffle(order)
    task = parse_task((x[order], y[order]), shots=shots, split="first")
    assert task.shots == (shots,) * ways
    for c in range(ways):
        found = [i for i in order if y[i] == c]
        assert task.support_x[task.support_y == c].flatten().tolist() == found[:shots]
        assert task.query_x[task.query_y == c].flatten().tolist() == found[shots:]


def test_unsplit_batch():
    x, y = unsplit(2 * SHOTS)
    tasks = parse_tasks((x.expand(3, -1, -1), y.expand(3, -1)), shots=SHOTS, split="alternate")
    assert [task.shots for task in tasks] == [(SHOTS,) * WAYS] * 3


# ---- refusals ---------------------------------------------------------------------------------------

SCALARS = torch.rand(6, 1)
REFUSED = {
    "nothing known": ((XS, YS, XQ), {}, "does not fit any known layout"),
    "not an object with arrays": (3, {}, "3 does not fit"),
    "wrong keys": ({"support": (XS, YS), "query": (XQ, YQ)}, {}, "does not fit any known layout"),
    "unknown layout": ((XS, YS, XQ, YQ), {"layout": "mine"}, "'mine' is none of"),
    "another layout": ((XS, YS, XQ, YQ), {"layout": "images-first"}, "does not fit layout 'images-first'"),
    "a batch": (stacked(3), {}, "is a batch of 3 tasks; use parse_tasks"),
    "two readings": ((SCALARS,) * 4, {}, "can be read as support-query.*images-first.*name one as layout="),
    "no shots": (unsplit(4), {}, "needs shots= and split="),
    "no split": (unsplit(4), {"shots": 2}, "needs shots= and split="),
    "unknown split": (unsplit(4), {"shots": 2, "split": "even"}, "'even' is none of alternate, first"),
    "uneven alternate": (
        unsplit(6),
        {"shots": 2, "split": "alternate"},
        "gives class 0 3 support examples, not 2",
    ),
    "too few": (unsplit(2), {"shots": 3, "split": "first"}, "gives class 0 2 support examples, not 3"),
    "no queries": (unsplit(2), {"shots": 2, "split": "first"}, "leaves no query examples"),
    "unsplit lengths": ((XS, YQ), {"shots": 1, "split": "first"}, "y has 12 labels for 6 examples"),
    "class ids": ((XS, YS + 5, XQ, YQ + 5), {}, "class 0 is missing from the support set"),
    "relabel a stranger": (
        (XS, YS, XQ, YQ + 9),
        {"relabel": True},
        "query_y has class 9, which support_y lacks",
    ),
    "shapes differ": ((XS, YS, XQ[..., :3], YQ), {}, "support_x and query_x differ in shape"),
    "lengths differ": ((XS, YS[:-1], XQ, YQ), {}, "support_y has shape"),
    "dtypes differ": ((XS, YS, XQ.double(), YQ), {}, "differ in dtype"),
    "bytes": (((255 * XS).byte(), YS, (255 * XQ).byte(), YQ), {}, "give floating point"),
    "NaN": ((XS * float("nan"), YS, XQ, YQ), {}, "support_x has NaN"),
    "objects": ((np.array([None] * 6), YS, XQ, YQ), {}, "not an array of numbers"),
    "easyfsl with too few ids": ((XS, YS, XQ, YQ, [1, 2]), {}, "does not fit any known layout"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_one_sentence_names_the_task_and_the_trouble(case):
    obj, options, message = REFUSED[case]
    with pytest.raises(TaskError, match=message) as caught:
        parse_task(obj, name="new", **options)
    assert str(caught.value).startswith("task 'new': ")


def test_an_ambiguous_object_is_read_as_named():
    a, b, c, d = (SCALARS + i for i in range(4))
    assert torch.equal(parse_task((a, b, c, d), layout="support-query").support_y, b)
    assert torch.equal(parse_task((a, b, c, d), layout="images-first").support_y, c)


def test_an_ambiguous_batch_is_read_as_named():
    obj = {"train": (SCALARS, SCALARS), "test": (SCALARS, SCALARS)}  # 6 examples, or 6 tasks of one
    with pytest.raises(TaskError, match=r"torchmeta .*, torchmeta-batch "):
        parse_tasks(obj)
    assert len(parse_tasks(obj, layout="torchmeta-batch")) == 6
    assert len(parse_tasks(obj, layout="torchmeta")) == 1


def test_an_item_that_fails_is_named():
    with pytest.raises(TaskError, match="'task-0001': query_y has label 7 out of range"):
        parse_tasks([arrays(), (XS, YS, XQ, YQ + 5)])


def test_a_pair_of_pairs_is_ambiguous():
    x, y = unsplit(4)
    for obj in (((x, y), (x, y)), [[x, y], [x, y]]):
        with pytest.raises(TaskError, match=r"one task, or as two unsplit .*layout=\"learn2learn\""):
            parse_tasks(obj, shots=1, split="first")
    assert len(parse_tasks(((x, y), (x, y)), shots=1, split="first", layout="learn2learn")) == 2
    assert len(parse_tasks([(x, y)] * 3, shots=1, split="first")) == 3


def test_one_task_or_a_batch_of_real_targets_is_ambiguous():
    x, y = torch.rand(4, 5, 1), torch.rand(4, 5)
    for parse in (parse_task, parse_tasks):
        with pytest.raises(TaskError, match=r"can be read as support-query .*support-query-batch"):
            parse((x, y, x, y))
    assert parse_task((x, y, x, y), layout="support-query").support_x.shape == (4, 5, 1)
    assert len(parse_tasks((x, y, x, y), layout="support-query-batch")) == 4
    one = {"train": (SCALARS, SCALARS), "test": (SCALARS, SCALARS)}  # not six tasks of one example
    assert len(parse_task(one).support_x) == 6
