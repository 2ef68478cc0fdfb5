"""Scores know their names and their sign."""

import numpy as np
import pytest
import torch

from tlxml_fast import CheckpointError, Scores, TlxError
from tlxml_fast.files import write_tensors
from tlxml_fast.scores import TaskAxis


def axis(prefix: str, n: int, groups: str = "") -> TaskAxis:
    names = tuple(f"{prefix}{i}" for i in range(n))
    return TaskAxis(names, tuple(f"id-{name}" for name in names), tuple(groups) or ("",) * n)


def made(values, target="loss", groups="abab", in_fit=(True, True, True, False)) -> Scores:
    values = torch.as_tensor(values, dtype=torch.float64)
    return Scores(
        values, axis("i", len(values)), axis("j", 4, groups), torch.tensor(in_fit), target, {"note": "α"}
    )


TWO = [[3.0, -1.0, 2.0, -4.0], [0.0, 0.0, -1.0, 5.0]]


def test_negative_influence_on_a_loss_is_helpful():
    helpful, harmful = made(TWO).helpful(2), made(TWO).harmful(2)
    assert helpful.indices.tolist() == [[3, 1], [2, 0]]  # equal scores keep the order of the tasks
    assert harmful.indices.tolist() == [[0, 2], [3, 0]]
    assert helpful.values[0].tolist() == [-4.0, -1.0]


@pytest.mark.parametrize("target", ["margin", "probability"])
def test_positive_influence_on_what_should_be_large_is_helpful(target):
    assert made(TWO, target=target).helpful(1).indices.tolist() == [[0], [3]]
    assert made(TWO, target=target).harmful(1).indices.tolist() == [[3], [2]]


@pytest.mark.parametrize("k", [0, 5])
def test_k_is_checked(k):
    with pytest.raises(TlxError, match="between 1 and the 4"):
        made(TWO).helpful(k)


def test_a_group_is_the_sum_of_its_tasks():
    grouped = made(TWO).group()
    assert grouped.train.names == ("a", "b")
    assert grouped.values.tolist() == [[5.0, -5.0], [-1.0, 5.0]]
    assert grouped.info["group_sizes"] == {"a": 2, "b": 2}
    assert grouped.in_fit.tolist() == [True, False]
    assert made(TWO).group(reduce="mean").values.tolist() == [[2.5, -2.5], [-0.5, 2.5]]
    assert made(TWO).group(["x"] * 4).values.tolist() == [[0.0], [4.0]]


def test_group_labels_are_checked():
    with pytest.raises(TlxError, match="2 group labels for 4"):
        made(TWO).group(["a", "b"])


def test_pandas_carries_the_names():
    frame = made(TWO).to_pandas()
    assert frame.loc["i0", "j3"] == -4.0
    assert (frame.index.name, frame.columns.name) == ("test", "train")


def test_pandas_per_query_leaves_padding_out():
    values = np.arange(24.0).reshape(2, 3, 4)
    values[1, 2] = np.nan
    frame = made(values).to_pandas()
    assert frame.index.names == ["test", "query"]
    assert len(frame) == 5


def test_dims_and_shape_are_checked():
    assert made(TWO).dims == ("test", "train")
    assert made(np.zeros((2, 3, 4))).dims == ("test", "query", "train")
    with pytest.raises(TlxError, match="2 test × 4 train"):
        Scores(torch.zeros(2, 3), axis("i", 2), axis("j", 4), torch.ones(4, dtype=torch.bool))


def test_saved_scores_come_back(tmp_path):
    scores = made(TWO)
    scores.save(tmp_path / "s.safetensors")
    twin = Scores.load(tmp_path / "s.safetensors")
    assert torch.equal(twin.values, scores.values)
    assert (twin.test, twin.train, twin.target, twin.info) == (
        scores.test,
        scores.train,
        "loss",
        {"note": "α"},
    )


def test_a_pickle_is_refused(tmp_path):
    torch.save({"values": torch.zeros(1)}, tmp_path / "s.pt")
    with pytest.raises(CheckpointError, match=r"s\.pt"):
        Scores.load(tmp_path / "s.pt")


@pytest.mark.parametrize("target", ["loss", "margin"])
def test_scores_that_are_no_numbers_come_last_at_both_ends(target):
    nan, inf = float("nan"), float("inf")
    scores = made([[nan, 1.0, inf, -inf]], target=target)
    up, down = [[3, 1, 2, 0]], [[2, 1, 3, 0]]
    assert scores.helpful(4).indices.tolist() == (up if target == "loss" else down)
    assert scores.harmful(4).indices.tolist() == (down if target == "loss" else up)
    assert scores.harmful(4).values[0, 3].isnan()


def test_an_infinite_score_stays_in_its_group():
    values = torch.tensor([[float("inf"), 1.0, 2.0, 3.0]], dtype=torch.float64)
    for given, want in ((values, [[float("inf"), 4.0]]), (values[:, None], [[[float("inf"), 4.0]]])):
        grouped = made(given).group().values
        assert grouped.dtype == torch.float64
        assert grouped.tolist() == want


@pytest.mark.parametrize(
    "header", [{}, {"test": {"names": 3}}, {"test": {}, "train": {}}, {"test": {"no": []}}, []]
)
def test_a_malformed_header_is_named(tmp_path, header):
    write_tensors(tmp_path / "odd", "scores", {}, header)
    with pytest.raises(CheckpointError, match="odd"):
        Scores.load(tmp_path / "odd")
