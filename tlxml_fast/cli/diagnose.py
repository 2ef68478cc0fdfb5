"""tlxml-fast diagnose."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from .common import console
from .influence import influence, influence_arguments

# Options that say how scores are computed: with any of them, the scores that there are do not matter.
METHOD = (
    "curvature", "rows_per_task", "inverse", "damping", "rank", "rtol", "negative", "tol", "max_iter", "preconditioner",
    "allow_unconverged", "compress", "storage",
)  # fmt: skip
# Those that are as for the scores unless given, whatever their default is for influence.
AS_SCORED = ("train_tasks", "test_tasks", "target", "dtype")


def diagnose(context: typer.Context, retrain: int, hessian_tasks: int | None, **options: Any) -> None:
    """Check the assumptions behind a run's scores: what can be trusted, and what to do about the rest.

    Takes the options of influence. What is not given is as for the run's scores, where there are any.
    """
    from ..diagnosis.run import DIAGNOSIS, Method, diagnose_run
    from ..diagnosis.table import rendered

    typed = {name for name in options if context.get_parameter_source(name).name != "DEFAULT"}
    given = influence_arguments(**options)
    method = Method(given.pop("curvature"), given.pop("inverse"), given.pop("compression"))
    given |= {name: None for name in AS_SCORED if name not in typed}
    given["method"] = method if typed & set(METHOD) else None
    found = diagnose_run(**given, retrain=retrain, hessian_tasks=hessian_tasks)
    console.print(rendered(found))
    console.print(f"The diagnosis is {given['out'] / DIAGNOSIS}", highlight=False)


def _signature() -> inspect.Signature:
    """The options of influence that are not about what is written, and two more."""
    more = {
        "retrain": Annotated[
            int, typer.Option(help="Train again from so many other seeds, and compare the scores.")
        ],
        "hessian_tasks": Annotated[
            int | None,
            typer.Option(
                help="Training tasks that the exact Hessian is computed at: 64 unless given, 16 above 2,000 parameters."
            ),
        ],
    }
    defaults = {"retrain": 0, "hessian_tasks": None}
    shared = [
        p for name, p in inspect.signature(influence, eval_str=True).parameters.items() if name != "top"
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [
        inspect.Parameter(name, keyword, default=defaults[name], annotation=kind)
        for name, kind in more.items()
    ]
    context = inspect.Parameter("context", keyword, annotation=typer.Context)
    return inspect.Signature([context, *(p.replace(kind=keyword) for p in shared), *own])


diagnose.__signature__ = _signature()
diagnose.__annotations__ = {name: p.annotation for name, p in diagnose.__signature__.parameters.items()}
