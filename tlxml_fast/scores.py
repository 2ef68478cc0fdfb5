"""Scores: the influence of every training task on every test task, with its names and its sign."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import TlxError
from .files import read_tensors, understanding, write_tensors
from .targets import LARGER_IS_BETTER
from .task import TaskSet

if TYPE_CHECKING:
    import numpy
    import pandas
    import pyarrow
    import xarray

    from .backend import Scored


@dataclass(frozen=True)
class TaskAxis:
    """The tasks along one dimension of the scores."""

    names: tuple[str, ...]
    ids: tuple[str, ...]
    groups: tuple[str, ...]

    @classmethod
    def of(cls, tasks: TaskSet) -> TaskAxis:
        """Names, content hashes and groups of a task set, each task made once."""
        rows = [(task.label, task.id, task.group) for task in tasks]
        return cls(*(tuple(column) for column in zip(*rows, strict=True))) if rows else cls((), (), ())

    def __len__(self) -> int:
        return len(self.names)


def converged(info: Mapping[str, Any]) -> bool:
    """Whether the certificate in the info of scores says so; True of scores without an inverse."""
    return (info.get("certificate") or {}).get("converged", True)


class Ranking(NamedTuple):
    """The k first training tasks of every test task, the strongest first: positions and scores, [..., k]."""

    indices: Tensor
    values: Tensor


@dataclass(frozen=True)
class Scores:
    """I_perf(i, j), the influence of training task j on test task i (TLXML, arXiv 2501.14271).

    values   [n_test, n_train], or [n_test, n_query, n_train] per query; float64. Test tasks with fewer
             queries than the widest are padded with NaN.
    test, train   names, ids and groups along the two axes
    in_fit   [n_train] True where the training task is one of those the curvature was fitted to: its score is
             that of upweighting it. A task that was not is *added*.
    target   what is explained: "loss", the "predicted" class's loss, its "margin", its "probability", or an entry of
             the adapted parameters, "adapted NAME[i, j]"
    info     how the scores were computed; JSON throughout

    Sign. For a loss, I_perf(i, j) > 0 says that upweighting j raises i's loss: j is *harmful* to i; < 0 is
    *helpful*. For a margin or a probability it is the other way round, and `helpful` and `harmful` know it.
    Removing a group J from M training tasks predicts ΔL_i ≈ −(1/M) Σ_{j∈J} I_perf(i, j).
    """

    values: Tensor
    test: TaskAxis
    train: TaskAxis
    in_fit: Tensor
    target: str = "loss"
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (len(self.test), len(self.train))
        if (self.values.shape[0], self.values.shape[-1]) != expected or self.values.ndim not in (2, 3):
            raise TlxError(
                f"scores of shape {tuple(self.values.shape)} for {expected[0]} test × {expected[1]} train"
            )

    @classmethod
    def from_backend(cls, scored: Scored, test_tasks: TaskSet, train_tasks: TaskSet) -> Scores:
        """What `scores` of a backend of the protocol gave, [n_test, n_train], with the names of its tasks.

        test_tasks   those that were explained
        train_tasks  those that the backend's `influence` was fitted to

        The certificate is `info["certificate"]`. Raises TlxError if there are not as many scores as pairs of tasks.
        """
        values, certificate = scored
        residuals = [float(residual) for residual in certificate.residuals]
        described = {
            **certificate.details,
            "residuals": residuals,
            "worst_residual": float(np.max(residuals, initial=0.0)),  # NaN if one is
            "damping": certificate.damping,
            "converged": certificate.converged,
        }
        in_fit = torch.ones(len(train_tasks), dtype=torch.bool)
        axes = TaskAxis.of(test_tasks), TaskAxis.of(train_tasks)
        return cls(values.detach().double().cpu(), *axes, in_fit, info={"certificate": described})

    def __repr__(self) -> str:
        shape = " × ".join(f"{size} {dim}" for size, dim in zip(self.values.shape, self.dims, strict=True))
        return f"Scores({shape}, target={self.target!r}{'' if self.converged else ', not converged'})"

    @property
    def converged(self) -> bool:
        """Whether every solve reached its tolerance; `info["certificate"]` has the residual of each test task."""
        return converged(self.info)

    @property
    def larger_is_better(self) -> bool:
        """Whether a positive score is helpful: that of a margin or a probability, not of a loss."""
        return self.target in LARGER_IS_BETTER

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the dimensions of `values`."""
        return ("test", "train") if self.values.ndim == 2 else ("test", "query", "train")

    def helpful(self, k: int) -> Ranking:
        """The k training tasks that most lowered each test task's loss, the most helpful first."""
        return self._rank(k, descending=self.larger_is_better)

    def harmful(self, k: int) -> Ranking:
        """The k training tasks that most raised each test task's loss, the most harmful first."""
        return self._rank(k, descending=not self.larger_is_better)

    def group(self, labels: Sequence[str] | None = None, reduce: str = "sum") -> Scores:
        """The influence of groups of training tasks: I(J) = Σ_{j∈J} I(j), or the mean with reduce="mean".

        labels   one a training task; the tasks' own groups unless given. Groups come in sorted order, their
                 sizes in `info["group_sizes"]`; `in_fit` is True where the whole group was fitted.
        """
        labels = list(self.train.groups if labels is None else map(str, labels))
        if len(labels) != len(self.train):
            raise TlxError(f"{len(labels)} group labels for {len(self.train)} training tasks")
        if reduce not in ("sum", "mean"):
            raise TlxError(f"reduce is 'sum' or 'mean', not {reduce!r}")
        names = sorted(set(labels))
        number = {name: i for i, name in enumerate(names)}
        member = torch.tensor([number[label] for label in labels], dtype=torch.int64)
        sizes = member.bincount(minlength=len(names))
        # not a matrix product: 0·∞ would spread one task's infinite score to all groups
        values = self.values.new_zeros(*self.values.shape[:-1], len(names))
        values.index_add_(-1, member, self.values)
        if reduce == "mean":
            values = values / sizes
        return replace(
            self,
            values=values,
            train=TaskAxis(tuple(names), tuple(names), tuple(names)),
            in_fit=member[~self.in_fit].bincount(minlength=len(names)) == 0,
            info={
                **self.info,
                "group_sizes": dict(zip(names, sizes.tolist(), strict=True)),
                "group_reduce": reduce,
            },
        )

    def to_pandas(self) -> pandas.DataFrame:
        """A DataFrame with test tasks (and queries) as rows and training tasks as columns."""
        try:
            import pandas
        except ImportError:
            raise TlxError("to_pandas needs pandas: pip install 'tlxml_fast[pandas]'") from None
        columns = pandas.Index(self.train.names, name="train")
        if self.values.ndim == 2:
            return pandas.DataFrame(self.values.numpy(), pandas.Index(self.test.names, name="test"), columns)
        rows = pandas.MultiIndex.from_product(
            [self.test.names, range(self.values.shape[1])], names=["test", "query"]
        )
        return pandas.DataFrame(self.values.flatten(0, 1).numpy(), rows, columns).dropna(how="all")

    def to_xarray(self) -> xarray.DataArray:
        """A DataArray with named dimensions and, along them, names, groups and `in_fit` as coordinates."""
        try:
            import xarray
        except ImportError:
            raise TlxError("to_xarray needs xarray: pip install 'tlxml_fast[xarray]'") from None
        coordinates = {
            "test": list(self.test.names),
            "train": list(self.train.names),
            "test_group": ("test", list(self.test.groups)),
            "train_group": ("train", list(self.train.groups)),
            "in_fit": ("train", self.in_fit.numpy()),
        }
        return xarray.DataArray(
            self.values.numpy(), coordinates, self.dims, name="I_perf", attrs={"target": self.target}
        )

    def to_arrow(self) -> pyarrow.Table:
        """A Table of one row a pair: test, (query,) train, their groups, score; pairs without a score are left out."""
        try:
            import pyarrow
        except ImportError:
            raise TlxError("to_arrow needs pyarrow: pip install 'tlxml_fast[arrow]'") from None
        where = (~self.values.isnan()).nonzero().T
        places = dict(zip(self.dims, where.numpy(), strict=True))
        columns = {
            name: pyarrow.DictionaryArray.from_arrays(
                places[axis].astype("int32"), pyarrow.array(list(getattr(getattr(self, axis), field)))
            )
            for name, axis, field in (
                ("test", "test", "names"),
                ("train", "train", "names"),
                ("test_group", "test", "groups"),
                ("train_group", "train", "groups"),
            )
        }
        if "query" in places:
            columns["query"] = pyarrow.array(places["query"])
        return pyarrow.table({**columns, "score": self.values[tuple(where)].numpy()})

    def __dlpack__(self, **options: Any) -> Any:
        """The scores themselves, for numpy, JAX, CuPy and others: `jax.numpy.from_dlpack(scores)`."""
        return self.values.__dlpack__(**options)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> numpy.ndarray:
        """The scores themselves, for numpy: a view where nothing else is asked for."""
        values = self.values.numpy()
        return values.astype(dtype) if dtype is not None else values.copy() if copy else values

    def __dlpack_device__(self) -> tuple[int, int]:
        """Where they are."""
        return self.values.__dlpack_device__()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with a JSON header; whole or not at all."""
        header = {
            "test": asdict(self.test),
            "train": asdict(self.train),
            "target": self.target,
            "info": dict(self.info),
        }
        write_tensors(path, "scores", {"values": self.values, "in_fit": self.in_fit}, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scores:
        """Read what `save` wrote; executes no code. Raises CheckpointError on anything else."""
        tensors, header = read_tensors(path, "scores")
        with understanding(path):
            axes = [TaskAxis(**{k: tuple(v) for k, v in header[axis].items()}) for axis in ("test", "train")]
            return cls(tensors["values"], *axes, tensors["in_fit"], header["target"], header["info"])

    def _rank(self, k: int, descending: bool) -> Ranking:
        if not 1 <= k <= len(self.train):
            raise TlxError(f"k = {k} is not between 1 and the {len(self.train)} training tasks")
        # stable, so that equal scores keep the order of the tasks
        indices = self.values.argsort(dim=-1, descending=descending, stable=True)
        # a score that is not a number is neither helpful nor harmful: last at both ends
        unknown = self.values.isnan().gather(-1, indices)
        indices = indices.gather(-1, unknown.int().argsort(dim=-1, stable=True))[..., :k]
        return Ranking(indices, self.values.gather(-1, indices))
