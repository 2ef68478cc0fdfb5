"""Plans: counts against the engine's own, formulas by hand, the rule of advice, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from test_cli import tlxml

import tlxml_fast as tlx
from tlxml_fast.benchmarks.tasks import random_tasks
from tlxml_fast.curvature import CurvatureOperator
from tlxml_fast.errors import TlxError
from tlxml_fast.gradients import Gradients
from tlxml_fast.kept import Kept
from tlxml_fast.linearize import linearize
from tlxml_fast.linearize.shards import Shards
from tlxml_fast.planning import engine as calibrating
from tlxml_fast.planning import rates as measuring
from tlxml_fast.planning.advice import advise
from tlxml_fast.planning.candidates import candidates
from tlxml_fast.planning.engine import Calibrated, Counted, Projected
from tlxml_fast.planning.iterations import iterations, sketched_condition
from tlxml_fast.planning.job import Job
from tlxml_fast.planning.phases import Phases
from tlxml_fast.planning.plans import ESTIMATE, EXACT
from tlxml_fast.planning.predict import Subject, predict
from tlxml_fast.planning.rates import Rates, of_devices
from tlxml_fast.planning.sheets import SHEETS
from tlxml_fast.planning.units import bytes_of, flops_of, time_of, whole
from tlxml_fast.planning.work import TaskWork
from tlxml_fast.profiling import Profile

RATES = Rates(
    engine=1e9, gram=1e9, product=1e9, eigh=1e9, cholesky=1e9, copy=1e9, write=1e9, read=1e9, link=1e9,
    working=0, room=1 << 33, base=0, processes=1, source="made up",
)  # fmt: skip


def maml(steps=2):
    return tlx.MAML(tlx.models.mlp(4, 3, 5, seed=0), 0.25, steps)


def few(count=3):
    return random_tasks(count, (4,), 1, queries=2)


def work():
    return TaskWork.of(maml(), few()[0])


def test_a_learner_in_another_dtype_than_its_tasks():
    learner = maml()
    single = TaskWork.of(learner, few()[0])
    learner.body.template.double()
    assert TaskWork.of(learner, few()[0]) == single


def phases(tasks=3, tests=2, rates=RATES, **job):
    made = work()
    return Phases(Job(tasks, tests, made, rows_per_task=2, **job), rates, Counted(made, rates))


def named(found, curvature, inverse=""):
    return next(p for p in found if (p.curvature, p.inverse) == (curvature, inverse))


# ---- counts ----------------------------------------------------------------------------------------------


def test_work_of_a_task_by_hand():
    made, M, inner = work(), 4 * 3 + 3 * 5, 3 * 5
    assert (made.q, made.outputs, made.numbers) == (35, 10 * 4, 15 * 4)
    assert made.primal == 2 * 5 * 2 * (2 * M + inner) + 10 * 2 * M
    assert made.vector == 10 * 2 * (M + inner) + 2 * 5 * 2 * (2 * M + 4 * inner)
    assert made.second == (10 + 4 * 2 * 5) * 2 * (2 * M + 4 * inner)


def test_a_network_of_other_size_uses_each_parameter_as_often():
    made = work().scaled(350)
    assert (made.q, made.vector) == (350, pytest.approx(10 * work().vector))
    bare = TaskWork.bare(1000, 5, 1, 2, 784)
    assert bare.primal == 15 * 2 * 1000
    assert bare.outputs == 40


def test_what_is_kept_is_what_the_engine_keeps():
    lin = linearize(maml(), few())
    shards = Shards(maml(), few(), linearize, 3)
    operator = CurvatureOperator(tlx.Fisher(2), shards, torch.zeros(lin.q, dtype=torch.float64))
    on = phases()
    assert on.gradients().stored == sum(
        block.nbytes for block in Gradients(shards, Kept(), None, False).blocks
    )
    assert on.rows(2, exact=False).stored == sum(block.nbytes for block in operator.rows().blocks)
    assert on.job.work.outputs == lin.gn_rank
    assert on.gram(6).holds == operator.rows().gram().nbytes
    assert on.assembly().holds == operator.dense().nbytes


# ---- formulas --------------------------------------------------------------------------------------------

q, w, K, M = 35, work(), 2, 3


@pytest.mark.parametrize(
    ("phase", "flops"),
    [
        (lambda on: on.gradients(), M * (2 * w.primal + w.vector)),
        (lambda on: on.rows(2, exact=False), M * (2 * w.primal + 2 * w.vector)),
        (lambda on: on.assembly(), M * (w.primal + min(40 * (w.vector + q**2), 2 * q * w.vector))),
        (lambda on: on.products(5, ""), M * (w.primal + 10 * w.vector)),
        (lambda on: on.gram(6), 36 * q),
        (lambda on: on.normal(2), 6 * q**2),
        (lambda on: on.eigh(q), 9 * q**3),
        (lambda on: on.cholesky(6), 72),
        (lambda on: on.dense_solves(K, q), 6 * K * q**2),
        (lambda on: on.row_solves(K, 6), 8 * K * 6 * q + 4 * K * 36),
        (lambda on: on.iteration(K, 0), M * (w.primal + 2 * K * w.vector) + 14 * K**2 * q),
        (lambda on: on.scores(K), 2 * K * M * q),
    ],
)
def test_flops_are_those_that_docstrings_state(phase, flops):
    assert phase(phases()).flops == pytest.approx(flops)


@pytest.mark.parametrize(
    ("curvature", "inverse", "spans", "flops"),
    [
        (tlx.GaussNewton(), tlx.Dense(1e-2), ("eigendecomposition",), lambda on: on.eigh(q).flops),
        (
            tlx.GaussNewton(),
            tlx.Dense(1e-2),
            ("dense inverse", "residuals"),
            lambda on: on.dense_solves(K, q).flops,
        ),
        (
            tlx.Fisher(2),
            tlx.Woodbury(1e-2),
            ("R v", "Rᵀ w", "dual solve"),
            lambda on: on.row_solves(K, 2 * M).flops,
        ),
        (tlx.Fisher(2), tlx.Woodbury(1e-2), ("eigendecomposition",), lambda on: on.eigh(2 * M).flops),
        (tlx.Identity(), None, ("scores",), lambda on: on.scores(K).flops),
    ],
    ids=["eigh", "dense solves", "row solves", "dual eigh", "scores"],
)
@pytest.mark.filterwarnings("ignore::tlxml_fast.errors.InfluenceWarning")
def test_a_run_counts_as_many_flops(curvature, inverse, spans, flops, one_thread):
    influence = tlx.TaskInfluence(maml(), curvature, inverse, dtype=torch.float64)
    with Profile() as profile:
        influence.fit(few(M)).scores(random_tasks(K, (4,), 1, queries=2, seed=1))
    assert sum(span.flops for span in profile._spans if span.name in spans) == flops(phases())


def test_seconds_are_flops_and_bytes_at_their_rates():
    on = phases()
    assert on.eigh(q).seconds == pytest.approx(9 * q**3 / 1e9)
    solves = on.dense_solves(K, q)
    assert solves.seconds == pytest.approx(solves.flops / 1e9 + solves.moved / 1e9)
    tripled = on.products(4, "").repeated("more", 3)
    assert tripled.seconds == pytest.approx(3 * on.products(4, "").seconds)
    assert tripled.needs == on.products(4, "").needs


def test_processes_share_tasks_and_send_sums():
    one, four = phases(tasks=64, tests=8), phases(tasks=64, tests=8, rates=replace(RATES, processes=4))
    assert four.gradients().seconds == pytest.approx(one.gradients().seconds / 4)
    assert four.gradients().flops == one.gradients().flops
    assert one.products(4, "").traffic == one.gram(8).traffic == one.scores(2).traffic == 0
    assert four.products(4, "").traffic == 2 * 8 * 4 * q * 3 / 4
    assert four.eigh(q).seconds == one.eigh(q).seconds
    same = named(candidates(one), "GaussNewton", "Dense").storage
    assert named(candidates(four), "GaussNewton", "Dense").storage == same


def test_compression_shrinks_what_is_kept():
    on = phases(compression=tlx.SJLT(8, storage=torch.bfloat16))
    assert on.gradients().stored == M * 8 * 2
    assert on.normal(2).flops == 6 * 64
    assert all(plan.kind != EXACT for plan in candidates(on))
    assert named(candidates(on), "Fisher(2) SJLT(8)", "Dense").phases[3].flops == 9 * 8**3
    inner, outer = Counted(w, RATES), Projected(Counted(w, RATES), w, RATES)
    assert outer.sketch(3) == pytest.approx(inner.sketch(3) + 3 * 4 * q / 1e9)


def test_iterations():
    assert iterations(1.0, 1e-6, 1, 100) <= 8
    alone = [iterations(kappa, 1e-6, 1, 10**6) for kappa in (1e2, 1e3, 1e4)]
    assert alone == sorted(alone)
    assert iterations(1e3, 1e-6, 16, 10**6) < iterations(1e3, 1e-6, 1, 10**6)
    assert iterations(1e9, 1e-6, 64, 640) == 14
    better, worse = sketched_condition(1e3, 10_000, 10**6), sketched_condition(1e3, 10_000, 10)
    assert better < 10 < 1e3 < worse


# ---- plans and advice ------------------------------------------------------------------------------------


def test_memory_is_the_most_of_any_phase_and_a_store_takes_what_is_kept():
    plan = named(candidates(phases()), "GaussNewton", "Dense")
    assert not plan.stored
    size = 8 * q**2
    kept = M * q * 4
    assert plan.memory == plan.tasks + kept + size + 3 * size
    tight = named(
        candidates(phases(tasks=10_000, rates=replace(RATES, room=1 << 20))), "Fisher(2)", "Woodbury"
    )
    assert tight.stored
    assert tight.storage == 10_000 * 3 * q * 4
    assert tight.seconds > sum(phase.seconds for phase in tight.phases)


def test_advice_follows_the_rule():
    found = candidates(phases(tasks=100))
    exact = min((p for p in found if p.kind == EXACT), key=lambda p: p.seconds)
    assert advise(found, math.inf).plan is exact
    quicker = [replace(p, phases=p.phases[:1]) if p.kind == ESTIMATE else p for p in found]
    hurried = advise(quicker, 1e-9)
    assert hurried.plan.kind == ESTIMATE
    assert exact.name in hurried.why[1]
    assert advise([p for p in found if p.kind == EXACT], 1e-9).plan is exact
    none = advise(candidates(phases(rates=replace(RATES, room=16))), math.inf)
    assert none.plan is None
    assert "nothing fits" in none.why[0]


def test_too_many_rows_to_decompose_are_not_advised():
    found = candidates(phases(tasks=20_000))
    sketch = named(found, "GaussNewton", "CG, Sketch(Fisher(2))")
    assert sketch.unlike
    assert not sketch.fits


def test_a_plan_for_a_cluster_from_data_sheets():
    found = predict(Subject.of_parameters(10**7, 28, 5, 5, 15), 10**6, 128, "64xH100")
    assert found.advice.plan.curvature == "Fisher(8) SJLT(2048)"
    assert found.rates.processes == 64
    assert "data sheet" in found.sources[0]
    assert "2·parameters" in found.sources[1]
    assert "no exact one fits" in found.advice.why[1]
    assert json.loads(json.dumps(found.describe()))["plans"][0]["phases"][0]["seconds"] > 0


def test_links_are_the_network_beyond_a_machine():
    within, beyond = of_devices("8xA100", None)[0], of_devices("16xA100", 1 << 30)[0]
    assert within.link == 150e9
    assert beyond.link == 25e9
    assert (beyond.room, beyond.processes) == (1 << 30, 16)
    assert of_devices("h200", None)[1] is SHEETS["H200"]


# ---- measured --------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch, one_thread):
    """Measurements that take next to no time."""
    for module in (measuring, calibrating):
        monkeypatch.setattr(module, "SECONDS", 1e-3)
    monkeypatch.setattr(measuring, "LARGEST", 64)
    monkeypatch.setattr(measuring, "LARGEST_EIGH", 32)


def test_the_engine_is_calibrated(hasty):
    engine = Calibrated(maml(), few(), w, RATES)
    for seconds in (
        engine.gradient(),
        engine.sketch(2),
        engine.factor(),
        engine.matrix(),
        engine.products(3),
    ):
        assert 0 < seconds < 1
    assert engine.products(64) == 2 * engine.products(32)
    assert engine.gradient() == engine.gradient()
    doubled = replace(engine, scale=2.0, _known={})
    assert "times 2" in doubled.source


def test_a_run_here_is_planned(hasty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tlxml(
        "plan", "--learner", "maml", "--model", "mlp", "--hidden", 3, "--image-size", 4, "--shots", 1, "--queries", 2,
        "--tasks", 6, "--test-tasks", 2, "--phases", "--json", tmp_path / "plan.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Recommended" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["tasks"], plan["parameters"]) == (6, 3 * 17 + 5 * 4)
    assert {p["inverse"] for p in plan["plans"]} >= {"Dense", "Woodbury", "CG", "Nystrom(71)", "Lanczos(64)"}


# ---- what is refused, and units --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "0"], "tasks is a whole number of at least 1"),
        (["--tasks", "1.5"], "not '1.5'"),
        (["--tasks", "many"], "not 'many'"),
        ([], "how many training tasks"),
        (["--tasks", "9", "--params", "0"], "params is a whole number of at least 1"),
        (["--tasks", "9", "--test-tasks", "-1"], "test-tasks is"),
        (["--tasks", "9", "--devices", "64xAbacus"], "'64xAbacus'"),
        (["--tasks", "9", "--devices", "0xH100"], "'0xH100'"),
        (["--tasks", "9", "--devices", "64xH100"], "64 devices are more than"),
        (["--tasks", "9", "--devices", "H100", "--rows-per-task", "0"], "rows per task"),
        (["--tasks", "9", "--devices", "H100", "--hours", "0"], "hours is above 0"),
        (["--tasks", "9", "--devices", "H100", "--memory", "lots"], "memory is a size"),
        (["--tasks", "9", "--devices", "H100", "--compress", "zip"], "compress is a name"),
        (["--tasks", "9", "--devices", "H100", "--shots", "0"], "at least 1"),
        (["--tasks", "9", "--learner", "oracle"], "'oracle'"),
        (["nowhere"], "tlxml-fast train"),
    ],
)
def test_nonsense_is_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tlxml("plan", *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (time_of(0.012), "12 ms"),
        (time_of(4.51), "4.5 s"),
        (time_of(600), "10 min"),
        (time_of(86_400), "24 h"),
        (time_of(1e6), "12 d"),
        (time_of(1e9), "32 years"),
        (bytes_of(0), "0 B"),
        (bytes_of(5 << 20), "5 MiB"),
        (bytes_of(1 << 60), "1,024 PiB"),
        (flops_of(7.76e9), "7.8 Gflop"),
    ],
)
def test_units(given, said):
    assert given == said


def test_numbers_as_people_write_them():
    assert [whole(text, "it") for text in ("1e6", "1,000", "12", 7)] == [10**6, 1000, 12, 7]
    with pytest.raises(TlxError, match="it is a whole number"):
        whole("inf", "it")
