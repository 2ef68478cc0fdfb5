"""Meta-training and evaluation of any learner."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint import load_checkpoint, restore_optimizer, save_checkpoint
from .errors import CheckpointError, InfluenceWarning, LearnerError, TaskError
from .learners import Episode, Learner
from .learners.body import Body
from .linearize import MetaGradient, Unsupported
from .parallel import Map, task_threads
from .progress import progress_bar
from .task import Task, TaskSet

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Evaluation:
    """Query accuracy and loss over tasks; ± are 95% intervals, 1.96 standard errors over tasks."""

    accuracy: float
    accuracy_interval: float
    loss: float
    loss_interval: float
    tasks: int

    def __str__(self) -> str:
        if np.isnan(self.accuracy):
            return f"loss {self.loss:.4f} ± {self.loss_interval:.4f}"
        return f"accuracy {self.accuracy:.2%} ± {self.accuracy_interval:.2%}, loss {self.loss:.4f}"


def evaluate(learner: Learner, tasks: TaskSet, progress: bool = False) -> Evaluation:
    """Adapt to every task (with the learner's evaluation steps) and judge its query set.

    For regression tasks the accuracy is NaN. Raises TaskError for a task without query labels.
    """
    if len(tasks) == 0:
        raise TaskError("there are no tasks to evaluate on")
    learner = learner.at_evaluation()
    learner.check(tasks[0])
    omega = {name: p.detach() for name, p in learner.parameters().items()}

    def judge(task: Task) -> tuple[float, float]:
        logits, y, loss = _forward(learner, omega, task)
        loss = float(loss)
        if not np.isfinite(loss):
            raise TaskError(f"the loss of task {task.label!r} is {loss}")
        hits = float("nan") if task.regression else float((logits.argmax(-1) == y).double().mean())
        return hits, loss

    rows = []
    on_cpu = next(iter(omega.values())).device.type == "cpu"
    with task_threads(on_cpu) as each, progress_bar("evaluate", len(tasks), progress) as advance:
        for row in each(judge, tasks):
            rows.append(row)
            advance()
    table = np.array(rows)
    spread = 1.96 * table.std(0, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.full(2, np.nan)
    return Evaluation(
        *(float(v) for v in (table[:, 0].mean(), spread[0], table[:, 1].mean(), spread[1])), len(rows)
    )


def meta_train(
    learner: Learner,
    tasks: TaskSet,
    *,
    steps: int = 1000,
    batch_size: int = 16,
    optimizer: str = "adam",
    lr: float = 1e-3,
    schedule: str = "constant",
    weight_decay: float = 0.0,
    val_tasks: TaskSet | None = None,
    val_every: int | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    origin: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Minimise (1/M) Σ_t L_t(ω) + (δ/2)‖ω‖² over the learner's meta-parameters, in place.

    tasks         M training tasks; step s draws `batch_size` of them without replacement, from (seed, s) alone.
                  A lazy set far larger than steps × batch_size amounts to fresh episodes for ever
    optimizer     "adam" or "sgd" (both with coupled decay δω); "adamw" decays weights outside the loss, so
                  its ω minimises something else: it warns, and records no δ
    schedule      of the learning rate: "constant", or "cosine" to zero at the last step
    weight_decay  δ, recorded on the learner and in the checkpoint
    val_tasks     judged every `val_every` steps (and at the end)
    checkpoint    written every `checkpoint_every` steps and at the end; with `resume`, read first: the run ends
                  bit for bit as if it had never stopped
    origin        where the tasks come from, JSON, recorded in the checkpoint

    Returns the history: a dict per validation. Raises TaskError naming a task whose loss is not finite.
    """
    _check(steps, batch_size, optimizer, schedule, lr, weight_decay, seed, tasks)
    seed, weight_decay = int(seed), float(weight_decay)  # numpy's numbers are not JSON
    if val_tasks is not None and (len(val_tasks) == 0 or val_tasks[0].query_y is None):
        raise TaskError(
            "val_tasks have no query labels to be judged by" if len(val_tasks) else "val_tasks is empty"
        )
    if val_every is not None and val_every < 1:
        raise LearnerError(f"val_every is at least 1, not {val_every}")
    learner.with_body(Body(learner.module)).check(tasks[0])  # with batch statistics: none may have run yet
    settings = {
        "tasks": len(tasks),
        "steps": steps,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "lr": lr,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "seed": seed,
    }
    parameters = learner.parameters()
    for name, p in parameters.items():
        if not p.requires_grad:
            raise LearnerError(
                f"parameter {name!r} asks for no gradient; call requires_grad_() on it before training"
            )
    optim = OPTIMIZERS[optimizer](list(parameters.values()), lr=lr, weight_decay=weight_decay)
    done, history = 0, []
    if resume and checkpoint is not None and Path(checkpoint).exists():
        done, history = _resume(checkpoint, learner, optim, settings)
    if optimizer == "adamw" and weight_decay:
        warnings.warn(
            "AdamW's decoupled decay is not (δ/2)‖ω‖² in the loss: influence cannot account for it",
            InfluenceWarning,
            stacklevel=2,
        )
    learner.weight_decay = None if optimizer == "adamw" and weight_decay else weight_decay

    def record() -> None:
        learner.training = {**settings, "done": done, "history": history, "origin": dict(origin or {})}

    def save() -> None:
        record()
        if checkpoint is not None:
            save_checkpoint(checkpoint, learner, optim)

    trained = learner.for_training()
    native = _native_gradient(trained, learner)
    # running statistics are updated one task after another
    parallel = trained is learner and next(iter(parameters.values())).device.type == "cpu"
    with (
        task_threads(parallel) as each,
        progress_bar(f"meta-train {learner.kind}", steps, progress) as advance,
    ):
        advance(done)
        while done < steps:
            if schedule == "cosine":
                optim.param_groups[0]["lr"] = lr * 0.5 * (1 + np.cos(np.pi * done / steps))
            drawn = [tasks[int(i)] for i in _draw(seed, done, len(tasks), batch_size)]
            loss = _step(trained, parameters, optim, drawn, each, native)
            done += 1
            if val_tasks is not None and (done == steps or (val_every and done % val_every == 0)):
                result = evaluate(learner, val_tasks)
                history.append({"step": done, **vars(result)})
            note = f"loss {loss:.4f}" + (f", held-out {history[-1]['accuracy']:.2%}" if history else "")
            advance(1, note)
            if done == steps or done % checkpoint_every == 0:
                save()
    record()
    return history


def _step(
    learner: Learner,
    parameters: dict[str, Tensor],
    optim: torch.optim.Optimizer,
    tasks: list[Task],
    each: Map,
    native: MetaGradient | None,
) -> float:
    """One step on the mean loss of the tasks; the mean loss."""

    @torch.enable_grad()
    def loss_and_gradient(task: Task) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        _, _, loss = _forward(learner, parameters, task)
        return loss.detach(), torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)

    def by_engine(task: Task) -> tuple[Tensor, list[Tensor]]:
        _need_labels(task)
        loss, gradient = native(omega, task)
        return loss, list(native.flat.unflatten(gradient).values())

    if native is not None:
        omega = native.flat.flatten(parameters).detach()
    optim.zero_grad()
    total = 0.0
    way = loss_and_gradient if native is None else by_engine
    for task, (loss, gradients) in zip(tasks, each(way, tasks), strict=True):
        if not torch.isfinite(loss):
            raise TaskError(f"the loss of task {task.label!r} is {float(loss)} during meta-training")
        total += float(loss)
        for p, g in zip(parameters.values(), gradients, strict=True):
            if g is not None:
                p.grad = g / len(tasks) if p.grad is None else p.grad.add_(g, alpha=1 / len(tasks))
    optim.step()
    return total / len(tasks)


def _native_gradient(trained: Learner, learner: Learner) -> MetaGradient | None:
    """The engine's meta-gradient; None where autograd takes it: no core, no plan, running statistics to update."""
    if trained is not learner:
        return None
    try:
        return MetaGradient(learner)
    except Unsupported:
        return None


def _forward(learner: Learner, omega: dict[str, Tensor], task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Query logits, query labels and the loss of one task, in ω's dtype and on its device."""
    _need_labels(task)
    like = next(iter(omega.values()))
    y = task.query_y.to(like.device, like.dtype if task.regression else torch.int64)
    try:
        logits = learner.query_logits(omega, Episode.of(task, like.dtype, like.device), task.ways)
        return logits, y, learner.loss(logits, y)
    except LearnerError as error:
        raise LearnerError(f"task {task.label!r}: {error}") from None


def _need_labels(task: Task) -> None:
    if task.query_y is None:
        raise TaskError(f"task {task.label!r} has no query labels to be judged by")


def _draw(seed: int, step: int, tasks: int, batch_size: int) -> np.ndarray:
    return np.random.default_rng([seed, step]).choice(tasks, min(batch_size, tasks), replace=False)


def _resume(
    path: str | os.PathLike[str], learner: Learner, optim: torch.optim.Optimizer, settings: dict[str, Any]
) -> tuple[int, list[dict[str, Any]]]:
    saved = load_checkpoint(path, learner.module)
    if saved.describe() != learner.describe():
        raise CheckpointError(f"{path} holds a learner with other settings: {saved.describe()}")
    for name, value in settings.items():
        if saved.training.get(name) != value:
            raise CheckpointError(
                f"{path} was trained with {name}={saved.training.get(name)!r}, not {value!r}"
            )
    with torch.no_grad():
        for p, q in zip(learner.parameters().values(), saved.parameters().values(), strict=True):
            p.copy_(q)
    restore_optimizer(path, learner, optim)
    return saved.training["done"], list(saved.training["history"])


def _check(
    steps: int,
    batch_size: int,
    optimizer: str,
    schedule: str,
    lr: float,
    weight_decay: float,
    seed: int,
    tasks: TaskSet,
) -> None:
    if optimizer not in OPTIMIZERS:
        raise LearnerError(f"optimizer is one of {', '.join(OPTIMIZERS)}, not {optimizer!r}")
    if schedule not in SCHEDULES:
        raise LearnerError(f"schedule is one of {', '.join(SCHEDULES)}, not {schedule!r}")
    for name, value, least in (
        ("steps", steps, 1),
        ("batch_size", batch_size, 1),
        ("weight_decay", weight_decay, 0),
    ):
        if not least <= value < float("inf"):
            raise LearnerError(f"{name} is at least {least} and finite, not {value}")
    if not 0 < lr < float("inf"):
        raise LearnerError(f"lr is positive and finite, not {lr}")
    if seed < 0:
        raise LearnerError(f"seed is at least 0, not {seed}")
    if len(tasks) == 0:
        raise TaskError("there are no tasks to train on")
