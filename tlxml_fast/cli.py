"""The command line: demo, train, influence, profile, report, doctor.

Exit codes: 0 done; 1 a defect of ours; 2 input that cannot be used, with the reason in one sentence; 130 stopped.
"""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Mapping
from functools import partial, wraps
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .curvature import GaussNewton, Hessian, Identity
from .data.spec import TaskSpec
from .errors import CurvatureError, TlxError
from .learners import Learner
from .profiling import Profile
from .runs import (
    CHECKPOINT,
    PROFILE,
    REPORT,
    SCORES,
    TRACE,
    ModelSpec,
    influence_run,
    profile_run,
    report_run,
    train_run,
)
from .scores import Scores
from .solvers import Dense, Relative

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(markup=False)  # names and paths may hold brackets

T = TypeVar("T")
STOPPED = 130  # what typer returns of a Ctrl-C, and shells expect
CURVATURES = {
    "gauss-newton": GaussNewton,
    "hessian": Hessian,
    "identity": Identity,
    "cosine": partial(Identity, normalize=True),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}

Out = Annotated[Path, typer.Option(help="The run's directory.")]
Seed = Annotated[int, typer.Option(help="Seeds tasks, initial weights and batches.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(metadata.version("tlxml_fast"), highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Which training tasks made a meta-learned model adapt and predict as it does."""


@app.command()
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
            learner, model, hidden, norm, distance, inner_lr, inner_steps, inner_steps_eval, _names(adapt)
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


@app.command()
def influence(
    run: Annotated[Path, typer.Argument(help="The directory that train made, or its checkpoint.")],
    out: Annotated[
        Path | None, typer.Option(help="Where results go; the run's directory unless given.")
    ] = None,
    train_tasks: Annotated[
        int | None, typer.Option(help="The first of the training tasks; all unless given.")
    ] = None,
    test_tasks: Annotated[int, typer.Option(help="Held-out tasks.")] = 32,
    curvature: Annotated[
        str, typer.Option(help="gauss-newton, hessian, identity or cosine.")
    ] = "gauss-newton",
    damping: Annotated[
        str | None,
        typer.Option(
            help="λ of (H + λI)⁻¹: a number, or '5e-4x' for that much of the largest |λ|. 1e-3x unless rank or "
            "rtol is given."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Pseudo-inverse on this many directions, instead of damping.")
    ] = None,
    rtol: Annotated[
        float | None, typer.Option(help="Pseudo-inverse above this share of the largest |λ|.")
    ] = None,
    negative: Annotated[str, typer.Option(help="Negative directions: drop, keep, abs or error.")] = "drop",
    target: Annotated[str, typer.Option(help="What is explained: loss, predicted or margin.")] = "loss",
    backend: Annotated[str, typer.Option(help="auto, native or reference.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32 or float64; the checkpoint's unless given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the held-out tasks; those training was judged on unless given.")
    ] = None,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """The influence of a run's training tasks on held-out tasks."""
    given = _influence_arguments(**locals())
    scores = influence_run(**given)
    console.print(f"{scores}\nThe scores are {given['out'] / SCORES}", highlight=False)


@app.command()
@wraps(influence, assigned=("__annotations__",))  # the same arguments, options and defaults
def profile(**options: Any) -> None:
    """What each operation of an influence run takes: a table, profile.json, and a trace of when it ran."""
    given = _influence_arguments(**options)
    scores, profiled = profile_run(**given)
    on = f"{profiled.threads} threads" if profiled.threads > 1 else "1 thread"
    on = str(profiled.device) if profiled.device.type == "cuda" else f"the CPU, {on}"
    console.print(f"{scores}\n\n{profiled.seconds:.2f} s on {on}\n", highlight=False)
    console.print(_profile_table(profiled))
    reached = " and ".join(
        f"{p.flops / 1e9:,.0f} GFLOP/s, {p.bytes / 1e9:,.0f} GB/s in {name}"
        for name, p in profiled.peaks().items()
    )
    out = given["out"]
    console.print(
        f"\nThe peaks, of a matrix product and of a copy: {reached}.\n"
        f"The profile is {out / PROFILE}\nThe trace is   {out / TRACE}, for chrome://tracing or "
        f"ui.perfetto.dev\nThe scores are {out / SCORES}",
        highlight=False,
    )


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The directory that influence wrote to.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; RUN/report.html unless given.")] = None,
) -> None:
    """One HTML file: what was run, the heat map, every test task beside what helped and harmed it."""
    path = out or run / REPORT
    report_run(run, path, _command())
    console.print(f"The report is {path}", highlight=False)


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    tasks: Annotated[int, typer.Option(help="Training tasks.")] = 256,
    test_tasks: Annotated[int, typer.Option(help="Held-out tasks to explain.")] = 32,
    steps: Annotated[int, typer.Option(help="Meta-updates.")] = 150,
    seed: Seed = 0,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Meta-train a ProtoNet on glyphs of several scripts, explain it, and write the report."""
    shape = {"ways": 5, "shots": 5, "queries": 5}
    learner = train_run(
        out,
        TaskSpec(split="train", count=tasks, seed=seed, **shape),
        TaskSpec(split="test", count=max(test_tasks, 100), seed=seed + 1, **shape),
        ModelSpec(hidden=8),
        seed=seed,
        device=device,
        progress=not quiet,
        steps=steps,
        batch_size=4,
        lr=3e-3,
        schedule="cosine",
        weight_decay=1e-3,
    )
    scores = influence_run(
        out,
        out,
        curvature=GaussNewton(),
        inverse=Dense(damping=Relative(1e-3)),
        test_tasks=test_tasks,
        device=device,
        progress=not quiet,
    )
    report_run(out, out / REPORT, _command())
    _summarise(learner, scores, out)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Where bench.json, bench.md and the pictures go.")] = Path(
        "bench"
    ),
    only: Annotated[
        str,
        typer.Option(
            help="Only what has this in its name: 'K=1', 'gradients', 'dense', 'memory', 'scaling', …"
        ),
    ] = "",
    seed: Seed = 0,
    rounds: Annotated[int, typer.Option(help="Times each contestant runs.")] = 7,
    seconds: Annotated[float, typer.Option(help="None runs again after as long as this.")] = 20.0,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="No peak memory, which takes a process for each contestant.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """The engine beside torch.func, curvlinops and a loop over tasks: validated, then timed in turns."""
    from .benchmarks.run import pieces, run
    from .benchmarks.tables import notes, tables

    if not any(only.lower() in piece.name.lower() for piece in pieces()):
        names = "\n".join(piece.name for piece in pieces())
        raise TlxError(f"nothing in the benchmark has {only!r} in its name; there is\n{names}")
    warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own
    rows = run(out, only, seed, rounds, seconds, memory=not no_memory, progress=not quiet)
    for shown in (*tables(rows), *notes(rows)):
        console.print(shown)
    console.print(f"Written to {out}")


@app.command()
def doctor() -> None:
    """What is built, which backend will run and why."""
    from .doctor import report as rows

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for section, what, status in rows():
        table.add_row(section, what, Text(status))
    console.print(table)


def _summarise(learner: Learner, scores: Scores, out: Path) -> None:
    last = learner.training["history"][-1]
    console.print(
        f"\nHeld-out accuracy {last['accuracy']:.1%} ± {last['accuracy_interval']:.1%}. "
        f"{len(scores.train)} training × {len(scores.test)} test tasks:",
        highlight=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("test task", "most helpful", "I_perf", "most harmful", "I_perf"):
        table.add_column(heading, justify="right" if heading == "I_perf" else "left")
    helpful, harmful = scores.helpful(1), scores.harmful(1)
    for i in range(min(5, len(scores.test))):
        cells = [scores.test.names[i]]
        for ranking in (helpful, harmful):
            cells += [scores.train.names[int(ranking.indices[i, 0])], f"{float(ranking.values[i, 0]):+.3g}"]
        table.add_row(*map(Text, cells))
    console.print(table)
    console.print(
        f"I_perf < 0: upweighting the training task lowers the test task's loss.\n\n"
        f"The report is      {out / REPORT}\nThe scores are     {out / SCORES}\nThe checkpoint is  {out / CHECKPOINT}",
        highlight=False,
    )


def _influence_arguments(
    *,
    run: Path,
    out: Path | None,
    curvature: str,
    damping: str | None,
    rank: int | None,
    rtol: float | None,
    negative: str,
    dtype: str | None,
    seed: int | None,
    quiet: bool,
    **unchanged: Any,
) -> dict[str, Any]:
    """What `influence_run` takes, from the options of `influence`."""
    return {
        "run": run,
        "out": out or (run.parent if run.is_file() else run),
        "curvature": _one_of("curvature", curvature, CURVATURES)(),
        "inverse": _dense(damping, rank, rtol, negative),
        "dtype": None if dtype is None else _one_of("dtype", dtype, DTYPES),
        "test_seed": seed,
        "progress": not quiet,
        **unchanged,
    }


def _profile_table(profiled: Profile) -> Table:
    def number(value: float | None, unit: float) -> str:
        scaled = (value or 0.0) / unit
        return "" if value is None else f"{scaled:,.1f}" if scaled >= 1 else f"{scaled:.1g}"

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("op")
    for heading in ("calls", "ms", "share", "GFLOP/s", "GB/s", "of peak"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound by")
    for row in profiled.rows():
        table.add_row(
            Text(row.op),
            f"{row.calls:,}" if row.calls else "",
            number(row.seconds, 1e-3),
            f"{row.share:.1%}",
            number(row.flops_per_second, 1e9),
            number(row.bytes_per_second, 1e9),
            "" if row.peak is None else f"{row.peak:.1%}",
            row.bound or "",
        )
    return table


def _dense(damping: str | None, rank: int | None, rtol: float | None, negative: str) -> Dense:
    if damping is None:
        damping = "1e-3x" if rank is None and rtol is None else "0"
    try:
        number = float(damping.removesuffix("x"))
    except ValueError:
        raise CurvatureError(f"damping is a number, or one followed by x, not {damping!r}") from None
    return Dense(Relative(number) if damping.endswith("x") else number, rank, rtol, negative)


def _one_of(what: str, name: str, choices: Mapping[str, T]) -> T:
    if name not in choices:
        raise TlxError(f"{what} is one of {', '.join(choices)}, not {name!r}")
    return choices[name]


def _command() -> str:
    return shlex.join(["tlxml-fast", *sys.argv[1:]])


def _names(adapt: list[str] | None) -> list[str] | str | None:
    return adapt[0] if adapt is not None and len(adapt) == 1 else adapt


def main() -> None:
    """Run the command line; errors the user can mend are one sentence on standard error."""
    errors = Console(stderr=True, markup=False)

    def say(kind: str, style: str, message: object) -> None:
        errors.print(Text(f"{kind}: ", style), Text(str(message)), sep="")

    warnings.showwarning = lambda message, *_, **__: say("warning", "yellow", message)
    try:
        code = app(standalone_mode=False) or 0
    except (TlxError, OSError) as error:
        say("error", "red", error)
        code = 2
    except KeyboardInterrupt:
        code = STOPPED
    except Exception as error:  # click's usage errors know how to show themselves
        if not hasattr(error, "show"):
            raise
        error.show()
        code = 2
    if code == STOPPED:
        errors.print("stopped; what was finished is kept")
    sys.exit(code)
