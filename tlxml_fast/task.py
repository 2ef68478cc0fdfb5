"""Tasks: a support set to adapt on, a query set to be judged on, and collections of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from .errors import TaskError


class TaskShape(NamedTuple):
    """What two tasks must share to be computed together: sizes, feature shape, dtype, kind of labels."""

    ways: int
    n_support: int
    n_query: int
    features: tuple[int, ...]
    dtype: torch.dtype
    regression: bool
    labelled: bool

    def __str__(self) -> str:
        kind = f"{self.ways} outputs" if self.regression else f"{self.ways}-way"
        size = "×".join(map(str, self.features)) or "scalar"
        unlabelled = "" if self.labelled else " (unlabelled)"
        return f"{kind}, {self.n_support} support + {self.n_query} query{unlabelled} of {size}"


@dataclass(frozen=True, eq=False)
class Task:
    """One task t = (S_t, Q_t): a support set, a query set, and optionally a name and a group.

    support_x  [m, *features]  floating point
    support_y  [m] integer labels 0 … ways−1, every one of them present; or, for a regression task,
               floating-point targets [m] or [m, outputs]
    query_x    [n, *features]  same dtype and features as support_x
    query_y    [n] labels among those of the support set (or targets), or None for a new task whose
               query labels are not known
    name       shown in reports and errors
    group      what the task belongs to (a script, an alphabet, …), for group influence

    numpy arrays are taken as they are given, without a copy, and so is whatever else speaks DLPack (JAX, CuPy, …), on
    the device that it is on. A task is never changed after it is made.
    Raises TaskError, in one sentence that names the task and the field, if anything does not fit.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor | None = None
    name: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        for field in ("support_x", "support_y", "query_x", "query_y"):
            object.__setattr__(self, field, self._as_tensor(field))
        self._check_inputs()
        self._check_targets()

    def __repr__(self) -> str:
        group = f", group={self.group!r}" if self.group else ""
        return f"Task({self.name!r}, {self.shape}{group})"

    @cached_property
    def id(self) -> str:
        """32 hexadecimal digits of the content alone: dtypes, shapes and values of the four fields."""
        digest = hashlib.sha256()
        for field in ("support_x", "support_y", "query_x", "query_y"):
            value = getattr(self, field)
            if value is None:
                digest.update(b"absent;")
                continue
            digest.update(f"{value.dtype}{tuple(value.shape)};".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:32]

    @property
    def regression(self) -> bool:
        """True where the targets are real numbers rather than class labels."""
        return self.support_y.is_floating_point()

    @cached_property
    def ways(self) -> int:
        """The number of classes in the support set; for a regression task, the number of outputs."""
        if self.regression:
            return self.support_y.shape[1] if self.support_y.ndim == 2 else 1
        return int(self.support_y.max()) + 1

    @property
    def shots(self) -> tuple[int, ...]:
        """How many support examples each class has."""
        return (
            tuple(torch.bincount(self.support_y).tolist()) if not self.regression else (len(self.support_y),)
        )

    @property
    def shape(self) -> TaskShape:
        """What must agree for tasks to be stacked."""
        return TaskShape(
            self.ways,
            self.support_x.shape[0],
            self.query_x.shape[0],
            tuple(self.support_x.shape[1:]),
            self.support_x.dtype,
            self.regression,
            self.query_y is not None,
        )

    @property
    def label(self) -> str:
        """The name, or the first digits of the id where there is no name."""
        return self.name or self.id[:8]

    def replace(self, **fields: object) -> Task:
        """The same task with some fields changed; validated again."""
        return replace(self, **fields)  # type: ignore[arg-type]

    # ---- validation -------------------------------------------------------------------------------

    def _fail(self, problem: str) -> TaskError:
        return TaskError(f"task {self.name!r}: {problem}" if self.name else f"task: {problem}")

    def _as_tensor(self, field: str) -> Tensor | None:
        value = getattr(self, field)
        if value is None:
            if field == "query_y":
                return None
            raise self._fail(f"{field} is missing")
        try:
            tensor = as_tensor(value).detach()
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise self._fail(f"{field} is not an array of numbers ({error})") from None
        if field.endswith("_y") and tensor.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
            tensor = tensor.long()
        return tensor

    def _check_inputs(self) -> None:
        for field in ("support_x", "query_x"):
            x = getattr(self, field)
            if x.ndim == 0 or x.shape[0] == 0 or x.numel() == 0:
                raise self._fail(f"{field} is empty (shape {tuple(x.shape)})")
            if not x.is_floating_point():
                raise self._fail(
                    f"{field} has dtype {x.dtype}; give floating point, for example x.float() / 255"
                )
            if not torch.isfinite(x).all():
                raise self._fail(f"{field} has NaN or infinite values")
        if self.support_x.shape[1:] != self.query_x.shape[1:]:
            raise self._fail(
                f"support_x and query_x differ in shape: {tuple(self.support_x.shape[1:])} "
                f"and {tuple(self.query_x.shape[1:])} per example"
            )
        if self.support_x.dtype != self.query_x.dtype:
            raise self._fail(
                f"support_x and query_x differ in dtype: {self.support_x.dtype} and {self.query_x.dtype}"
            )

    def _check_targets(self) -> None:
        pairs = [("support_y", self.support_y, self.support_x)]
        if self.query_y is not None:
            pairs.append(("query_y", self.query_y, self.query_x))
        for field, y, x in pairs:
            if y.ndim == 0 or y.shape[0] != x.shape[0]:
                raise self._fail(
                    f"{field} has shape {tuple(y.shape)} for {x.shape[0]} examples in {field[:-1]}x"
                )
            if y.device != x.device:
                raise self._fail(f"{field} is on {y.device} and {field[:-1]}x on {x.device}")
        if self.regression:
            self._check_regression(pairs)
        else:
            self._check_labels(pairs)

    def _check_regression(self, pairs: list[tuple[str, Tensor, Tensor]]) -> None:
        for field, y, x in pairs:
            if y.dtype != x.dtype:
                raise self._fail(f"{field} has dtype {y.dtype} and {field[:-1]}x has {x.dtype}")
            if y.ndim > 2 or y.shape[1:] != self.support_y.shape[1:]:
                raise self._fail(f"{field} has shape {tuple(y.shape)}; targets are [n] or [n, outputs]")
            if not torch.isfinite(y).all():
                raise self._fail(f"{field} has NaN or infinite values")

    def _check_labels(self, pairs: list[tuple[str, Tensor, Tensor]]) -> None:
        for field, y, _ in pairs:
            if y.dtype != torch.int64:
                raise self._fail(
                    f"{field} has dtype {y.dtype}; labels are integers (and support and query agree)"
                )
            if y.ndim != 1:
                raise self._fail(f"{field} has shape {tuple(y.shape)}; labels are one-dimensional")
            if int(y.min()) < 0:
                raise self._fail(f"{field} has a label out of range: {int(y.min())}")
        present = torch.unique(self.support_y).tolist()
        # a stray label such as 10⁹ must not make a range of that length
        missing = next((c for c in range(len(present)) if present[c] != c), None)
        if missing is not None:
            raise self._fail(
                f"class {missing} is missing from the support set (support_y goes up to {present[-1]})"
            )
        if self.query_y is not None and int(self.query_y.max()) >= len(present):
            raise self._fail(
                f"query_y has label {int(self.query_y.max())} out of range: "
                f"the support set has classes 0 to {len(present) - 1}"
            )


def as_tensor(value: object) -> Tensor:
    """A tensor over the same memory, by DLPack where it is neither a tensor nor a numpy array; else a copy."""
    if isinstance(value, (Tensor, np.ndarray)) or not hasattr(value, "__dlpack__"):
        return torch.as_tensor(value)
    return torch.from_dlpack(value)


class TaskSet(Sequence[Task]):
    """An ordered collection of tasks, held in a list or made on demand.

    `TaskSet(tasks)` holds the tasks given. `TaskSet.lazy(make, length)` calls `make(index)` each time a
    task is asked for; `make` must give the same task for the same index. Slices, index lists and `+`
    give TaskSets, lazily.
    """

    def __init__(self, tasks: Iterable[Task], name: str = ""):
        if isinstance(tasks, Task):
            raise TaskError(f"task {tasks.label!r} is one task, not a set of them; give [task]")
        held = tuple(tasks)
        for i, task in enumerate(held):
            if not isinstance(task, Task):
                raise TaskError(
                    f"item {i} of the task set is a {type(task).__name__}, not a Task; see parse_tasks"
                )
        self.name = name
        self._make: Callable[[int], Task] = held.__getitem__
        self._length = len(held)

    @classmethod
    def lazy(cls, make: Callable[[int], Task], length: int, name: str = "") -> TaskSet:
        """A set of `length` tasks, the i-th of which is `make(i)`."""
        if length < 0:
            raise TaskError(f"a task set cannot have {length} tasks")
        tasks = cls((), name)
        tasks._make, tasks._length = make, length
        return tasks

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray | Tensor) -> TaskSet: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return self._pick(range(self._length)[index])
        if isinstance(index, (Sequence, np.ndarray, Tensor)) and getattr(index, "ndim", 1) == 1:
            return self._pick([self._check(int(i)) for i in self._positions(index)])
        return self._make(self._check(int(index)))

    def __iter__(self) -> Iterator[Task]:
        # Sequence's own would take an IndexError inside `make` for the end of the set.
        return (self._make(i) for i in range(self._length))

    def __add__(self, other: TaskSet) -> TaskSet:
        first, split = self, len(self)
        return TaskSet.lazy(lambda i: first[i] if i < split else other[i - split], split + len(other))

    def __repr__(self) -> str:
        return f"TaskSet({self.name!r}, {len(self)} tasks)"

    def map(self, change: Callable[[Task], Task], name: str = "") -> TaskSet:
        """Each task passed through `change`, when it is asked for."""
        make = self._make
        return TaskSet.lazy(lambda i: change(make(i)), self._length, name or self.name)

    @property
    def ids(self) -> list[str]:
        """The content hash of every task."""
        return [task.id for task in self]

    @property
    def names(self) -> list[str]:
        """The label of every task."""
        return [task.label for task in self]

    @property
    def groups(self) -> list[str]:
        """The group of every task."""
        return [task.group for task in self]

    def _positions(self, index: Sequence[int] | np.ndarray | Tensor) -> list[int]:
        array = np.asarray(index)
        if array.dtype == bool and len(array) != self._length:
            raise IndexError(f"a mask of {len(array)} for a set of {self._length} tasks")
        return np.flatnonzero(array).tolist() if array.dtype == bool else array.tolist()

    def _pick(self, positions: Sequence[int]) -> TaskSet:
        make = self._make
        return TaskSet.lazy(lambda i: make(positions[i]), len(positions), self.name)

    def _check(self, index: int) -> int:
        position = index + self._length if index < 0 else index
        if not 0 <= position < self._length:
            raise IndexError(f"task {index} of a set of {self._length}")
        return position
