"""tlxml-fast diagnose: what is diagnosed is what was computed, and the report knows which scores it is of."""

from __future__ import annotations

import io
import json
import re

import pytest
import torch
from rich.console import Console
from test_cli import tlxml

import tlxml_fast as tlx
from tlxml_fast.diagnosis import diagnosis_of
from tlxml_fast.diagnosis.record import key
from tlxml_fast.diagnosis.retrain import require_retrainable, retrain
from tlxml_fast.diagnosis.settings import compression_of, curvature_of, inverse_of
from tlxml_fast.diagnosis.table import rendered

SMALL = {
    "--data": "digits",
    "--learner": "maml",
    "--model": "mlp",
    "--hidden": 4,
    "--ways": 3,
    "--shots": 2,
    "--queries": 2,
    "--eval-tasks": 6,
}
SCORED = {"--test-tasks": 3, "--curvature": "hessian", "--damping": 0.3, "--train-tasks": 8}


def done(*arguments: object, **options: object) -> str:
    """Standard output of a command that succeeds; options by name."""
    code, out, err = tlxml(*arguments, *(part for option in options.items() for part in option), "--quiet")
    assert code == 0, err
    return out


def found(directory) -> dict:
    return json.loads((directory / "diagnosis.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained MAML with scores, its diagnosis beside them."""
    out = tmp_path_factory.mktemp("run")
    done("train", **SMALL, **{"--tasks": 10, "--steps": 6, "--weight-decay": "1e-2", "--out": out})
    done("influence", out, **SCORED)
    done("diagnose", out)
    return out


def test_what_was_computed_is_what_is_diagnosed(run):
    made = found(run)
    assert made["curvature"]["curvature"] == "Hessian"
    assert made["curvature"]["damping"] == 0.3
    assert (made["training_tasks"], made["test_tasks"]) == (8, 3)
    scores = tlx.Scores.load(run / "scores.safetensors")
    assert made["tasks"] == scores.info["tasks"]


def test_options_take_precedence(run, tmp_path):
    done("diagnose", run, "--out", tmp_path, "--damping", "1e-2x", "--test-tasks", 2, "--hessian-tasks", 3)
    made = found(tmp_path)
    assert made["curvature"]["curvature"] == "Gauss-Newton"
    assert made["curvature"]["damping"] == "0.01 of the largest |eigenvalue|"
    assert (made["training_tasks"], made["test_tasks"], made["hessian_tasks"]) == (8, 2, 3)


def test_a_run_without_scores(run, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes((run / "checkpoint.safetensors").read_bytes())
    done("diagnose", tmp_path, "--test-tasks", 2)
    assert found(tmp_path)["training_tasks"] == 10
    assert found(tmp_path)["curvature"]["damping"] == "0.001 of the largest |eigenvalue|"


def test_the_report_has_it(run):
    done_report = tlxml("report", run)
    assert done_report[0] == 0, done_report[2]
    html = (run / "report.html").read_text()
    assert "Can these scores be trusted?" in html
    for check in found(run)["checks"]:
        assert check["name"] in html
    assert "left out" not in done_report[2]


@pytest.mark.parametrize(
    "changed", [{"--damping": 0.5}, {"--test-tasks": 2}, {"--curvature": "gauss-newton"}]
)
def test_a_diagnosis_of_other_scores_is_left_out(run, tmp_path, changed):
    done("influence", run, **SCORED, **{"--out": tmp_path / "same"})
    done("influence", run, **{**SCORED, **changed}, **{"--out": tmp_path / "other"})
    same, other = (tlx.Scores.load(tmp_path / name / "scores.safetensors") for name in ("same", "other"))
    assert diagnosis_of(run / "diagnosis.json", same) == found(run)
    with pytest.warns(tlx.InfluenceWarning, match="is of other scores"):
        assert diagnosis_of(run / "diagnosis.json", other) is None
    assert diagnosis_of(tmp_path / "diagnosis.json", same) is None


def test_a_key_names_all_that_scores_depend_on():
    info = {
        "learner": {"a": 1},
        "training": {"seed": 0},
        "compression": None,
        "curvature": {"damping": 1, "spectrum": 5},
    }
    own = key(info, ["t"], ["u"], "loss")
    others = [
        key({**info, "learner": {"a": 2}}, ["t"], ["u"], "loss"),
        key({**info, "training": {"seed": 1}}, ["t"], ["u"], "loss"),
        key({**info, "compression": {"dimension": 8}}, ["t"], ["u"], "loss"),
        key({**info, "curvature": {"damping": 2}}, ["t"], ["u"], "loss"),
        key(info, ["s"], ["u"], "loss"),
        key(info, ["t"], ["s"], "loss"),
        key(info, ["t"], ["u"], "margin"),
    ]
    assert len({own, *others}) == 8
    assert key({**info, "curvature": {"damping": 1}, "mean_loss": 3}, ["t"], ["u"], "loss") == own


def test_training_again_is_kept_and_gone_on_from(run, tmp_path, monkeypatch):
    done("diagnose", run, "--out", tmp_path, "--retrain", 2)
    (check,) = [c for c in found(tmp_path)["checks"] if c["name"] == "training seeds"]
    assert check["grade"] != "unknown"
    assert {name.partition(".")[0] for name in check["values"]} == {"run 1", "run 2"}
    assert len(list((tmp_path / "retrained").glob("*.safetensors"))) == 2
    monkeypatch.setattr("tlxml_fast.training._step", lambda *_: pytest.fail("trained once more"))
    done("diagnose", run, "--out", tmp_path, "--retrain", 2)


def test_a_retrained_run_is_what_training_with_that_seed_gives(run, tmp_path):
    origin = tlx.load_checkpoint(run / "checkpoint.safetensors").training["origin"]["tasks"]
    tasks = tlx.data.digits("train").sample(10, ways=3, shots=2, queries=2, seed=origin["seed"])
    (again,) = retrain(
        run / "checkpoint.safetensors", tasks, 1, tmp_path, torch.device("cpu"), progress=False
    )
    other = tlx.MAML(tlx.models.mlp(64, 4, 3, seed=1))
    tlx.meta_train(
        other, tasks, steps=6, batch_size=4, schedule="cosine", weight_decay=1e-2, seed=1, progress=False
    )
    for p, q in zip(again.parameters().values(), other.parameters().values(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits(run, width):
    checks = [tlx.Check(**{k: v for k, v in c.items() if k != "question"}) for c in found(run)["checks"]]
    info = {k: v for k, v in found(run).items() if k not in ("checks", "grade", "verdict", "trust")}
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rendered(tlx.Diagnosis(tuple(checks), info)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for check in checks:
        assert check.name in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--curvature", "cosine"], "no assumption to diagnose"),
        (["--train-tasks", "11"], "was trained on 10 tasks"),
        (["--hessian-tasks", "0"], "hessian_tasks is at least 1"),
        (["--retrain", "-1"], "retrain is a number"),
        (["--damping", "much"], "not 'much'"),
        (["--target", "luck"], "target is one of"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, options, words):
    code, _, err = tlxml("diagnose", run, "--out", tmp_path, *options)
    assert code == 2
    assert words in re.sub(r"\s+", " ", err)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_there():
    code, _, err = tlxml("diagnose", "nowhere")
    assert code == 2
    assert "tlxml-fast train" in re.sub(r"\s+", " ", err)


def test_a_run_that_cannot_begin_again_is_refused(run):
    learner = tlx.load_checkpoint(run / "checkpoint.safetensors")
    require_retrainable(learner, run)
    learner.training["done"] = 4
    with pytest.raises(tlx.LearnerError, match="stopped after 4 of 6 steps"):
        require_retrainable(learner, run)
    del learner.training["steps"]
    with pytest.raises(tlx.LearnerError, match="was not trained by meta_train: it does not say its steps"):
        require_retrainable(learner, run)
    learned = tlx.MAML(tlx.models.mlp(4, 2, 2), learn_inner_lr=True)
    with pytest.raises(tlx.LearnerError, match="learned inner rates"):
        require_retrainable(learned, run)


def test_one_process_diagnoses(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, _, err = tlxml("diagnose", run, "--out", tmp_path)
    assert code == 2
    assert "run it without torchrun" in re.sub(r"\s+", " ", err)


METHODS = [
    (tlx.GaussNewton(), tlx.Dense(damping=0.1), None),
    (tlx.Hessian(), tlx.Dense(rank=7, negative="abs"), None),
    (tlx.GaussNewton(), tlx.Dense(rtol=1e-3), tlx.SJLT(32, seed=4, storage=torch.bfloat16)),
    (tlx.Fisher(3, "rademacher", seed=5), tlx.Nystrom(6, tlx.Relative(1e-4), seed=7), None),
    (tlx.Fisher(2, "labels"), tlx.Woodbury(tlx.Relative(3e-2), tol=1e-5), tlx.SRHT(16, seed=2)),
    (tlx.GaussNewton(), tlx.CG(0.2, max_iter=77, preconditioner=tlx.Sketch(tlx.Fisher(4))), None),
    (tlx.GaussNewton(), tlx.CG(0.2, preconditioner="diagonal"), tlx.Rademacher(9)),
    (tlx.GaussNewton(), tlx.CG(0.2, preconditioner="nystrom"), None),
    (tlx.GaussNewton(), tlx.Lanczos(5, "keep", tol=1e-4, seed=3), None),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method[0].name}-{method[1].name}")
def test_settings_survive_their_description(method):
    """As scores describe them: the curvature's entries, then the inverse's under other names where both have one."""
    curvature, inverse, compression = method
    made_of, own = curvature.describe(), inverse.describe()
    described = {**made_of, **{f"inverse_{k}" if k in made_of else k: v for k, v in own.items()}}
    described = json.loads(json.dumps(described))
    assert curvature_of(described).describe() == curvature.describe()
    assert inverse_of(described).describe() == own
    if compression is not None:
        assert compression_of(compression.describe()).describe() == compression.describe()
    assert compression_of(None) is None


def test_settings_that_are_not_known_are_named():
    with pytest.raises(tlx.CheckpointError, match="'Astrology'"):
        curvature_of({"curvature": "Astrology"})
