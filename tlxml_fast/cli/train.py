"""tlxml-fast train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..data.spec import TaskSpec
from ..runs import CHECKPOINT, ModelSpec, train_run
from .common import Device, Out, Quiet, Seed, console


def train(
    out: Out = Path("runs/train"),
    data: Annotated[str, typer.Option(help="glyphs, digits, omniglot or folder.")] = "glyphs",
    data_path: Annotated[str | None, typer.Option(help="Where omniglot or folder lies.")] = None,
    split: Annotated[str, typer.Option(help="The classes to train on.")] = "train",
    held_out: Annotated[str, typer.Option(help="The classes to judge on.")] = "test",
    image_size: int = 28,
    tasks: Annotated[int, typer.Option(help="Training tasks.")] = 256,
    eval_tasks: Annotated[int, typer.Option(help="Held-out tasks.")] = 200,
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between evaluations; at the end only if not given.")
    ] = None,
    ways: int = 5,
    shots: int = 5,
    queries: Annotated[int, typer.Option(help="Query examples a class.")] = 15,
    learner: Annotated[str, typer.Option(help="protonet or maml.")] = "protonet",
    model: Annotated[str, typer.Option(help="conv4 or mlp.")] = "conv4",
    hidden: Annotated[int, typer.Option(help="Filters of conv4, width of mlp.")] = 64,
    norm: Annotated[
        str, typer.Option(help="BatchNorm by the batch's or the running statistics: batch or running.")
    ] = "batch",
    distance: Annotated[
        str, typer.Option(help="ProtoNet: sqeuclidean, euclidean or cosine.")
    ] = "sqeuclidean",
    scale: Annotated[float, typer.Option(help="ProtoNet: what distances are multiplied by.")] = 1.0,
    inner_lr: Annotated[float, typer.Option(help="MAML: α, for mean losses.")] = 0.4,
    inner_steps: Annotated[int, typer.Option(help="MAML: steps in training.")] = 1,
    inner_steps_eval: Annotated[int | None, typer.Option(help="MAML: steps on a new task.")] = None,
    adapt: Annotated[list[str] | None, typer.Option(help="MAML: what is adapted; 'head' for ANIL.")] = None,
    steps: Annotated[int, typer.Option(help="Meta-updates.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Tasks a meta-update.")] = 4,
    optimizer: Annotated[str, typer.Option(help="adam, sgd or adamw.")] = "adam",
    lr: float = 1e-3,
    schedule: Annotated[str, typer.Option(help="constant or cosine.")] = "cosine",
    weight_decay: Annotated[float, typer.Option(help="δ of (δ/2)‖ω‖².")] = 0.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Meta-train a learner and judge it on tasks of classes it has not seen."""
    shape = {"ways": ways, "shots": shots, "queries": queries, "image_size": image_size}
    data_path = None if data_path is None else str(Path(data_path).expanduser().resolve())
    made = train_run(
        out,
        TaskSpec(data, data_path, split, tasks, seed=seed, **shape),
        TaskSpec(data, data_path, held_out, eval_tasks, seed=seed + 1, **shape),
        ModelSpec(
            learner,
            model,
            hidden,
            norm,
            distance,
            scale,
            inner_lr,
            inner_steps,
            inner_steps_eval,
            _names(adapt),
        ),
        seed=seed,
        device=device,
        progress=not quiet,
        steps=steps,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        schedule=schedule,
        weight_decay=weight_decay,
        val_every=eval_every,
        resume=resume,
    )
    last = made.training["history"][-1]
    console.print(
        f"Held-out accuracy {last['accuracy']:.2%} ± {last['accuracy_interval']:.2%} over {last['tasks']} tasks.\n"
        f"The checkpoint is {out / CHECKPOINT}",
        highlight=False,
    )


def _names(adapt: list[str] | None) -> list[str] | str | None:
    return adapt[0] if adapt is not None and len(adapt) == 1 else adapt
