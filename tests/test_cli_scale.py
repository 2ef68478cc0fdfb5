"""The command line at scale: sketches, inverses, compression, stores and logs."""

from __future__ import annotations

import json
import re

import pytest
import torch
from test_cli import tlxml, trained  # noqa: F401

from tlxml_fast import Scores

WAYS = {
    "fisher": ["--curvature", "fisher", "--rows-per-task", "4"],
    "woodbury": ["--inverse", "woodbury", "--damping", "1e-2x"],
    "cg": ["--inverse", "cg", "--damping", "1e-1x", "--tol", "1e-3", "--preconditioner", "sketch"],
    "nystrom": ["--inverse", "nystrom", "--rank", "20"],
    "lanczos": ["--inverse", "lanczos", "--rank", "5"],
    "compressed": [
        "--curvature",
        "fisher",
        "--inverse",
        "dense",
        "--compress",
        "sjlt:32",
        "--storage",
        "bfloat16",
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_scores_and_a_certificate(trained, tmp_path, way):  # noqa: F811
    done = tlxml("influence", trained, "--out", tmp_path, "--test-tasks", 3, *WAYS[way])
    assert done.returncode == 0, done.stderr
    scores = Scores.load(tmp_path / "scores.safetensors")
    assert scores.values.shape == (3, 12)
    assert len(scores.info["certificate"]["residuals"]) == 3


def test_only_the_ends_of_the_ranking(trained, tmp_path):  # noqa: F811
    given = ["influence", trained, "--out", tmp_path, "--test-tasks", 3, *WAYS["fisher"]]
    assert tlxml(*given).returncode == 0
    scores = Scores.load(tmp_path / "scores.safetensors")
    (tmp_path / "scores.safetensors").unlink()
    done = tlxml(*given, "--top", 4)
    assert done.returncode == 0, done.stderr
    assert f"The ranking is {tmp_path / 'ranking.json'}" in done.stdout.replace("\n", "")
    assert not (tmp_path / "scores.safetensors").exists()
    found = json.loads((tmp_path / "ranking.json").read_text())
    assert found["target"] == "loss"
    assert found["info"]["training_tasks"] == 12
    for end, ranking in (("helpful", scores.helpful(4)), ("harmful", scores.harmful(4))):
        for i, test in enumerate(found["test"]):
            assert test["name"] == scores.test.names[i]
            assert [row["position"] for row in test[end]] == ranking.indices[i].tolist()
            assert [row["train"] for row in test[end]] == [scores.train.names[j] for j in ranking.indices[i]]
            assert [row["score"] for row in test[end]] == pytest.approx(ranking.values[i].tolist(), rel=1e-4)
    wrong = tlxml(*given, "--top", 0)
    assert wrong.returncode == 2
    assert "top is between 1 and 1,024, not 0" in wrong.stderr


def test_store_log_and_report(trained, tmp_path):  # noqa: F811
    store, log, records = tmp_path / "store", tmp_path / "run.log", tmp_path / "run.jsonl"
    command = ["influence", trained, "--out", tmp_path, "--test-tasks", 3, *WAYS["fisher"], "--store", store]
    command += ["--memory", "2GiB", "--log-file", log, "--log-json", records, "--quiet"]
    values = []
    for _ in range(2):
        done = tlxml(*command)
        assert done.returncode == 0, done.stderr
        assert "/12" not in done.stderr  # quiet
        values.append(Scores.load(tmp_path / "scores.safetensors").values)
    assert torch.equal(*values)
    events = [json.loads(line) for line in records.read_text().splitlines()]
    rows = [e for e in events if e.get("phase") == "Fisher rows"]
    assert rows[-1]["done"] == rows[-1]["total"] == 12
    assert events[-1]["event"] == "done"
    assert "Fisher rows: 12/12" in log.read_text()
    resumed = [e for e in events if e["event"] == "resume"]
    assert len(resumed) == 1  # the second time
    assert f"going on from {store}, which has gradients in 1 of 1 shards" in log.read_text()

    done = tlxml("store", "verify", store, "--quiet")
    assert done.returncode == 0, done.stderr
    assert "nothing is damaged" in done.stdout
    shown = tlxml("store", "show", store).stdout
    assert max(map(len, shown.splitlines())) < 120
    assert "2 GiB" in shown
    assert "12 in 1 shards" in tlxml("store", "show", store).stdout
    assert tlxml("report", tmp_path).returncode == 0
    assert "Certificate of the solve" in (tmp_path / "report.html").read_text()

    shard = next(store.glob("shards/gradients/*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    done = tlxml("store", "verify", store, "--quiet")
    assert done.returncode == 2
    assert shard.name in done.stdout


REFUSED = {
    "an unknown inverse": (["--inverse", "magic"], "inverse is one of dense"),
    "an option of another inverse": (["--inverse", "dense", "--tol", "1e-3"], "dense takes no tol"),
    "no rank": (["--inverse", "nystrom"], "nystrom needs a rank"),
    "no dimension": (["--compress", "sjlt"], "such as sjlt:2048"),
    "an unknown compression": (["--compress", "zip:9"], "compress is one of"),
    "storage of nothing": (["--storage", "bfloat16"], "give compress too"),
    "too little memory": (["--memory", "10MB"], "at least 1.0 GiB"),
    "no size": (["--memory", "plenty"], "memory is a size"),
    "no rows": (["--curvature", "fisher", "--rows-per-task", "0"], "rows_per_task"),
    "rows of the Hessian": (
        ["--curvature", "hessian", "--inverse", "woodbury"],
        "Hessian matrix has no rows",
    ),
    "a rank that is no damping": (["--inverse", "cg", "--rank", "3"], "cg takes no rank"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(trained, tmp_path, case):  # noqa: F811
    options, message = REFUSED[case]
    done = tlxml("influence", trained, "--out", tmp_path, *options)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.replace("\n", " ")
    assert not (tmp_path / "scores.safetensors").exists()


def test_a_store_of_another_run_is_refused(trained, tmp_path):  # noqa: F811
    store = ["--store", tmp_path / "store", "--out", tmp_path, "--test-tasks", 2]
    assert tlxml("influence", trained, *store).returncode == 0
    done = tlxml("influence", trained, *store, "--dtype", "float64")
    assert done.returncode == 2
    assert "dtype" in done.stderr


def test_torchrun_takes_no_option_for_one_of_its_own():
    from torch.distributed.run import get_args_parser

    options = re.findall(r"(--[a-z-]+) ", tlxml("influence", "--help").stdout)
    assert "--log-file" in options
    for option in options:
        found = get_args_parser().parse_args(
            ["--nproc-per-node=2", "-m", "tlxml_fast", "influence", option, "x"]
        )
        assert found.training_script_args == ["influence", option, "x"], option


def test_less_memory_than_the_store_was_made_with_is_refused(trained, tmp_path):  # noqa: F811
    command = [
        "influence",
        trained,
        "--out",
        tmp_path,
        "--test-tasks",
        3,
        *WAYS["fisher"],
        "--store",
        tmp_path / "s",
    ]
    assert tlxml(*command, "--memory", "2GiB").returncode == 0
    done = tlxml(*command, "--memory", "1GiB")
    assert done.returncode == 2
    said = "was made with memory 2.0 GiB, which chose its chunks, and this run is allowed 1.0 GiB"
    assert said in " ".join(done.stderr.split())
    assert tlxml(*command).returncode == tlxml(*command, "--memory", "3GiB").returncode == 0
    shown = tlxml("store", "show", tmp_path / "s")
    assert "in 1 shards of 256" in shown.stdout  # room for tasks to come
