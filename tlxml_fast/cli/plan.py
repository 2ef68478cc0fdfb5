"""tlxml-fast plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..files import write_json
from .inverses import compression_of

WIDTH = 100


def plan(
    run: Annotated[
        Path | None, typer.Argument(help="A directory that train made: its model and tasks.")
    ] = None,
    learner: Annotated[str, typer.Option(help="protonet or maml.")] = "protonet",
    model: Annotated[
        str | None, typer.Option(help="conv4 or mlp; conv4 unless only --params is given.")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Filters of conv4, width of mlp.")] = 64,
    inner_steps: Annotated[int, typer.Option(help="maml: steps.")] = 1,
    image_size: int = 28,
    ways: int = 5,
    shots: int = 5,
    queries: Annotated[int, typer.Option(help="Query examples a class.")] = 15,
    tasks: Annotated[
        str | None, typer.Option(help="Training tasks, such as 1e6; the run's unless given.")
    ] = None,
    test_tasks: Annotated[str, typer.Option(help="Held-out tasks.")] = "128",
    params: Annotated[
        str | None,
        typer.Option(
            help="Parameters, such as 1e7, in the place of the model's: each used as often as one of its."
        ),
    ] = None,
    rows_per_task: Annotated[int, typer.Option(help="Sketched rows of a task.")] = 8,
    compress: Annotated[
        str | None,
        typer.Option(help="Project gradients as they are produced: sjlt:2048, srht:… or rademacher:…"),
    ] = None,
    storage: Annotated[str, typer.Option(help="Of what is compressed: float32 or bfloat16.")] = "float32",
    devices: Annotated[
        str, typer.Option(help="cpu: this machine, measured. 64xH100: by the data sheet, one process each.")
    ] = "cpu",
    memory: Annotated[
        str | None, typer.Option(help="What a process may have, such as 8GiB; what is free unless given.")
    ] = None,
    hours: Annotated[float, typer.Option(help="How long an exact computation may take.")] = 1.0,
    phases: Annotated[bool, typer.Option("--phases", help="The phases of every plan.")] = False,
    json: Annotated[Path | None, typer.Option(help="All of it, in seconds, bytes and flops.")] = None,
) -> None:
    """What influence would take before it is run: time, memory, storage and traffic, and what to use."""
    from ..planning import predict, table, units

    found = predict.predict(
        predict.subject_of(
            run,
            learner,
            model,
            hidden,
            inner_steps,
            image_size,
            (ways, shots, queries),
            None if params is None else units.whole(params, "params"),
        ),
        None if tasks is None else units.whole(tasks, "tasks"),
        units.whole(test_tasks, "test-tasks"),
        devices,
        memory,
        rows_per_task,
        compression_of(compress, storage),
        hours,
    )
    advised = found.advice.plan
    console = Console(markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    for sentence in table.heading(found):
        console.print(sentence, highlight=False)
    console.print()
    console.print(table.summary(found.plans, found.advice))
    console.print()
    for shown in found.plans if phases else [advised] if advised else []:
        console.print(table.phases(shown))
        console.print()
    for sentence in table.sentences(found.advice):
        console.print(sentence, highlight=False)
    if json is not None:
        write_json(json, found.describe())
        console.print(f"All of it is in {json}", highlight=False)
