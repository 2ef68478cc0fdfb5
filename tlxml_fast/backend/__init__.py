"""The backend protocol, version 1: the calls that a TLXML front end needs, whoever answers them.

    backend = tlxml_fast.backend.get("compiled")
    fitted = backend.influence(learner, train_tasks, damping=1e-2)
    values, certificate = fitted.scores(test_tasks)

Backends are found by name in the entry-point group "tlxml.backends"; this package brings "compiled" and "reference".
`python -m tlxml_fast.backend.conformance NAME` checks any of them against float64 mathematics.
"""

from .protocol import (
    VERSION,
    Backend,
    Capabilities,
    Certificate,
    FittedInfluence,
    LinearizedTasks,
    Scored,
    Solved,
)
from .registry import GROUP, get, names

__all__ = [
    "GROUP",
    "VERSION",
    "Backend",
    "Capabilities",
    "Certificate",
    "FittedInfluence",
    "LinearizedTasks",
    "Scored",
    "Solved",
    "get",
    "names",
]
