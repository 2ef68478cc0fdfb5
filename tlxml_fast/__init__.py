"""tlxml_fast: which training tasks made a meta-learned model adapt and predict as it does.

Data flows one way: tasks → learner → linearization → curvature → inverse → scores → report.
"""

from . import baselines, data, models
from .checkpoint import load_checkpoint, save_checkpoint
from .compression import SJLT, SRHT, Compression, Rademacher
from .curvature import Fisher, GaussNewton, Hessian, Identity
from .diagnosis import Check, Diagnosis, diagnose
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
from .report import write_report
from .scores import Scores
from .solvers import CG, Certificate, Dense, Lanczos, Nystrom, Relative, Sketch, Woodbury
from .streamed import StreamedScores
from .sweep import DampingSweep, RankSweep
from .task import Task, TaskSet
from .training import evaluate, meta_train

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
