"""The command line: what a newcomer types, from training to the report, and what goes wrong."""

import io
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from typing import NamedTuple

import pytest

from tlxml_fast import Scores, load_checkpoint
from tlxml_fast.cli import main

SMALL = [
    "--data",
    "digits",
    "--model",
    "mlp",
    "--ways",
    "3",
    "--shots",
    "2",
    "--queries",
    "2",
    "--eval-tasks",
    "6",
]


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def tlxml(*arguments) -> Done:
    """Run the command line inside this process, which has paid for the imports."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["tlxml-fast", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return Done(int(stop.code or 0), out.getvalue(), err.getvalue())
    return Done(0, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a small MAML on digits."""
    out = tmp_path_factory.mktemp("run")
    learner = ["--learner", "maml", "--hidden", "6", "--inner-lr", "0.1", "--weight-decay", "1e-3"]
    done = tlxml("train", *SMALL, *learner, "--tasks", 12, "--steps", 8, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "Held-out accuracy" in done.stdout
    return out


def test_a_checkpoint_says_what_it_was_trained_on(trained):
    learner = load_checkpoint(trained / "checkpoint.safetensors")
    assert learner.weight_decay == 1e-3
    assert learner.training["origin"]["tasks"]["source"] == "digits"
    assert learner.training["history"][-1]["tasks"] == 6


def test_influence_then_report(trained, tmp_path):
    done = tlxml(
        "influence",
        trained,
        "--test-tasks",
        4,
        "--curvature",
        "hessian",
        "--damping",
        "0.1",
        "--out",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    scores = Scores.load(tmp_path / "scores.safetensors")
    assert scores.values.shape == (4, 12)
    assert scores.in_fit.all()
    assert scores.info["curvature"]["curvature"] == "Hessian"
    done = tlxml("report", tmp_path)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "report.html").read_text()
    assert scores.test.names[0] in html
    assert "tlxml-fast report" in html


def test_a_seed_gives_the_same_scores(trained, tmp_path):
    for name in ("a", "b"):
        assert (
            tlxml("influence", trained, "--test-tasks", 3, "--seed", 7, "--out", tmp_path / name).returncode
            == 0
        )
    a, b = (Scores.load(tmp_path / name / "scores.safetensors") for name in ("a", "b"))
    assert (a.values - b.values).abs().max() <= 1e-6 * a.values.abs().max()
    assert a.test.ids == b.test.ids


def test_resume_after_the_end_changes_nothing(trained):
    before = (trained / "checkpoint.safetensors").read_bytes()
    learner = ["--learner", "maml", "--hidden", "6", "--inner-lr", "0.1", "--weight-decay", "1e-3"]
    done = tlxml("train", *SMALL, *learner, "--tasks", 12, "--steps", 8, "--out", trained, "--resume")
    assert done.returncode == 0, done.stderr
    assert (trained / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data", "mnist"], "the data source is one of glyphs, digits, omniglot, folder"),
        (["train", "--data", "omniglot"], "omniglot needs the path"),
        (["train", "--data", "folder", "--data-path", "nowhere"], "nowhere"),
        (["train", *SMALL, "--ways", "9"], "9"),
        (["train", *SMALL, "--learner", "reptile"], "'protonet' or 'maml'"),
        (["train", *SMALL, "--weight-decay", "-1"], "weight_decay is at least 0"),
        (["influence", "nowhere"], "tlxml-fast train"),
        (["report", "nowhere"], "tlxml-fast influence"),
        (["influence", "nowhere", "--damping", "-1"], "damping is a finite number of at least 0"),
        (["influence", "nowhere", "--damping", "much"], "not 'much'"),
        (["influence", "nowhere", "--damping", "1e-3x", "--rank", "3"], "damping goes with the full inverse"),
        (["influence", "nowhere", "--curvature", "round"], "curvature is one of"),
        (["fly"], "No such command"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tlxml(*arguments)
    assert done.returncode == 2
    assert words in re.sub(r"\s+", " ", done.stderr)
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 64)
    done = tlxml("influence", tmp_path)
    assert done.returncode == 2
    assert "checkpoint.safetensors" in re.sub(r"\s+", "", done.stderr)


def test_doctor_says_what_will_run():
    done = tlxml("doctor")
    assert done.returncode == 0
    for word in ("torch", "triton", "SIMD", "threads", "softmax_gn", "proto_gn", "nvcc"):
        assert word.lower() in done.stdout.lower()


@pytest.mark.slow
def test_ctrl_c_leaves_no_half_written_file(tmp_path):
    command = [sys.executable, "-m", "tlxml_fast", "train", *SMALL, "--tasks", "8", "--steps", "100000"]
    # where the tests are a job in the background, shells have it ignore Ctrl-C, and so would what it starts
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [*command, "--out", tmp_path], stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    checkpoint = tmp_path / "checkpoint.safetensors"
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in errors
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    assert load_checkpoint(checkpoint).training["done"] % 100 == 0
