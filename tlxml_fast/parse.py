"""Tasks from the tuples and dictionaries that other meta-learning code already holds.

Nothing of those libraries is imported. What an object can mean is read from its structure, dtypes and shapes;
it must have exactly one meaning, else the caller is asked to name the layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import TaskError
from .task import Task, TaskSet, as_tensor

LAYOUTS = {
    "support-query": "(xs, ys, xq, yq)",
    "images-first": "(xs, xq, ys, yq)",
    "torchmeta": '{"train": (xs, ys), "test": (xq, yq)}',
    "learn2learn": "(x, y) unsplit, with shots= and split=",
    "easyfsl": "(xs, ys, xq, yq, true_class_ids)",
    "howtotrainyourmaml": "(xs, xq, ys, yq, seed), images [ways, shots, ...] and labels [ways, shots]",
}
SPLITS = ("alternate", "first")


def parse_task(
    obj: Any,
    *,
    shots: int | None = None,
    split: str | None = None,
    layout: str | None = None,
    relabel: bool = False,
    name: str = "",
    group: str = "",
) -> Task:
    """One task from tensors or numpy arrays in one of the LAYOUTS; a Task is returned as it is.

    shots    support images per class, for unsplit (x, y)
    split    how unsplit data are divided. "alternate": of the first 2·ways·shots examples, those at even
             positions are support and all others are query, as learn2learn's MAML examples do; each class
             must then get `shots` of them. "first": the first `shots` of each class are support.
    layout   one of LAYOUTS, where an object can be read in more than one way
    relabel  number the support set's classes 0 … ways−1 in ascending order of the labels given

    Raises TaskError if no reading fits, if more than one does, or if the task itself is not valid.
    """
    if isinstance(obj, Task):
        return obj
    options = _Options(shots, split, relabel)
    reading = _only_reading(obj, layout, (False,), _title(name))
    return reading.tasks(options, [name], group)[0]


def parse_tasks(
    obj: Any,
    *,
    shots: int | None = None,
    split: str | None = None,
    layout: str | None = None,
    relabel: bool = False,
    name: str = "",
    group: str = "",
) -> TaskSet:
    """Tasks from a batch (a leading task dimension in every array), a single task, or an iterable of either.

    A TaskSet is returned as it is. An iterable, such as a data loader, is read to its end. Tasks are named
    "name-0000", "name-0001", …, but a Task keeps its own name. Layouts are those of `parse_task`; "-batch"
    after a layout's name says that the object is a batch. Raises TaskError as `parse_task` does.
    """
    if isinstance(obj, TaskSet):
        return obj
    options = _Options(shots, split, relabel)
    tasks: list[Task] = []
    if layout is None and _is_pair_of_pairs(obj):
        raise TaskError(
            f"{_title(name)}: {_describe(obj)} can be read as ((xs, ys), (xq, yq)), one task, or as two unsplit "
            'tasks or batches; give {"train": (xs, ys), "test": (xq, yq)}, or layout="learn2learn" for unsplit data'
        )
    for item in _items(obj):
        if isinstance(item, Task):
            tasks.append(item)
            continue
        first = len(tasks)
        reading = _only_reading(item, layout, (False, True), _title(_numbered(name, first)))
        names = [_numbered(name, first + i) for i in range(reading.count)]
        tasks += reading.tasks(options, names, group)
    return TaskSet(tasks, name)


# ---- what an object can mean ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    shots: int | None
    split: str | None
    relabel: bool


@dataclass(frozen=True)
class _Reading:
    """One way to understand an object: its layout, and the arrays in the order of that reading."""

    layout: str
    batched: bool
    arrays: tuple[Tensor | None, ...]  # (xs, ys, xq, yq), or (x, y) if unsplit

    @property
    def label(self) -> str:
        return f"{self.layout}-batch" if self.batched else self.layout

    @property
    def count(self) -> int:
        return len(self.arrays[0]) if self.batched else 1

    @property
    def _singles(self) -> list[tuple[Tensor | None, ...]]:
        if not self.batched:
            return [self.arrays]
        return [tuple(None if a is None else a[i] for a in self.arrays) for i in range(self.count)]

    def fits(self, strict: bool) -> bool:
        """Whether dtypes and shapes allow this reading; values are left to Task.

        Not strict: only that labels and images are where they belong. Task then says what is wrong with them.
        """
        arrays = [a for a in self.arrays if a is not None]
        if self.batched and (
            arrays[0].ndim == 0 or not len(arrays[0]) or len({a.shape[:1] for a in arrays}) > 1
        ):
            return False
        if self.layout == "howtotrainyourmaml":
            return all(_is_grid(single) for single in self._singles)
        lead = 1 if self.batched else 0
        pairs = [self.arrays[i : i + 2] for i in range(0, len(self.arrays), 2)]
        if not strict:
            return all(_is_labelled(x, y, lead) for x, y in pairs)
        return all(_is_pair(x, y, lead) for x, y in pairs) and _are_alike(pairs, lead)

    def tasks(self, options: _Options, names: Sequence[str], group: str) -> list[Task]:
        tasks = []
        for single, name in zip(self._singles, names, strict=True):
            if self.layout == "howtotrainyourmaml":
                single = _flattened(single)
            if self.layout == "learn2learn":
                single = _divided(*single, options, _title(name))
            if options.relabel:
                single = _relabelled(single, _title(name))
            tasks.append(Task(*single, name=name, group=group))
        return tasks


def _only_reading(obj: Any, layout: str | None, batched: tuple[bool, ...], title: str) -> _Reading:
    plain = layout.removesuffix("-batch") if layout else None
    if plain is not None and plain not in LAYOUTS:
        raise TaskError(f"{title}: layout {layout!r} is none of {', '.join(LAYOUTS)}")
    possible = [r for r in _readings(obj, plain, title) if layout in (None, r.layout, r.label)]
    wanted = [reading for reading in possible if reading.batched in batched]
    found = [r for r in wanted if r.fits(strict=True)] or [r for r in wanted if r.fits(strict=False)]
    if len(found) > 1:  # a name without "-batch" means the single task where both fit
        found = [reading for reading in found if reading.label == layout] or found
    if found and layout is None and True not in batched:
        # [tasks, examples, targets] has the shapes of one task of many targets; tasks of one example do not count
        found += [r for r in possible if r.batched and r.fits(strict=True) and r.arrays[0].shape[1] > 1]
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(f"{reading.label} {LAYOUTS[reading.layout]}" for reading in found)
        raise TaskError(f"{title}: {_describe(obj)} can be read as {choices}; name one as layout=")
    batch = next((r for r in possible if r.batched and r.fits(strict=True)), None)
    if batch is not None:
        raise TaskError(f"{title}: {_describe(obj)} is a batch of {batch.count} tasks; use parse_tasks")
    asked = f"layout {layout!r}" if layout else "any known layout"
    known = "; ".join(f"{key} {LAYOUTS[key]}" for key in ([plain] if plain else LAYOUTS))
    raise TaskError(f"{title}: {_describe(obj)} does not fit {asked}: {known}")


def _readings(obj: Any, layout: str | None, title: str) -> list[_Reading]:
    """All layouts that the structure alone allows, each as a single task and as a batch."""
    parts = _parts(obj)
    if parts is None:
        return []
    candidates: list[tuple[str, tuple]] = []
    if isinstance(obj, Mapping):
        candidates.append(("torchmeta", parts))
    elif len(parts) == 2:
        candidates.append(("learn2learn", parts))
    elif len(parts) in (4, 5):
        a, b, c, d = parts[:4]
        tail = parts[4] if len(parts) == 5 else None
        if tail is None:
            candidates += [("support-query", (a, b, c, d)), ("images-first", (a, c, b, d))]
        elif _is_class_ids(tail, b):
            candidates.append(("easyfsl", (a, b, c, d)))
        if tail is None or _is_seed(tail):
            candidates.append(("howtotrainyourmaml", (a, c, b, d)))
    readings = []
    for key, raw in candidates:
        if layout not in (None, key):
            continue
        may_lack = key in ("support-query", "images-first")
        if any(a is None for a in raw[:3]) or (raw[-1] is None and not may_lack):
            continue
        arrays = tuple(None if a is None else _tensor(a, title) for a in raw)
        readings += [_Reading(key, batched, arrays) for batched in (False, True)]
    return readings


def _parts(obj: Any) -> tuple | None:
    """The arrays of a tuple, list or torchmeta dictionary in their own order; None for anything else."""
    if isinstance(obj, Mapping):
        if set(obj) != {"train", "test"}:
            return None
        pairs = (obj["train"], obj["test"])
        if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
            return None
        obj = (*pairs[0], *pairs[1])
    if not isinstance(obj, (tuple, list)) or not all(_is_array(p) or p is None for p in obj[:4]):
        return None
    return tuple(obj)


def _is_pair_of_pairs(obj: Any) -> bool:
    """Whether this is ((array, array), (array, array)): a split task, or two that are not split."""

    def is_pair(part: Any) -> bool:
        return isinstance(part, (tuple, list)) and len(part) == 2

    return is_pair(obj) and all(is_pair(part) and all(map(_is_array, part)) for part in obj)


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray)) or hasattr(value, "__dlpack__")


def _tensor(value: Any, title: str) -> Tensor:
    try:
        return as_tensor(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TaskError(f"{title}: an item is not an array of numbers ({error})") from None


def _is_integer(x: Tensor) -> bool:
    return not x.dtype.is_floating_point and not x.dtype.is_complex and x.dtype != torch.bool


def _is_pair(x: Tensor, y: Tensor | None, lead: int) -> bool:
    """Whether x can be examples [m, *features] and y their labels or targets, after `lead` dimensions."""
    # integers of three dimensions are images that lack a conversion: Task says so better than we could
    if x.ndim < lead + 1 or not (x.dtype.is_floating_point or x.ndim >= lead + 3):
        return False
    if y is None:
        return True
    labels = _is_integer(y) and y.ndim == lead + 1
    targets = y.dtype.is_floating_point and y.dtype == x.dtype and lead + 1 <= y.ndim <= lead + 2
    return (labels or targets) and x.shape[: lead + 1] == y.shape[: lead + 1]


def _is_labelled(x: Tensor, y: Tensor | None, lead: int) -> bool:
    """Whether x looks like examples and y like class labels, whatever their lengths."""
    examples = x.ndim >= lead + 1 and (x.dtype.is_floating_point or x.ndim >= lead + 2)
    return examples and (y is None or (_is_integer(y) and y.ndim == lead + 1))


def _are_alike(pairs: list[tuple[Tensor | None, ...]], lead: int) -> bool:
    """Whether support and query have the same features and the same kind of targets."""
    (xs, ys), (xq, yq) = pairs[0], pairs[-1]
    if xs.shape[lead + 1 :] != xq.shape[lead + 1 :]:
        return False
    if yq is None:
        return True
    return (
        ys.dtype.is_floating_point == yq.dtype.is_floating_point
        and ys.shape[lead + 1 :] == yq.shape[lead + 1 :]
    )


def _is_grid(arrays: tuple[Tensor | None, ...]) -> bool:
    """Whether labels are [ways, shots] with one whole number a row, and images [ways, shots, ...]."""
    xs, ys, xq, yq = arrays
    for x, y in ((xs, ys), (xq, yq)):
        if y.ndim != 2 or x.ndim < 3 or x.shape[:2] != y.shape or y.numel() == 0:
            return False
        if not (y == y[:, :1]).all() or not (y == y.round()).all() or len(y[:, 0].unique()) != len(y):
            return False
    return bool((ys[:, 0] == yq[:, 0]).all()) if len(ys) == len(yq) else False


def _is_class_ids(tail: Any, labels: Any) -> bool:
    """easyfsl ends with the data set's number of each class of the task."""
    ids = tail.tolist() if _is_array(tail) and tail.ndim == 1 else tail
    if not isinstance(ids, (list, tuple)) or not all(_is_whole(i) for i in ids):
        return False
    return _is_array(labels) and labels.ndim == 1 and len(ids) == len(torch.as_tensor(labels).unique())


def _is_seed(tail: Any) -> bool:
    """HowToTrainYourMAML ends with the task's seed, or a batch of them."""
    return _is_whole(tail) or (_is_array(tail) and tail.ndim <= 1)


def _is_whole(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and _is_integer(value)
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


# ---- from a reading to a task -----------------------------------------------------------------------


def _flattened(arrays: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    xs, ys, xq, yq = arrays
    return xs.flatten(0, 1), ys.flatten().long(), xq.flatten(0, 1), yq.flatten().long()


def _divided(x: Tensor, y: Tensor, options: _Options, title: str) -> tuple[Tensor, ...]:
    """Unsplit (x, y) into (xs, ys, xq, yq); the order of examples is kept on both sides."""
    shots, split = options.shots, options.split
    if shots is None or split is None:
        raise TaskError(f"{title}: unsplit (x, y) needs shots= and split=, one of {', '.join(SPLITS)}")
    if split not in SPLITS:
        raise TaskError(f"{title}: split {split!r} is none of {', '.join(SPLITS)}")
    if shots < 1:
        raise TaskError(f"{title}: shots is {shots}; it must be at least 1")
    if len(x) != len(y):
        raise TaskError(f"{title}: y has {len(y)} labels for {len(x)} examples in x")
    if not _is_integer(y):
        raise TaskError(f"{title}: y has dtype {y.dtype}; unsplit data are divided by class")
    classes, of = y.unique(return_inverse=True)
    support = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    if split == "alternate":
        support[: 2 * shots * len(classes) : 2] = True
    else:
        for c in range(len(classes)):
            support[torch.nonzero(of == c).flatten()[:shots]] = True
    got = torch.bincount(of[support], minlength=len(classes))
    for label, n in zip(classes.tolist(), got.tolist(), strict=True):
        if n != shots:
            raise TaskError(f"{title}: split {split!r} gives class {label} {n} support examples, not {shots}")
    if bool(support.all()):
        raise TaskError(f"{title}: split {split!r} with shots={shots} leaves no query examples")
    support = support.to(x.device)
    return x[support], y[support], x[~support], y[~support]


def _relabelled(arrays: tuple[Tensor | None, ...], title: str) -> tuple[Tensor | None, ...]:
    xs, ys, xq, yq = arrays
    if not _is_integer(ys):
        raise TaskError(f"{title}: relabel=True, but support_y has dtype {ys.dtype}")
    classes, numbered = ys.unique(return_inverse=True)
    if yq is None:
        return xs, numbered, xq, None
    unknown = ~torch.isin(yq, classes)
    if unknown.any():
        raise TaskError(f"{title}: query_y has class {yq[unknown][0].item()}, which support_y lacks")
    return xs, numbered, xq, torch.searchsorted(classes, yq)


# ---- names, items, descriptions ---------------------------------------------------------------------


def _title(name: str) -> str:
    return f"task {name!r}" if name else "task"


def _numbered(name: str, index: int) -> str:
    return f"{name or 'task'}-{index:04d}"


def _items(obj: Any) -> Iterator[Any]:
    """The object itself if it is a task or a batch, else what it iterates over."""
    holds_arrays = isinstance(obj, (tuple, list)) and any(_is_array(part) for part in obj)
    if isinstance(obj, (Task, Mapping)) or holds_arrays or _is_array(obj) or not isinstance(obj, Iterable):
        yield obj
    else:
        yield from obj


def _describe(obj: Any) -> str:
    """Structure, dtypes and shapes, as an error shows them."""
    if _is_array(obj):
        return f"{str(obj.dtype).removeprefix('torch.')}{list(obj.shape)}"
    if isinstance(obj, Mapping):
        return "{" + ", ".join(f"{key!r}: {_describe(value)}" for key, value in obj.items()) + "}"
    if isinstance(obj, (tuple, list)):
        more = ", …" if len(obj) > 6 else ""
        return "(" + ", ".join(map(_describe, obj[:6])) + more + ")"
    return repr(obj) if isinstance(obj, (int, float, type(None))) else f"a {type(obj).__name__}"
