"""The benchmark: its baselines are right, a wrong contestant is not timed, a run writes what it promises."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

import tlxml_fast as tlx
from tlxml_fast.benchmarks import arithmetic, baselines, figures, memory, scaling, tables
from tlxml_fast.benchmarks import run as bench
from tlxml_fast.benchmarks.cases import BASELINES, CASES, GENERAL, GRADIENTS, Case, Goal, mlp_learner, tiny
from tlxml_fast.benchmarks.cg import conjugate_gradients
from tlxml_fast.benchmarks.dense import DENSE, DenseCase
from tlxml_fast.benchmarks.general import CG, PRODUCTS, PULL_BACKS, output_factor
from tlxml_fast.benchmarks.machine import described, sentence
from tlxml_fast.benchmarks.measure import OURS, Settings, contest, validate
from tlxml_fast.benchmarks.scaling import Power, Sweep
from tlxml_fast.benchmarks.tasks import random_tasks
from tlxml_fast.ops import native_available
from tlxml_fast.planning.work import Passes, multiply_adds
from tlxml_fast.profiling import Peaks

needs_core = pytest.mark.skipif(not native_available(), reason="no core")
SETTINGS = Settings(seed=0, rounds=2, seconds=0.1, reached=Peaks(1e11, 1e10))
PNG = b"\x89PNG"


def learner():
    return tlx.MAML(tlx.models.mlp(4, 3, 5, seed=0), 0.25, 2)


def tasks(count, seed=0):
    return random_tasks(count, (4,), 1, queries=2, seed=seed)


TINY = Case(
    "tiny product",
    learner,
    lambda seed: tasks(3, seed),
    2,
    (*GENERAL, "torch.func, vmap over vectors", "torch.func, per vector", "autograd loop"),
    (Goal(GENERAL, 6, 12),),
    (0.45, 0.7),
)
DENSE_TINY = DenseCase("tiny scores", learner, tasks, 8, 3, 1e-2, whole=True, goals=(Goal((CG,), 20, 50),))
SWEEP = Sweep(
    "tasks", "tiny", (1, 2, 4), lambda T: Case("", learner, lambda seed: tasks(T, seed), 2, ()), start=2
)


# ---- baselines and measuring -----------------------------------------------------------------------------


@needs_core
@pytest.mark.parametrize("K", [2, 0])
@pytest.mark.parametrize("pairs", [2048, 4])
def test_all_baselines_are_right(K, pairs, monkeypatch):
    monkeypatch.setattr(baselines, "PAIRS_AT_ONCE", pairs)  # 4: 2 of the 3 tasks at once, and 1
    protonet = tlx.ProtoNet(tlx.models.mlp(4, 3, 5, seed=0))
    case = replace(TINY, K=K, learner=lambda: protonet, against=GRADIENTS) if K == 0 else TINY
    few = case.tasks(0)
    runs, missing = case.contestants(few, torch.float64)
    errors = validate(runs, case.truth(few))
    assert set(errors) | set(missing) == {OURS, *case.against}
    assert set(missing) <= {"curvlinops"}
    assert all("tlxml_fast[bench]" in why for why in missing.values())


def test_a_wrong_contestant_is_not_timed():
    truth = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"b is wrong by 1\.0e-06"):
        validate({"a": truth.clone, "b": lambda: truth + 1e-6}, truth)


def test_contestants_run_in_turns():
    order = []
    runs = {n: lambda n=n: order.append(n) for n in "ab"}
    timings = contest(runs, {"a": 0.0, "b": 1e-12}, 3, 1.0)
    assert "".join(order) == "ab" * 4
    assert timings["a"].runs == 3
    assert timings["b"].error == 1e-12
    assert contest(runs, {"a": 0.0, "b": 0.0}, 3, -1.0, warm_ups=0)["a"].runs == 1


def test_conjugate_gradients_solve():
    g = torch.Generator().manual_seed(0)
    root, B = (torch.randn(n, 12, generator=g, dtype=torch.float64) for n in (12, 3))
    B[1] = 0
    G = root @ root.mT
    solved = conjugate_gradients(lambda V: V @ G, B, 0.5, 1e-12)
    torch.testing.assert_close(solved.x @ (G + 0.5 * torch.eye(12)), B)
    assert solved.iterations_to(1e-12) == solved.iterations <= 40
    assert solved.iterations_to(1.0) == 0
    assert conjugate_gradients(lambda V: V @ G, B, 0.5, 1e-12, most=2).iterations == 2


def test_a_factor_of_the_output_hessian():
    f = torch.randn(4, 3, dtype=torch.float64)
    B = output_factor(f)
    want = torch.stack([baselines.output_hessian(f, e.expand(4, 3)) for e in torch.eye(3).double()], -1)
    torch.testing.assert_close(B @ B.mT, want)


# ---- arithmetic ------------------------------------------------------------------------------------------


def test_passes_take_what_torch_counts():
    module = torch.nn.Sequential(
        torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)
    )
    x, first = torch.randn(10, 6), 6 * 4
    layers = multiply_adds(module, x)
    assert layers == [first, 4 * 5, 5 * 3]
    passes = Passes.of(layers)

    def gradient(parameters):
        loss = functional_call(module, parameters, (x,)).square().sum()
        torch.autograd.grad(loss, list(parameters.values()))

    def counted(parameters):
        with FlopCounterMode(display=False) as counter:
            gradient(parameters)
        return counter.get_total_flops() / len(x)

    leaves = {name: p.detach().requires_grad_() for name, p in module.named_parameters()}
    assert counted(leaves) == passes.gradient
    with forward_mode.dual_level():
        duals = {name: forward_mode.make_dual(p, torch.ones_like(p)) for name, p in leaves.items()}
        # torch multiplies by the tangent of the data too, which is zero, once each way
        assert counted(duals) == passes.gradient + passes.hvp + 2 * 2 * first


def test_work_of_products_gradients_and_scores():
    encoder = tlx.ProtoNet(tlx.models.conv4(64, seed=0))
    work = arithmetic.Counter(encoder, random_tasks(1, (1, 28, 28), 5)).product(8)
    assert work.vectors == pytest.approx(8 * 7.76e9, rel=0.02)  # four convolutions a block, two in the first
    maml, few = mlp_learner(5)(), random_tasks(2, (34,), 5)
    counter, M, inner = arithmetic.Counter(maml, few), 34 * 32 + 32 * 5, 32 * 5
    support, query = 5 * 25 * 2 * (2 * M + 4 * inner), 75 * 2 * (M + inner)
    assert counter.product(3).vectors == 2 * 3 * 2 * (support + query)
    assert counter.gradients().flops == 2 * (counter.primal + support + query)
    assert counter.product(3).bytes == 4 * (2 * 100 * 34 + 7 * 1285)
    G = counter.matrix()
    assert G.flops == 2 * (counter.primal + 300 * (support + query + 1285**2))
    assert arithmetic.scores(maml, few, few).flops > G.flops + 9 * 1285**3
    rates = arithmetic.rates(G, 2.0, Peaks(G.flops, G.bytes))
    assert rates["of_sgemm"] == rates["of_copy"] == 0.5


# ---- dense scores ----------------------------------------------------------------------------------------


@needs_core
@pytest.mark.parametrize("whole", [True, False])
def test_scores_of_general_tools(whole):
    pytest.importorskip("curvlinops")
    row = replace(DENSE_TINY, whole=whole).run(SETTINGS)
    assert list(row["timings"]) == [OURS, CG, PRODUCTS, PULL_BACKS]
    assert all(t["error"] < 1e-9 for t in row["timings"].values())
    composed = {name for name, t in row["timings"].items() if t["composed"]}
    assert composed == (set() if whole else {CG, PRODUCTS})
    dense = row["dense"]
    assert set(dense["scores_error"]) == ({CG, PRODUCTS, PULL_BACKS} if whole else {CG, PULL_BACKS})
    assert all(error < 1e-5 for error in dense["scores_error"].values())
    assert all(residual < 1e-5 for residual in dense["residuals"].values())
    assert 5 < dense["iterations_with_matrix"] < 60
    if whole:  # the count that the other form composes with
        assert abs(dense["iterations"] - dense["iterations_with_matrix"]) <= 2
    assert [goal["least"] for goal in row["goals"]] == [20]
    said = "\n".join(tables.notes([{"work": "x", **row}]))
    assert ("not run whole, but composed of" in said) is not whole


@needs_core
@pytest.mark.parametrize("whole", [True, False])
def test_scores_without_curvlinops(whole, monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    row = replace(DENSE_TINY, whole=whole).run(SETTINGS)
    assert set(row["timings"]) == {OURS, PULL_BACKS}
    assert set(row["missing"]) == {CG, PRODUCTS}
    assert row["goals"] == []
    assert "residuals" not in row["dense"]


# ---- growth ----------------------------------------------------------------------------------------------


def test_a_power_is_found():
    points = [(x, 3e-3 * x**1.5) for x in (2.0, 4.0, 8.0)]
    fit = Power.fit([(1.0, 9.0), *points], start=2)
    assert fit.exponent == pytest.approx(1.5)
    assert fit.coefficient == pytest.approx(3e-3)
    assert fit.r2 == pytest.approx(1)
    assert (fit.start, fit.end) == (2, 8)
    assert Power.fit(points, start=8) is None


@needs_core
def test_a_sweep_keeps_the_faster_rival_until_it_takes_too_long(monkeypatch):
    row = SWEEP.run(SETTINGS)
    assert [x for x, _ in row["points"][OURS]] == [1, 2, 4]
    (rival,) = set(row["points"]) - {OURS}
    assert rival in scaling.RIVALS
    assert row["fits"][OURS]["start"] == 2
    monkeypatch.setattr(scaling, "_next", lambda points: 1.0)
    row = SWEEP.run(SETTINGS)
    assert [len(points) for points in row["points"].values()] == [3, 1]


def test_the_sweeps_are_those_asked_for():
    ranges = {
        sweep.quantity: (sweep.x(sweep.values[0]), sweep.x(sweep.values[-1])) for sweep in scaling.SWEEPS
    }
    assert ranges["tasks"] == (2**6, 2**12)
    assert ranges["vectors"] == (1, 128)
    assert ranges["inner steps"] == (1, 10)
    for sweep in scaling.SWEEPS:
        case = sweep.case(sweep.values[-1])
        q = sum(p.numel() for p in case.learner().parameters().values())
        assert q == (ranges["parameters"][1] if sweep.quantity == "parameters" else 1285)


# ---- a run -----------------------------------------------------------------------------------------------


@needs_core
def test_a_run_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "pieces", lambda: [TINY, DENSE_TINY, SWEEP])
    monkeypatch.setattr(bench, "peak", lambda piece, contestant: 2**20 * (3 if contestant == OURS else 7))
    rows = bench.run(tmp_path, rounds=2, seconds=0.1, progress=False)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["rows"] == json.loads(json.dumps(rows))
    assert {"machine", "sgemm", "copy"} <= set(written)
    product = rows[0]
    assert [goal["least"] for goal in product["goals"]] == [6, 0.45]
    assert all(t["error"] < 1e-9 for t in product["timings"].values())
    assert product["memory"][OURS] == 3 * 2**20
    text = (tmp_path / "bench.md").read_text()
    for said in (
        "tiny product",
        "tiny scores",
        "3 : 7 MiB",
        "(bench.png)",
        "(scaling.png)",
        "of sgemm",
        "over 2…4",
    ):
        assert said in text
    assert sentence(written["machine"]) in text
    for picture in ("bench.png", "scaling.png"):
        assert (tmp_path / picture).read_bytes().startswith(PNG)
    *comparisons, shares = tables.tables(rows)
    assert [table.title for table in comparisons] == ["tiny product", "tiny scores", SWEEP.name]
    assert sum(table.row_count for table in comparisons) == len(list(tables.comparisons(rows)))
    assert shares.row_count == 2


@needs_core
def test_only_what_was_asked_for_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "pieces", lambda: [TINY, SWEEP])
    (row,) = bench.run(tmp_path, "SCALING", rounds=1, seconds=0.1, progress=False)
    assert row["work"] == SWEEP.name
    assert (tmp_path / "scaling.png").exists()
    assert not (tmp_path / "bench.png").exists()


def test_nothing_to_draw(tmp_path):
    memory_only = {"work": "memory", "timings": {}, "goals": [], "missing": {}, "bytes": {}}
    assert not figures.ratios([memory_only], tmp_path / "bench.png")
    assert not figures.scaling([memory_only], tmp_path / "scaling.png")
    assert list(tmp_path.iterdir()) == []


def test_the_machine_is_described():
    about = described()
    assert {"processor", "cores", "threads", "simd", "blas", "torch", "distribution"} <= set(about)
    assert "/" not in sentence({**about, "distribution": ""})  # of Debian GNU/Linux


def test_names_are_unique_and_known():
    names = [piece.name for piece in bench.pieces()]
    assert len(set(names)) == len(names)
    for case in CASES:
        assert set(case.against) <= set(BASELINES)
        assert {name for goal in case.goals for name in goal.baselines} <= set(case.against)


# ---- memory ----------------------------------------------------------------------------------------------


@needs_core
@pytest.mark.parametrize("case", [*CASES, *DENSE], ids=lambda case: case.name)
def test_hardly_any_work_is_of_the_same_kind(case):
    small, like = case.tiny().learner(), case.learner()
    assert type(small) is type(like)
    assert tiny(like)[0].parameters().keys() == small.parameters().keys()
    ours = case.tiny().alone(OURS)()
    assert ours is not None


def test_memory_over_steps(monkeypatch):
    monkeypatch.setattr(memory, "peak", lambda case, _, threads: 2**20 * (11 if "10 steps" in case else 10))
    row = {"work": "memory", **memory.StepsMemory().run(SETTINGS)}
    (line,) = tables.comparisons([row])
    assert line == ("memory", "11 MiB", "1 step", "", "1.10", "1.2", "1.05", "yes", "")


@needs_core
def test_memory_that_cannot_be_measured_says_why():
    with pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        memory.peak(CASES[0].name, "nobody")


@needs_core
@pytest.mark.slow
def test_peaks_are_of_the_work_alone():
    case = "GN product, MAML MLP 34-32-5, 1 step, 64 tasks, K=32"
    ours, theirs = (memory.peak(case, name) for name in (OURS, "torch.func, vmap over tasks and vectors"))
    assert 0 < ours < theirs < 2**30
