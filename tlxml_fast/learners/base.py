"""What every learner is: adaptation θ = A(S, ω) and prediction f(θ), as pure functions of the meta-parameters."""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import LearnerError, TaskError
from ..losses import get_loss
from ..task import Task
from .body import Body, TrainingBody

Parameters = dict[str, Tensor]


class Episode(NamedTuple):
    """The tensors of one task that its query logits depend on."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor

    @classmethod
    def of(cls, task: Task, dtype: torch.dtype, device: torch.device) -> Episode:
        """A task's tensors, floating point in `dtype`, on `device`."""
        y = task.support_y.to(device, dtype if task.regression else torch.int64)
        return cls(task.support_x.to(device, dtype), y, task.query_x.to(device, dtype))

    def to(self, device: torch.device) -> Episode:
        """The same there."""
        return Episode(*(x.to(device) for x in self))


class Learner(ABC):
    """A module, the way it adapts to a support set, and the outer loss it is judged by.

    `parameters()` are the meta-parameters ω, a dict in the order in which every flat vector of the
    package ([q]) concatenates them. `adapt`, `predict` and `query_logits` are pure: they compose with
    torch.func transforms and change nothing.
    """

    kind: str

    def __init__(self, module: nn.Module, norm: str, loss: str):
        if not isinstance(module, nn.Module):
            raise LearnerError(
                f"{type(self).__name__} needs a torch.nn.Module, not a {type(module).__name__}"
            )
        self.module = module
        self.body = Body(module, norm)
        self.loss = get_loss(loss)
        self.weight_decay: float | dict[str, float] | None = None
        """δ of (δ/2)‖ω‖² in the objective ω was trained on; None where training did not record it."""
        self.training: dict[str, Any] = {}
        """What `meta_train` records of how ω came about."""
        if not self.parameters():
            raise LearnerError(f"{type(module).__name__} has no trainable parameters")

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in self.describe().items() if k != "learner")
        return f"{type(self).__name__}({type(self.module).__name__}, {settings})"

    @property
    def norm(self) -> str:
        """Whose statistics BatchNorm uses: "batch" or "running"."""
        return self.body.norm

    def parameters(self) -> Parameters:
        """The meta-parameters ω by name."""
        return self.body.parameters()

    @abstractmethod
    def adapt(self, omega: Mapping[str, Tensor], episode: Episode, ways: int) -> Parameters:
        """θ = A(S, ω): everything that the prediction of a query uses."""

    @abstractmethod
    def predict(self, theta: Mapping[str, Tensor], episode: Episode, ways: int) -> Tensor:
        """Query logits f(θ), [n, C]."""

    def query_logits(self, omega: Mapping[str, Tensor], episode: Episode, ways: int) -> Tensor:
        """f(A(S, ω)), [n, C]."""
        return self.predict(self.adapt(omega, episode, ways), episode, ways)

    def at_evaluation(self) -> Learner:
        """The learner as it meets a new task; itself unless evaluation differs from training."""
        return self

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The settings, JSON throughout; with the module's own description they rebuild the learner."""

    def fingerprint(self) -> str:
        """A hash of all that predictions are made of, besides code: settings, parameters, constants and buffers."""
        found = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        found.update(repr(self.module).encode())
        for name, t in [*self.parameters().items(), *self.body.constants(), *self._settings()]:
            found.update(f"{name}{t.dtype}{tuple(t.shape)};".encode())
            found.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return found.hexdigest()

    def _settings(self) -> list[tuple[str, Tensor]]:
        """Tensors among the settings, which `describe` has in words."""
        return []

    def notes(self) -> list[str]:
        """What a reader of results must know about how this learner computes."""
        if not self.body.has_batch_norm:
            return []
        return [
            "BatchNorm uses the statistics of the batch it is given (transductive)"
            if self.norm == "batch"
            else "BatchNorm uses its running statistics; training minimised the loss under the batch's own"
        ]

    def refuse_influence(self) -> None:
        """Raise LearnerError where ω is no stationary point of the loss, so that H⁻¹ has no meaning."""
        self.body.check_statistics()

    def check(self, task: Task) -> int:
        """The number of logits of a task, run forward twice; raises an error that names it if it does not fit."""
        self.body.check_statistics()
        if task.regression != self.loss.regression:
            kind = "real-valued targets" if task.regression else "class labels"
            raise TaskError(f"task {task.label!r} has {kind}, and the learner's loss is {self.loss.name}")
        for y in (task.support_y, task.query_y):
            if y is not None and (problem := self.loss.refuses(y)):
                raise TaskError(
                    f"task {task.label!r} has {problem}, and the learner's loss is {self.loss.name}"
                )
        reference = next(iter(self.parameters().values()))
        episode = Episode.of(task, reference.dtype, reference.device)
        omega = {name: p.detach() for name, p in self.parameters().items()}
        try:
            logits, again = (self.query_logits(omega, episode, task.ways) for _ in range(2))
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            if isinstance(error, LearnerError):
                raise LearnerError(f"task {task.label!r}: {error}") from None
            raise LearnerError(f"task {task.label!r} does not run through the model: {error}") from error
        outputs = logits.shape[-1]
        # on a device sums may be taken in another order the second time, and adaptation amplifies that
        rounding = 1e-3 * float(logits.nan_to_num(0.0, 0.0, 0.0).abs().max()) if logits.is_cuda else 1e-8
        if not torch.allclose(logits, again, atol=rounding, equal_nan=True):
            raise LearnerError(
                "the model gives other outputs for the same input the second time: it is random"
            )
        if outputs < task.ways or (task.regression and outputs != task.ways):
            what = "outputs" if task.regression else "ways"
            raise LearnerError(
                f"task {task.label!r} has {task.ways} {what} and the model has {outputs} outputs"
            )
        if outputs < 2 and not task.regression:
            raise LearnerError(f"task {task.label!r} has a single class: there is nothing to classify")
        return outputs

    def for_training(self) -> Learner:
        """The learner whose forward pass `meta_train` differentiates; it shares module and parameters."""
        if self.norm != "running" or not self.body.has_batch_norm:
            return self
        return self.with_body(TrainingBody(self.module, self.norm))

    def with_body(self, body: Body) -> Learner:
        """The same learner, its module evaluated by `body`; module and parameters are shared."""
        twin = copy.copy(self)
        twin.body = body
        return twin
