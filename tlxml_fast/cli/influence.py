"""tlxml-fast influence."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ..curvature import Fisher, GaussNewton, Hessian, Identity
from ..runs import RANKING, SCORES, influence_run
from .common import Device, Quiet, console, one_of
from .inverses import INVERSES, compression_of, inverse_of

CURVATURES = {
    "gauss-newton": GaussNewton,
    "hessian": Hessian,
    "identity": Identity,
    "cosine": partial(Identity, normalize=True),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


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
        str, typer.Option(help="gauss-newton, hessian, fisher (sketched Gauss-Newton), identity or cosine.")
    ] = "gauss-newton",
    rows_per_task: Annotated[int, typer.Option(help="fisher: sketched rows of a task.")] = 8,
    inverse: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(INVERSES)}; woodbury for fisher and else dense unless given."),
    ] = None,
    damping: Annotated[
        str | None,
        typer.Option(
            help="λ of (H + λI)⁻¹: a number, or '5e-4x' for that much of the largest |λ|. 1e-3x unless rank or "
            "rtol is given."
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(help="dense, lanczos: pseudo-inverse on this many directions. nystrom: of the sketch."),
    ] = None,
    rtol: Annotated[
        float | None, typer.Option(help="dense: pseudo-inverse above this share of the largest |λ|.")
    ] = None,
    negative: Annotated[
        str, typer.Option(help="dense, lanczos: negative directions: drop, keep, abs or error.")
    ] = "drop",
    tol: Annotated[
        float | None, typer.Option(help="The residual that cg, woodbury and lanczos stop at.")
    ] = None,
    max_iter: Annotated[int | None, typer.Option(help="cg: iterations at most.")] = None,
    preconditioner: Annotated[
        str | None, typer.Option(help="cg: diagonal, nystrom, or sketch (rows-per-task of fisher).")
    ] = None,
    allow_unconverged: Annotated[
        bool, typer.Option("--allow-unconverged", help="Warn where a solve did not converge, and mark it.")
    ] = False,
    compress: Annotated[
        str | None,
        typer.Option(help="Project gradients as they are produced: sjlt:2048, srht:… or rademacher:…"),
    ] = None,
    storage: Annotated[str, typer.Option(help="Of what is compressed: float32 or bfloat16.")] = "float32",
    store: Annotated[
        Path | None,
        typer.Option(
            help="A directory to keep intermediate results in: the same command goes on from there."
        ),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="What may be resident, such as 8GiB.")] = None,
    top: Annotated[
        int | None,
        typer.Option(help="Only so many of either end of each test task's ranking, in ranking.json."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="What is explained: loss, predicted, margin, probability, or 'adapted NAME[i, j]'."
        ),
    ] = "loss",
    backend: Annotated[str, typer.Option(help="auto, native, triton or reference.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32 or float64; the checkpoint's unless given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the held-out tasks; those training was judged on unless given.")
    ] = None,
    device: Device = "cpu",
    log: Annotated[
        Path | None,  # torchrun takes an option --log for one of its own
        typer.Option("--log-file", help="A file that progress and results are appended to."),
    ] = None,
    log_json: Annotated[Path | None, typer.Option(help="The same as JSON, one object a line.")] = None,
    quiet: Quiet = False,
) -> None:
    """The influence of a run's training tasks on held-out tasks.

    Under torchrun, tasks are shared among its processes.
    """
    given = influence_arguments(**locals())
    scores = influence_run(**given)
    if scores is not None:  # this process leads
        console.print(f"{scores}\n{where_results_are(given)}", highlight=False)


def where_results_are(given: dict[str, Any]) -> str:
    """Of `influence_run` with these arguments, in a sentence."""
    if given["top"] is None:
        return f"The scores are {given['out'] / SCORES}"
    return f"The ranking is {given['out'] / RANKING}"


def influence_arguments(
    *,
    run: Path,
    out: Path | None,
    curvature: str,
    rows_per_task: int,
    compress: str | None,
    storage: str,
    dtype: str | None,
    seed: int | None,
    quiet: bool,
    inverse: str | None,
    damping: str | None,
    rank: int | None,
    rtol: float | None,
    negative: str,
    tol: float | None,
    max_iter: int | None,
    preconditioner: str | None,
    allow_unconverged: bool,
    **unchanged: Any,
) -> dict[str, Any]:
    """What `influence_run` takes, from the options of `influence`."""
    curvatures = {**CURVATURES, "fisher": partial(Fisher, rows_per_task)}
    name = inverse or ("woodbury" if curvature == "fisher" else "dense")
    return {
        "run": run,
        "out": out or (run.parent if run.is_file() else run),
        "curvature": one_of("curvature", curvature, curvatures)(),
        "inverse": inverse_of(
            name,
            rows_per_task,
            damping=damping,
            rank=rank,
            rtol=rtol,
            negative=negative,
            tol=tol,
            max_iter=max_iter,
            preconditioner=preconditioner,
            allow_unconverged=allow_unconverged,
        ),
        "compression": compression_of(compress, storage),
        "dtype": None if dtype is None else one_of("dtype", dtype, DTYPES),
        "test_seed": seed,
        "progress": not quiet,
        **unchanged,
    }
