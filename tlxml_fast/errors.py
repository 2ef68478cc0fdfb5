"""The errors a user can meet, each one sentence that names the task, field or file at fault."""

from __future__ import annotations


class TlxError(ValueError):
    """Base of every error this package raises on purpose."""


class TaskError(TlxError):
    """A task, or a collection of tasks, that cannot be used as given."""


class DataError(TlxError):
    """A data set that is absent, unreadable, or too small for the tasks asked of it."""


class LearnerError(TlxError):
    """A learner, model or setting that cannot give the quantity asked for."""


class CurvatureError(TlxError):
    """A curvature matrix that cannot be built or inverted as asked."""


class CheckpointError(TlxError):
    """A checkpoint or scores file that is damaged or belongs to something else."""


class StoreError(TlxError):
    """A store that is damaged, in use, made with something else, or cannot be written."""


class BackendError(TlxError):
    """A backend or kernel that was asked for by name and cannot run."""


class FallbackWarning(UserWarning):
    """Something slower than what was built for the job is running, and why."""


class InfluenceWarning(UserWarning):
    """The influence can be computed, but an assumption behind it looks doubtful."""
