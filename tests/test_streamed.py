"""Streamed scores answer as `Scores` do, without the matrix."""

import json
from dataclasses import replace

import pytest
import torch
from streaming import DTYPES, SHAPES, assert_same, problem

from tlxml_fast import Scores, TlxError
from tlxml_fast.distributed import World
from tlxml_fast.memory import limited
from tlxml_fast.reductions import Ends, GroupSums, Reduction
from tlxml_fast.scores import TaskAxis
from tlxml_fast.streamed import StreamedScores
from tlxml_fast.tiles import Tile, tiles

inf, nan = torch.inf, torch.nan


def streamed(X, blocks, groups=None, target="loss", in_fit=None):
    N = sum(map(len, blocks))
    groups = tuple(groups or ("",) * N)
    names = [tuple(f"{side}{i}" for i in range(count)) for side, count in (("i", len(X)), ("j", N))]
    test, train = TaskAxis(names[0], names[0], ("",) * len(X)), TaskAxis(names[1], names[1], groups)
    in_fit = torch.ones(N, dtype=torch.bool) if in_fit is None else in_fit
    return StreamedScores(X, blocks, test, train, in_fit, target, {"note": "α"})


def dense(scores: StreamedScores, values) -> Scores:
    return Scores(values.double(), scores.test, scores.train, scores.in_fit, scores.target, dict(scores.info))


# ---- rankings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["loss", "margin"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rankings_are_those_of_the_dense_scores(shape, target):
    X, _, blocks = problem(*shape)
    scores = streamed(X, blocks, target=target)
    all_of_them = scores.materialize()
    for k in {1, min(9, len(scores.train)), min(1024, len(scores.train))}:
        assert_same(scores.helpful(k), all_of_them.helpful(k))
        assert_same(scores.harmful(k), all_of_them.harmful(k))


@pytest.mark.parametrize("target", ["loss", "margin"])
def test_ties_and_what_is_no_number_rank_as_in_scores(target):
    X = torch.tensor([[1.0, 0.0], [nan, 0.0], [inf, 0.0], [-1.0, 1.0]])
    g = torch.tensor(
        [[2.0, 1.0], [nan, 0.0], [2.0, 0.0], [-2.0, 0.0], [inf, 0.0], [-inf, 1.0], [2.0, 3.0], [0.0, 0.0]]
    )
    scores = streamed(X, list(g.split(3)), target=target)
    want = dense(scores, -(X[:, None] * g).sum(-1))
    for k in (1, 4, 8):
        assert_same(scores.helpful(k), want.helpful(k))
        assert_same(scores.harmful(k), want.harmful(k))


def test_both_ends_take_one_pass_and_smaller_rankings_none(monkeypatch):
    passes = []
    monkeypatch.setattr("tlxml_fast.reductions.tiles", lambda *a: passes.append(1) or tiles(*a))
    scores = streamed(*problem(3, 5, (40, 60))[::2])
    best = scores.ranked(6)
    assert_same(scores.helpful(6), best.helpful)
    assert_same(scores.harmful(2), [x[:, :2] for x in best.harmful])
    assert len(passes) == 1
    scores.ranked(7)
    assert len(passes) == 2


def test_several_questions_in_one_pass():
    X, _, blocks = problem(3, 5, (40, 60))
    scores = streamed(X, blocks, groups=["a", "b"] * 50)
    ends, sums = scores.reduce(Ends(5), GroupSums(torch.arange(100) % 2, 2))
    assert_same(scores.both_ends(ends).helpful, scores.helpful(5))
    assert torch.equal(sums.values, scores.group().values)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "stored"), DTYPES)
def test_on_a_device(dtype, stored):
    X, _, blocks = problem(13, 33, (7, 0, 1000, 5), dtype, stored)
    got, want = streamed(X.cuda(), blocks, groups=["a"] * 1012), streamed(X, blocks, groups=["a"] * 1012)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(got.values, want.values, **close)
    torch.testing.assert_close(got.helpful(9).values, want.helpful(9).values, **close)
    torch.testing.assert_close(got.group().values, want.group().values, **close)


# ---- groups, extents, the matrix ----------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_groups_are_those_of_the_dense_scores(reduce):
    X, _, blocks = problem(4, 6, (100, 57, 900))
    in_fit = torch.arange(1057) % 5 > 0
    groups = [str(i * i % 7) for i in range(1057)]
    scores = streamed(X, blocks, groups, in_fit=in_fit)
    for labels in (None, [i % 3 for i in range(1057)]):
        got, want = scores.group(labels, reduce), scores.materialize().group(labels, reduce)
        torch.testing.assert_close(got.values, want.values, rtol=1e-13, atol=1e-13)
        assert (got.test, got.train, got.target, got.info) == (want.test, want.train, want.target, want.info)
        assert torch.equal(got.in_fit, want.in_fit)


def test_group_sums_do_not_depend_on_the_cut():
    X, gradients, _ = problem(4, 6, (3000,))
    labels = [str(i % 11) for i in range(3000)]
    want = streamed(X, [gradients]).group(labels).values
    assert torch.equal(streamed(X, list(gradients.split(7))).group(labels).values, want)


def test_an_infinite_score_stays_in_its_group():
    g = torch.tensor([[inf, 0.0], [1.0, 1.0]])
    scores = streamed(torch.ones(1, 2), [g], groups=["a", "b"])
    assert scores.group().values.tolist() == [[-inf, -2.0]]


def test_extent():
    X, _, blocks = problem(4, 6, (100, 57))
    scores = streamed(X, blocks)
    values = scores.values
    least, greatest, mean = scores.extent()
    assert torch.equal(least, values.amin(1))
    assert torch.equal(greatest, values.amax(1))
    torch.testing.assert_close(mean, values.mean(1), rtol=1e-12, atol=1e-12)
    X[0] = nan
    assert all(x[0].isnan() for x in streamed(X, blocks).extent())


@pytest.mark.parametrize("columns", [1, 50, 157, 1000])
def test_tiles_of_any_width(columns):
    scores = streamed(*problem(4, 6, (100, 57))[::2])
    found = list(scores.tiles(columns))
    assert [tile.first for tile in found] == list(range(0, 157, columns))
    assert torch.equal(torch.cat([tile.values for tile in found], 1).double(), scores.values)


def test_queries_are_a_dimension():
    X, _, blocks = problem(6, 5, (40, 60))
    X = X.reshape(2, 3, 5)
    X[1, 2] = nan  # the second test task has two queries
    scores = streamed(X, blocks, groups=["a", "b"] * 50)
    want = scores.materialize()
    assert want.values.shape == (2, 3, 100)
    assert want.values[1, 2].isnan().all()
    assert scores.dims == want.dims == ("test", "query", "train")
    assert_same(scores.harmful(3), want.harmful(3))
    torch.testing.assert_close(scores.group().values, want.group().values, equal_nan=True)
    assert next(scores.tiles(10)).values.shape == (2, 3, 10)
    assert scores.extent().mean.shape == (2, 3)


def test_what_is_saved_comes_back_as_scores(tmp_path):
    scores = streamed(*problem(4, 6, (100, 57))[::2])
    scores.save(tmp_path / "s.safetensors")
    twin = Scores.load(tmp_path / "s.safetensors")
    assert torch.equal(twin.values, scores.values)
    assert (twin.test, twin.train) == (scores.test, scores.train)
    assert twin.info["note"] == "α"
    assert twin.info["tiles"]["stored"] == ["float32"]


def test_a_matrix_beyond_the_limit_is_refused():
    scores = streamed(*problem(4, 6, (100, 57))[::2])
    with limited(1 << 20), pytest.raises(TlxError, match=r"a matrix of 4 × 157 scores needs"):
        scores.materialize()


def test_it_says_what_it_is():
    scores = streamed(*problem(4, 6, (1000, 57))[::2])
    assert repr(scores) == "StreamedScores(4 test × 1,057 train, target='loss')"


# ---- what is refused ----------------------------------------------------------------------------


def test_bad_input_is_named():
    X, _, blocks = problem(4, 6, (100, 57))
    with pytest.raises(TlxError, match=r"block 1 .* has shape \(57, 5\), expected \[tasks, 6\]"):
        streamed(X, [blocks[0], blocks[1][:, :5]])
    with pytest.raises(TlxError, match=r"block 0 .* is torch\.float64, which torch\.float32"):
        streamed(X, [blocks[0].double()])
    with pytest.raises(TlxError, match=r"block 0 .* is torch\.int32"):
        streamed(X, [blocks[0].int()])
    with pytest.raises(TlxError, match=r"not torch\.bfloat16"):
        streamed(X.bfloat16(), blocks)
    with pytest.raises(TlxError, match=r"of shape \(6,\) for 6 test"):
        streamed(X[0], blocks)
    scores = streamed(X, blocks)
    for k in (0, 158):
        with pytest.raises(TlxError, match="between 1 and the 157 training"):
            scores.helpful(k)
    with pytest.raises(TlxError, match="k = 1025 is not between 1 and 1024"):
        streamed(X, blocks * 10).helpful(1025)
    with pytest.raises(TlxError, match="3 group labels for 157"):
        scores.group(["a"] * 3)
    with pytest.raises(TlxError, match="at least one column, not 0"):
        next(scores.tiles(0))
    with pytest.raises(TlxError, match="157 training gradients, 157 marks in in_fit and 156"):
        StreamedScores(X, blocks, scores.test, TaskAxis(*(("",) * 156,) * 3), scores.in_fit)


def test_ends_per_query_as_json(tmp_path):
    X, _, blocks = problem(*SHAPES[3])
    scores = streamed(torch.stack([X, 2 * X, -X], 1), blocks, target="margin")
    scores.save_ranked(tmp_path / "ranking.json", 2)
    found = json.loads((tmp_path / "ranking.json").read_text())
    ends = scores.ranked(2)
    for i, test in enumerate(found["test"]):
        for j, query in enumerate(test["queries"]):
            for end, ranking in zip(ends._fields, ends, strict=True):
                assert [row["position"] for row in query[end]] == ranking.indices[i, j].tolist()
                assert [row["score"] for row in query[end]] == ranking.values[i, j].tolist()


def test_what_did_not_converge_is_marked():
    X, _, blocks = problem(*SHAPES[3])
    scores = replace(streamed(X, blocks), info={"certificate": {"converged": False}})
    assert repr(scores).endswith(", not converged)")
    assert not scores.converged
    assert not scores.materialize().converged
    assert streamed(X, blocks).converged


class Least:
    """A reduction that several processes cannot join."""

    def start(self, X: torch.Tensor) -> None:
        self.least = torch.inf

    def update(self, tile: Tile) -> None:
        self.least = min(self.least, float(tile.values.min()))


class Inherits(Least, Reduction):
    pass


@pytest.mark.parametrize("kind", [Least, Inherits])
def test_of_several_processes_a_reduction_has_to_join(kind):
    X, _, blocks = problem(*SHAPES[3])
    scores = streamed(X, blocks)
    assert scores.reduce(kind())[0].least == scores.values.min()
    with pytest.raises(TlxError, match=f"{kind.__name__} has no `join`: each of 2 processes"):
        replace(scores, world=World(0, 2)).reduce(kind())
