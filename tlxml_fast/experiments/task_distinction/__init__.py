"""Does influence tell tasks apart? Test tasks that are training tasks must rank themselves first."""

from .experiment import TaskDistinction

__all__ = ["TaskDistinction"]
