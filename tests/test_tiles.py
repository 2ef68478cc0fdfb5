"""Tiles are the dense product, for any cut, and so is what is kept of them; files are mapped, not read into memory."""

import json
import os
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from streaming import DTYPES, SHAPES, assert_same, problem, values_of

from tlxml_fast import CheckpointError, TlxError
from tlxml_fast.benchmarks import tiles as benchmark
from tlxml_fast.benchmarks.tiles_memory import peak
from tlxml_fast.gemm import mm_nt
from tlxml_fast.mapped import TensorFiles
from tlxml_fast.ops.topk import topk
from tlxml_fast.reductions import merged, ranked
from tlxml_fast.tiles import tiles

inf, nan = torch.inf, torch.nan


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# ---- the product --------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "stored"), DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_are_the_dense_product(shape, dtype, stored):
    X, gradients, blocks = problem(*shape, dtype, stored)
    truth = -(X.double() @ gradients.double().T)
    bound = 4 * torch.finfo(dtype).eps * (X.double().abs() @ gradients.double().abs().T)
    got = values_of(X, blocks)
    assert got.dtype == dtype
    assert ((got.double() - truth).abs() <= bound).all()


def test_tiles_come_in_order_and_on_from_the_first():
    X, _, blocks = problem(3, 4, (1000, 1, 0, 500_000))
    found = [(tile.first, tile.values.shape[1]) for tile in tiles(X, blocks, first=10)]
    assert found[0][0] == 10
    assert all(a + m == b for (a, m), (b, _) in pairwise(found))
    assert sum(m for _, m in found) == 501_001
    assert len(found) > 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 30, 1024])
def test_bits_depend_on_the_pair_alone(d, dtype, threads):
    X, gradients, _ = problem(21, d, (1500,), dtype)
    want = values_of(X, [gradients])
    for rows in (1, 47, 500, 1499):
        assert torch.equal(values_of(X, gradients.split(rows)), want)
    for row in (0, 20):
        assert torch.equal(values_of(X[row : row + 1], [gradients]), want[row : row + 1])
    for count in (1, 2, 3):
        threads(count)
        assert torch.equal(values_of(X, [gradients]), want)


def test_strides_do_not_matter():
    X, gradients, _ = problem(5, 30, (700,))
    wide = torch.full((700, 60), nan)
    wide[:, ::2] = gradients
    assert torch.equal(values_of(X.T.contiguous().T, [wide[:, ::2]]), values_of(X, [gradients]))


def test_the_callers_threads_come_back():
    X, _, blocks = problem(3, 4, (100_000,))
    before = torch.get_num_threads()
    running = tiles(X, blocks)
    next(running)
    running.close()
    assert torch.get_num_threads() == before


def test_mm_nt_is_a_product():
    A, B = torch.randn(8, 33), torch.randn(48, 33)
    torch.testing.assert_close(mm_nt(A, B).double(), A.double() @ B.double().T, rtol=1e-5, atol=1e-5)


# ---- parts of processes ---------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 30, 200])
def test_parts_of_processes_merge_into_one(k, largest):
    g = torch.Generator().manual_seed(1)
    values = torch.randint(9, (4, 300), generator=g).float()
    values[1, ::3] = nan
    values[2] = nan
    values[3] = inf if not largest else -inf  # as empty places hold, yet scores
    cuts = [0, 10, 11, 200, 300]
    parts = [topk(values[:, a:b], k, first=a, largest=largest) for a, b in pairwise(cuts)]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        assert_same(merged([parts[i] for i in order], largest), topk(values, k, largest=largest))
    assert_same(merged(parts[:2], largest), topk(values[:, :11], k, largest=largest))  # places stay empty


def test_processes_with_columns_of_their_own_find_the_same():
    X, gradients, blocks = problem(6, 20, (500, 700, 900))
    whole = ranked(X, [gradients], 12)
    parts = [ranked(X, blocks[:1], 12), ranked(X, blocks[1:], 12, first=500)]
    assert_same(merged([part.largest for part in parts], True), whole.largest)
    parts.append(ranked(X, [], 12))  # more processes than shards
    assert_same(merged([part.smallest for part in parts], False), whole.smallest)


def test_parts_that_differ_are_refused():
    one, other = (topk(torch.randn(2, 9), k) for k in (2, 3))
    with pytest.raises(TlxError, match="2 partial rankings of 2 different"):
        merged([one, other], True)


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_files_are_mapped_a_window_at_a_time(tmp_path, stored):
    X, gradients, blocks = problem(4, 6, (100, 57, 1), stored=stored)
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for path, block in zip(paths, blocks, strict=True):
        save_file({"other": torch.zeros(3), "gradients": block.contiguous()}, path)
    row = 6 * gradients.itemsize
    for window in (1, 10 * row, 1 << 20):
        files = TensorFiles(paths, "gradients", window)
        assert torch.equal(torch.cat(list(files)), gradients)
        assert all(part.nbytes <= max(window, row) for part in files)
        assert torch.equal(values_of(X, files), values_of(X, blocks))
    assert torch.equal(files[-1], blocks[-1])


def test_files_that_cannot_be_mapped_are_named(tmp_path):
    save_file({"gradients": torch.zeros(3, 2), "one": torch.tensor(1.0)}, tmp_path / "a")
    for path, name in (("a", "rows"), ("b", "gradients"), ("a", "one")):
        with pytest.raises(CheckpointError, match=f"{name}.*{path}"):
            TensorFiles([tmp_path / path], name)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_memory_seen_from_outside_does_not_grow_with_the_files(tmp_path):
    some = torch.randn(1000, 1024).bfloat16().repeat(125, 1)  # 256 MB
    paths = [tmp_path / f"{i}.safetensors" for i in range(5)]
    for path in paths:
        save_file({"gradients": some}, path)
    one, all_of_them = peak(paths[:1], "gradients", 128), peak(paths, "gradients", 128)
    assert all_of_them < 1 << 30  # less than there is in files
    assert all_of_them < one + (256 << 20)  # names of 500,000 tasks and their groups


# ---- the benchmark ------------------------------------------------------------------------------


def test_the_baseline_of_the_benchmark_is_right():
    X, _, blocks = problem(4, 6, (100, 57))
    smallest, largest = benchmark.plain(X, blocks, 9)
    ends = ranked(X, blocks, 9)
    for got, want in ((smallest, ends.smallest), (largest, ends.largest)):
        assert torch.equal(got.indices, want.indices)
        torch.testing.assert_close(got.values, want.values)


def test_what_is_wrong_is_not_timed(monkeypatch):
    X, gradients, _ = problem(4, 6, (100,))
    assert benchmark.validate(X, gradients, 5) < 1e-6
    monkeypatch.setattr(benchmark, "ranked", lambda X, blocks, k: ranked(X + 1e-3, blocks, k))
    with pytest.raises(ValueError, match="are not timed"):
        benchmark.validate(X, gradients, 5)


@pytest.mark.slow
def test_the_benchmark_writes_what_it_promises(tmp_path):
    work = benchmark.Work(n=3, N=500, d=16, k=5, files=2)
    found = benchmark.run(tmp_path, work, rounds=1)
    assert json.loads((tmp_path / "tiles.json").read_text())["share"] == found["share"]
    text = (tmp_path / "tiles.md").read_text()
    assert all(name in text for name in found["share"])
    assert found["peak_bytes"] > 50 << 20
