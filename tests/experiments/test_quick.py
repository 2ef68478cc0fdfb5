"""Every experiment from end to end on the command line, at its quick size."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tlxml_fast.cli import app
from tlxml_fast.errors import TlxError
from tlxml_fast.experiments import EXPERIMENTS

run = CliRunner().invoke


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_quick_run(name, tmp_path, one_thread):
    done = run(
        app, ["experiment", name, "--quick", "--quiet", "--out", str(tmp_path)], catch_exceptions=False
    )
    assert done.exit_code == 0
    record = json.loads((tmp_path / f"{name}.json").read_text(), parse_constant=pytest.fail)
    assert record["seeds"].keys() == {"0"}
    assert record["findings"]
    assert all((tmp_path / drawing["file"]).stat().st_size > 5_000 for drawing in record["drawings"])
    assert record["question"] in " ".join(done.stdout.split())
    assert "A quick run" in (tmp_path / f"{name}.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "the experiment is one of task-distinction"),
        (["task-distinction", "--seeds", "one"], "--seeds is a list of whole numbers"),
        (["task-distinction", "--data", "omniglot"], "omniglot needs the path"),
        (["all", "--data", "mnist"], "experiments run on glyphs"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(arguments, message):
    error = run(app, ["experiment", *arguments]).exception
    assert isinstance(error, TlxError)
    assert message in str(error)
