"""Runs: the steps of the command line as functions over one directory.

DIR/checkpoint.safetensors   train: the learner, its δ, its history, the tasks it was trained on
DIR/scores.safetensors       influence: the scores, their names, how they were computed
DIR/ranking.json             influence with top: the ends of each test task's ranking, and the same
DIR/diagnosis.json           diagnose
DIR/report.html              report
DIR/profile.json, trace.json profile: what each operation took, and when it ran
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .checkpoint import load_checkpoint
from .compression import Compression
from .curvature import Curvature
from .data.spec import TaskSpec
from .diagnosis import diagnosis_of
from .distributed import joined, local_device
from .errors import BackendError, CheckpointError, InfluenceWarning, LearnerError, TlxError
from .files import write_json
from .influence import TaskInfluence
from .learners import MAML, Learner, ProtoNet
from .models import conv4, mlp
from .ops.topk import K_MAX
from .profiling import Profile, span
from .progress import logged, say
from .report import write_report
from .scores import Scores
from .solvers import Inverse
from .store import in_words
from .streamed import StreamedScores
from .targets import check_target
from .task import TaskSet
from .training import meta_train

CHECKPOINT, SCORES, REPORT = "checkpoint.safetensors", "scores.safetensors", "report.html"
DIAGNOSIS, RANKING = "diagnosis.json", "ranking.json"
PROFILE, TRACE = "profile.json", "trace.json"


@dataclass(frozen=True)
class ModelSpec:
    """Which learner to build over which model."""

    learner: str = "protonet"
    model: str = "conv4"
    hidden: int = 64
    norm: str = "batch"
    distance: str = "sqeuclidean"
    scale: float = 1.0
    inner_lr: float = 0.4
    inner_steps: int = 1
    inner_steps_eval: int | None = None
    adapt: Sequence[str] | str | None = None
    first_order: bool = False

    def build(self, features: tuple[int, ...], ways: int, seed: int) -> Learner:
        """A freshly initialised learner for inputs of shape `features`."""
        if self.learner == "protonet":
            return ProtoNet(
                self._module(features, None, seed), self.distance, norm=self.norm, scale=self.scale
            )
        if self.learner == "maml":
            return MAML(
                self._module(features, ways, seed),
                self.inner_lr,
                self.inner_steps,
                self.inner_steps_eval,
                self.adapt,
                self.norm,
                first_order=self.first_order,
            )
        raise LearnerError(f"the learner is 'protonet' or 'maml', not {self.learner!r}")

    def _module(self, features: tuple[int, ...], ways: int | None, seed: int) -> nn.Module:
        if self.model == "mlp":
            size = torch.Size(features).numel()
            return mlp(size, self.hidden, self.hidden if ways is None else ways, seed=seed)
        if self.model != "conv4":
            raise LearnerError(f"the model is 'conv4' or 'mlp', not {self.model!r}")
        return conv4(self.hidden, features[0], features[1], ways, seed=seed)


def train_run(
    out: Path,
    tasks: TaskSpec,
    held_out: TaskSpec,
    model: ModelSpec,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    **training: Any,
) -> Learner:
    """Meta-train on `tasks`, judge on `held_out`, and leave DIR/checkpoint.safetensors."""
    where = open_device(device)
    require_writable(out)
    train, val = tasks.tasks(), held_out.tasks()
    learner = model.build(train[0].shape.features, tasks.ways, seed)
    learner.module.to(where)
    for stale in (SCORES, RANKING, REPORT, PROFILE, TRACE, DIAGNOSIS):  # they are of another checkpoint
        (out / stale).unlink(missing_ok=True)
    meta_train(
        learner,
        train,
        val_tasks=val,
        seed=seed,
        progress=progress,
        checkpoint=out / CHECKPOINT,
        origin={"tasks": tasks.describe(), "held_out": held_out.describe()},
        **training,
    )
    return learner


def influence_run(
    run: Path,
    out: Path,
    *,
    curvature: Curvature,
    inverse: Inverse,
    train_tasks: int | None = None,
    test_tasks: int = 32,
    test_seed: int | None = None,
    target: str = "loss",
    backend: str = "auto",
    dtype: torch.dtype | None = None,
    compression: Compression | None = None,
    store: Path | None = None,
    memory: str | None = None,
    top: int | None = None,
    device: str = "cpu",
    log: Path | None = None,
    log_json: Path | None = None,
    progress: bool = True,
) -> Scores | StreamedScores | None:
    """Influence of the run's training tasks on held-out tasks, left in OUT/scores.safetensors.

    run          the directory that train made, or a checkpoint of its
    train_tasks  how many of the tasks trained on; all unless given
    test_seed    of the held-out tasks; those training was judged on unless given
    store        what is computed on the way is kept there, and read where it is there
    top          only so many of either end of each test task's ranking, left in OUT/ranking.json: there are never all
                 scores in memory
    log          a file that progress is appended to; log_json as JSON lines

    Under torchrun every process calls it, and one of them writes: the others get None.
    """
    start = time.perf_counter()
    check_target(target)
    if top is not None and not 1 <= top <= K_MAX:
        raise TlxError(f"top is between 1 and {K_MAX:,}, not {top}")
    checkpoint = run if run.is_file() else existing(run / CHECKPOINT, "train")
    with span("read checkpoint"):
        learner = load_checkpoint(checkpoint)
    learner.module.to(open_device(device))
    train, test = task_specs(learner, checkpoint)
    if train_tasks is not None and not 1 <= train_tasks <= train.count:
        raise CheckpointError(
            f"{run} was trained on {train.count} tasks; the first {train_tasks} of them do not exist"
        )
    train = replace(train, count=train.count if train_tasks is None else train_tasks)
    test = replace(test, count=test_tasks, seed=test.seed if test_seed is None else test_seed)
    require_writable(out)
    with joined(device) as world, logged(*(log, log_json) if world.leads else ()) as logs:
        with span("make tasks"):
            train_set, test_set = train.tasks(), TaskSet(test.tasks())
        if store is not None and world.leads and (known := in_words(store, len(train_set))):
            say(known, progress, "resume")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InfluenceWarning)
            influence = TaskInfluence(
                learner,
                curvature,
                inverse,
                backend,
                dtype,
                progress=progress and world.leads,
                compression=compression,
                memory=memory,
                store=store,
            )
            influence.fit(train_set)
            if top is None:
                scores = influence.scores(test_set, target=target)
            else:
                scores = influence.stream_scores(test_set, target=target)
                scores.ranked(top)
        if not world.leads:
            return None
        for warning in caught:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        said = [str(w.message) for w in caught if issubclass(w.category, InfluenceWarning)]
        info = {
            **scores.info,
            "training": learner.training,
            "tasks": {"train": train.describe(), "test": test.describe()},
            "warnings": said,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": {**scores.info["seconds"], "total": time.perf_counter() - start},
        }
        scores = replace(scores, info=info)
        written_to = out / (SCORES if top is None else RANKING)
        with span("write scores"):
            if top is None:
                scores.save(written_to)
            else:
                scores.save_ranked(written_to, top)
        for written in logs:
            for text in said:
                written.event("warning", f"warning: {text}", message=text)
            seconds = info["seconds"]
            written.event("done", f"the scores are {written_to}", scores=str(written_to), seconds=seconds)
        return scores


def profile_run(run: Path, out: Path, *, device: str = "cpu", **options: Any) -> tuple[Scores, Profile]:
    """`influence_run` under a profiler, which leaves OUT/profile.json and OUT/trace.json."""
    with Profile(open_device(device)) as profile:
        scores = influence_run(run, out, device=device, **options)
    profile.dtype = getattr(torch, scores.info["dtype"])
    write_json(out / PROFILE, profile.describe())
    profile.write_trace(out / TRACE)
    return scores, profile


def report_run(run: Path, path: Path, command: str = "") -> None:
    """The report of OUT/scores.safetensors; its tasks are made again and checked against the scores.

    With OUT/diagnosis.json, where that is of these scores; one of others is left out with a warning.
    """
    scores = Scores.load(existing(run / SCORES, "influence"))
    if "tasks" not in scores.info:
        raise CheckpointError(
            f"{run / SCORES} does not say where its tasks come from; call write_report with them"
        )
    train, test = (TaskSpec(**scores.info["tasks"][side]) for side in ("train", "test"))
    diagnosis = diagnosis_of(run / DIAGNOSIS, scores)
    found = {} if diagnosis is None else {"diagnosis": diagnosis}
    write_report(path, scores, train.tasks(), test.tasks(), {"command": command, **found})


def task_specs(learner: Learner, path: Path) -> tuple[TaskSpec, TaskSpec]:
    """Where a trained learner's training and held-out tasks come from."""
    origin = learner.training.get("origin") or {}
    if set(origin) != {"tasks", "held_out"}:
        raise CheckpointError(
            f"{path} does not say which tasks it was trained on; use TaskInfluence from Python"
        )
    return TaskSpec(**origin["tasks"]), TaskSpec(**origin["held_out"])


def require_writable(out: Path) -> None:
    """Raise OSError, which names the place, before the work rather than after it."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        pass


def open_device(name: str) -> torch.device:
    """The device, of this process where torchrun started several, or one sentence on why there is none."""
    name = local_device(name)
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise BackendError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None


def existing(path: Path, command: str) -> Path:
    if not path.exists():
        raise CheckpointError(f"there is no {path}; `tlxml-fast {command}` makes it")
    return path
