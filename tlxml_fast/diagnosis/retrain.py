"""The same training run from other seeds."""

from __future__ import annotations

from pathlib import Path

import torch

from ..checkpoint import load_checkpoint
from ..errors import LearnerError
from ..kept import digest
from ..learners import Learner
from ..models import from_spec
from ..task import TaskSet
from ..training import meta_train

SETTINGS = ("steps", "batch_size", "optimizer", "lr", "schedule", "weight_decay")


def require_retrainable(learner: Learner, checkpoint: Path) -> None:
    """Raise LearnerError where the checkpoint does not say how to begin again: learned rates, a run cut short."""
    if getattr(learner, "learn_inner_lr", False):
        raise LearnerError(
            f"{checkpoint} has learned inner rates, and does not say what they were at the start"
        )
    missing = [name for name in ("seed", "done", *SETTINGS) if name not in learner.training]
    if missing:
        raise LearnerError(f"{checkpoint} was not trained by meta_train: it does not say its {missing[0]}")
    done, steps = learner.training["done"], learner.training["steps"]
    if done < steps:
        raise LearnerError(f"{checkpoint} stopped after {done} of {steps} steps; train it to its end")


def retrain(
    checkpoint: Path, tasks: TaskSet, count: int, out: Path, device: torch.device, progress: bool
) -> list[Learner]:
    """`count` learners trained as the checkpoint's was, on the same tasks, from other initial weights and batches.

    Each is kept in `out` as it is trained, and training goes on from there: a name holds what it was trained as. The
    k-th has the run's seed plus k.
    """
    made = []
    for k in range(1, count + 1):
        learner = load_checkpoint(checkpoint)
        record, spec = learner.training, learner.module.spec
        settings = {key: value for key, value in record.items() if key != "history"}
        name = digest({"learner": learner.describe(), "module": spec, "training": settings})
        learner.module.load_state_dict(from_spec({**spec, "seed": record["seed"] + k}).state_dict())
        learner.module.to(device)
        meta_train(
            learner,
            tasks,
            seed=record["seed"] + k,
            progress=progress,
            checkpoint=out / f"{name}-{k}.safetensors",
            resume=True,
            **{setting: record[setting] for setting in SETTINGS},
        )
        made.append(learner)
    return made
