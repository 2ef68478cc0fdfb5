"""tlxml_fast: which training tasks made a meta-learned model adapt and predict as it does.

Data flows one way: tasks → learner → linearization → curvature → inverse → scores → report.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import baselines, data, models
from .checkpoint import load_checkpoint, save_checkpoint
from .compression import SJLT, SRHT, Compression, Rademacher
from .curvature import Fisher, GaussNewton, Hessian, Identity
from .errors import (
    BackendError,
    CheckpointError,
    CurvatureError,
    DataError,
    FallbackWarning,
    InfluenceWarning,
    LearnerError,
    StoreError,
    TaskError,
    TlxError,
)
from .groups import group_matrix, group_table
from .influence import TaskInfluence
from .learners import MAML, FunctionLearner, Learner, ProtoNet
from .linearize import Linearization, linearize, linearize_fn
from .parse import parse_task, parse_tasks
from .parse_learner import parse_learner
from .scores import Scores
from .solvers import CG, Certificate, Dense, Lanczos, Nystrom, Relative, Sketch, Woodbury
from .streamed import StreamedScores
from .sweep import DampingSweep, RankSweep
from .task import Task, TaskSet
from .training import evaluate, meta_train

if TYPE_CHECKING:
    from .diagnosis import Check, Diagnosis, diagnose
    from .report import write_report

__version__ = "0.1.0"

__all__ = [
    "CG",
    "MAML",
    "SJLT",
    "SRHT",
    "BackendError",
    "Certificate",
    "Check",
    "CheckpointError",
    "Compression",
    "CurvatureError",
    "DampingSweep",
    "DataError",
    "Dense",
    "Diagnosis",
    "FallbackWarning",
    "Fisher",
    "FunctionLearner",
    "GaussNewton",
    "Hessian",
    "Identity",
    "InfluenceWarning",
    "Lanczos",
    "Learner",
    "LearnerError",
    "Linearization",
    "Nystrom",
    "ProtoNet",
    "Rademacher",
    "RankSweep",
    "Relative",
    "Scores",
    "Sketch",
    "StoreError",
    "StreamedScores",
    "Task",
    "TaskError",
    "TaskInfluence",
    "TaskSet",
    "TlxError",
    "Woodbury",
    "baselines",
    "data",
    "diagnose",
    "evaluate",
    "group_matrix",
    "group_table",
    "linearize",
    "linearize_fn",
    "load_checkpoint",
    "meta_train",
    "models",
    "parse_learner",
    "parse_task",
    "parse_tasks",
    "save_checkpoint",
    "write_report",
]

_IMPORTED_LATER = {
    "Check": "diagnosis",
    "Diagnosis": "diagnosis",
    "diagnose": "diagnosis",
    "write_report": "report",
}
"""Names and their subpackages that draw or do statistics: matplotlib, jinja2 and scipy.stats take a second."""


def __getattr__(name: str) -> Any:
    if name not in _IMPORTED_LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_IMPORTED_LATER[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
