"""The diagnosis of a run: from what `train` and `influence` left in its directory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ..checkpoint import load_checkpoint
from ..compression import Compression
from ..curvature import Curvature, GaussNewton, Identity
from ..data.spec import TaskSpec
from ..errors import CheckpointError, TlxError
from ..files import understanding, write_json
from ..influence import TaskInfluence
from ..progress import logged
from ..runs import CHECKPOINT, DIAGNOSIS, SCORES, existing, open_device, require_writable, task_specs
from ..scores import Scores
from ..solvers import Dense, Inverse, Relative
from .diagnose import Diagnosis, check_arguments, diagnose
from .retrain import require_retrainable
from .retrain import retrain as train_again
from .settings import compression_of, curvature_of, inverse_of

RETRAINED = "retrained"
TEST_TASKS = 32


class Method(NamedTuple):
    """How scores are computed."""

    curvature: Curvature
    inverse: Inverse
    compression: Compression | None = None


def diagnose_run(
    run: Path,
    out: Path,
    *,
    method: Method | None = None,
    train_tasks: int | None = None,
    test_tasks: int | None = None,
    test_seed: int | None = None,
    target: str | None = None,
    backend: str = "auto",
    dtype: torch.dtype | None = None,
    store: Path | None = None,
    memory: str | None = None,
    device: str = "cpu",
    log: Path | None = None,
    log_json: Path | None = None,
    progress: bool = True,
    retrain: int = 0,
    hessian_tasks: int | None = None,
) -> Diagnosis:
    """`diagnose` of a run's influence, left in OUT/diagnosis.json.

    What is not given is as for the scores in OUT, or in the run; where there are none, Gauss-Newton curvature, Dense
    with a damping of 10⁻³ of the largest eigenvalue, all training tasks, and 32 held-out ones.

    run      the directory that train made, or a checkpoint of its
    retrain  how many times the run is trained again from other seeds, kept in OUT/retrained

    Raises CheckpointError and TlxError before any work for what does not fit, and what `diagnose` raises.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TlxError("a diagnosis is made by one process; run it without torchrun")
    if retrain < 0:
        raise TlxError(f"retrain is a number of training runs, not {retrain}")
    checkpoint = run if run.is_file() else existing(run / CHECKPOINT, "train")
    learner = load_checkpoint(checkpoint)
    where = open_device(device)
    learner.module.to(where)
    trained_on, held_out = task_specs(learner, checkpoint)
    if train_tasks is not None and not 1 <= train_tasks <= trained_on.count:
        raise CheckpointError(
            f"{run} was trained on {trained_on.count} tasks; the first {train_tasks} do not exist"
        )
    found = _as_scored(_scores(out, checkpoint.parent), trained_on, held_out)
    method, target = method or found.method, target or found.target
    if isinstance(method.curvature, Identity):
        raise TlxError("products of gradients use no curvature: there is no assumption to diagnose")
    train, test = _changed(found.train, train_tasks), _changed(found.test, test_tasks, test_seed)
    check_arguments(target, hessian_tasks)
    if retrain:
        require_retrainable(learner, checkpoint)
    require_writable(out)
    with logged(log, log_json) as logs:
        influence = TaskInfluence(
            learner,
            method.curvature,
            method.inverse,
            backend,
            dtype or found.dtype,
            progress=progress,
            compression=method.compression,
            memory=memory,
            store=store,
        )
        influence.fit(train.tasks())
        again = train_again(checkpoint, trained_on.tasks(), retrain, out / RETRAINED, where, progress)
        made = diagnose(influence, test.tasks(), target=target, retrained=again, hessian_tasks=hessian_tasks)
        tasks = {"train": train.describe(), "test": test.describe()}
        made = replace(made, info={**made.info, "tasks": tasks})
        write_json(out / DIAGNOSIS, made.describe())
        for written in logs:
            path = str(out / DIAGNOSIS)
            written.event("done", f"the diagnosis is {path}", diagnosis=path, grade=made.grade)
    return made


class _Scored(NamedTuple):
    """What scores were computed of, and how."""

    train: TaskSpec
    test: TaskSpec
    method: Method
    target: str = "loss"
    dtype: torch.dtype | None = None


def _as_scored(scores: Scores | None, trained_on: TaskSpec, held_out: TaskSpec) -> _Scored:
    """As the scores were; the defaults of `tlxml-fast influence` where there are none."""
    if scores is None:
        return _Scored(
            trained_on, replace(held_out, count=TEST_TASKS), Method(GaussNewton(), Dense(Relative(1e-3)))
        )
    with understanding(SCORES):
        info = scores.info
        train, test = (TaskSpec(**info["tasks"][side]) for side in ("train", "test"))
        curvature = curvature_of(info["curvature"])
        inverse = Dense() if isinstance(curvature, Identity) else inverse_of(info["curvature"])
        method = Method(curvature, inverse, compression_of(info["compression"]))
        return _Scored(train, test, method, scores.target, getattr(torch, info["dtype"]))


def _changed(spec: TaskSpec, count: int | None, seed: int | None = None) -> TaskSpec:
    """With another number of tasks, or another seed, where one is given."""
    return replace(
        spec, count=spec.count if count is None else count, seed=spec.seed if seed is None else seed
    )


def _scores(*places: Path) -> Scores | None:
    """The first scores there are."""
    for place in places:
        if (place / SCORES).exists():
            scores = Scores.load(place / SCORES)
            if "tasks" not in scores.info:
                raise CheckpointError(
                    f"{place / SCORES} does not say where its tasks come from; use tlxml_fast.diagnose"
                )
            return scores
    return None
