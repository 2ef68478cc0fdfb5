"""Learners from the wrappers and modules that other meta-learning code already holds.

Nothing of those libraries is imported: what an object is shows in its attributes. It must have exactly one meaning,
else the caller is asked to say which.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import CheckpointError, LearnerError
from .files import is_pickle
from .learners import MAML, Learner, ProtoNet

KINDS = ("maml", "protonet")
State = Mapping[str, Tensor] | str | os.PathLike[str]


def parse_learner(
    obj: Any,
    *,
    kind: str | None = None,
    inner_lr: float | None = None,
    inner_steps: int | None = None,
    norm: str | None = None,
    loss: str = "cross_entropy",
    state: State | None = None,
    **settings: Any,
) -> Learner:
    """A learner of what `obj` is; a Learner is returned as it is.

    learn2learn's MAML    module, lr, first_order → MAML; needs inner_steps, which it does not hold
    learn2learn's MetaSGD module, lrs → MAML(learn_inner_lr=True); needs inner_steps
    torchmeta's MetaModule → MAML that adapts its meta-parameters; needs inner_lr and inner_steps
    easyfsl's PrototypicalNetworks → ProtoNet of its backbone, unsquared distance, support and query apart, with its
        centring and normalisation
    any nn.Module         needs kind="maml" (with inner_lr and inner_steps) or "protonet"

    norm      whose statistics BatchNorm uses; unless given as its layers are set, the batch's in training mode
    state     parameters and buffers to load first: a state dict, or the path of a safetensors file
    settings  further arguments of MAML or ProtoNet

    Raises LearnerError where something needed is missing, is given twice, or can be read in more than one way, and
    CheckpointError for a file that is no safetensors file.
    """
    if isinstance(obj, Learner):
        return obj
    for matches, read in _READINGS:
        if matches(obj):
            return read(obj, _Given(kind, inner_lr, inner_steps, norm, loss, state, settings))
    if callable(obj) and not isinstance(obj, (nn.Module, type)):
        raise LearnerError(
            "a function has no parameters of its own; give them: linearize_fn(function, params, tasks), or "
            "FunctionLearner(function, params) for a learner"
        )
    raise LearnerError(
        f"a {type(obj).__name__} is no learner that is known here; give its torch module with kind='maml' or 'protonet'"
    )


class _Given:
    """What the caller said, and the errors about it."""

    def __init__(
        self,
        kind: str | None,
        inner_lr: float | None,
        inner_steps: int | None,
        norm: str | None,
        loss: str,
        state: State | None,
        settings: dict[str, Any],
    ):
        if kind is not None and kind not in KINDS:
            raise LearnerError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
        self.kind, self.inner_lr, self.inner_steps = kind, inner_lr, inner_steps
        self.norm, self.loss, self.state, self.settings = norm, loss, state, settings

    def maml(self, what: str, module: nn.Module, inner_lr: Any, **found: Any) -> MAML:
        """MAML of the module, with what was found in the object and what was given."""
        if self.kind not in (None, MAML.kind):
            raise LearnerError(f"{what} is a {MAML.kind}, and kind={self.kind!r} is given")
        for name, value in (("inner_lr", inner_lr), ("inner_steps", self.inner_steps)):
            if value is None:
                raise LearnerError(f"{what} does not say its {name}; give {name}=")
        self._once(what, found)
        self._load(module)
        return MAML(
            module,
            inner_lr,
            self.inner_steps,
            norm=self._norm(what, module),
            loss=self.loss,
            **found,
            **self.settings,
        )

    def protonet(self, what: str, encoder: nn.Module, statistics: nn.Module, **found: Any) -> ProtoNet:
        """ProtoNet of the encoder; `statistics` is the module whose norms say whose statistics they use."""
        if self.kind not in (None, ProtoNet.kind):
            raise LearnerError(f"{what} is a {ProtoNet.kind}, and kind={self.kind!r} is given")
        for name, value in (("inner_lr", self.inner_lr), ("inner_steps", self.inner_steps)):
            if value is not None:
                raise LearnerError(f"{what} adapts without gradient steps, and {name}={value} is given")
        if self.loss != "cross_entropy":
            raise LearnerError(f"{what} is judged by cross-entropy, and loss={self.loss!r} is given")
        self._once(what, found)
        self._load(statistics)
        return ProtoNet(encoder, norm=self._norm(what, statistics), **found, **self.settings)

    def _once(self, what: str, found: Mapping[str, Any]) -> None:
        for name in found.keys() & self.settings.keys():
            raise LearnerError(
                f"{what} has its own {name}, {found[name]!r}, and {self.settings[name]!r} is given"
            )

    def _load(self, module: nn.Module) -> None:
        if self.state is None:
            return
        state = self.state if isinstance(self.state, Mapping) else _read(self.state)
        try:
            module.load_state_dict(dict(state))
        except RuntimeError as error:
            problem = " ".join(str(error).split())
            raise LearnerError(f"the state does not fit the {type(module).__name__}: {problem}") from None

    def _norm(self, what: str, module: nn.Module) -> str:
        if self.norm is not None:
            return self.norm
        training = {layer.training for layer in module.modules() if isinstance(layer, _BatchNorm)}
        if len(training) > 1:
            raise LearnerError(
                f"some of the BatchNorm layers of {what} are in training mode and some are not, so that it can be read "
                "as norm='batch' or norm='running'; give norm="
            )
        return "running" if training == {False} else "batch"


def _read(path: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """The tensors of a safetensors file, which can execute nothing."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        if is_pickle(path):
            raise CheckpointError(
                f"{path} is a pickle, as torch.save writes, and a pickle can execute anything; if you trust it, "
                "convert it once: safetensors.torch.save_file(torch.load(path, weights_only=True), 'state.safetensors')"
            ) from None
        raise CheckpointError(f"{path} cannot be read as a safetensors file: {error}") from None


# ---- what an object can be --------------------------------------------------------------------------


def _has(obj: Any, *names: str) -> bool:
    return all(hasattr(obj, name) for name in names)


def _is_wrapper(obj: Any, rate: str) -> bool:
    return isinstance(getattr(obj, "module", None), nn.Module) and _has(obj, rate, "first_order", "clone")


def _maml(obj: Any, given: _Given) -> MAML:
    what = f"this learn2learn {type(obj).__name__}"
    if given.inner_lr is not None and given.inner_lr != obj.lr:
        raise LearnerError(f"{what} has lr={obj.lr}, and inner_lr={given.inner_lr} is given")
    return given.maml(what, obj.module, obj.lr, first_order=bool(obj.first_order))


def _meta_sgd(obj: Any, given: _Given) -> MAML:
    what = f"this learn2learn {type(obj).__name__}"
    if given.inner_lr is not None:
        raise LearnerError(f"{what} has learned rates, and inner_lr={given.inner_lr} is given")
    named, lrs = dict(obj.module.named_parameters()), list(obj.lrs)
    if len(named) != len(lrs):
        raise LearnerError(f"{what} has {len(lrs)} rates for {len(named)} parameters")
    rates = {name: lr.detach() for (name, p), lr in zip(named.items(), lrs, strict=True) if p.requires_grad}
    return given.maml(what, obj.module, rates, learn_inner_lr=True, first_order=bool(obj.first_order))


def _meta_module(obj: nn.Module, given: _Given) -> Learner:
    what = f"this torchmeta {type(obj).__name__}"
    if given.kind == ProtoNet.kind:
        return given.protonet(what, obj, obj)
    adapted = [name for name, _ in obj.meta_named_parameters()]
    return given.maml(what, obj, given.inner_lr, adapt=adapted)


def _prototypical(obj: nn.Module, given: _Given) -> ProtoNet:
    what = "this easyfsl PrototypicalNetworks"
    if getattr(obj, "use_softmax", False):
        raise LearnerError(
            f"{what} has use_softmax=True: its outputs are probabilities, and logits are needed"
        )
    encoder = _encoder(
        obj.backbone, getattr(obj, "feature_centering", None), getattr(obj, "feature_normalization", None)
    )
    return given.protonet(what, encoder, obj.backbone, distance="euclidean", joint_forward=False)


def _module(obj: nn.Module, given: _Given) -> Learner:
    what = f"this {type(obj).__name__}"
    if given.kind == MAML.kind:
        return given.maml(what, obj, given.inner_lr)
    if given.kind == ProtoNet.kind:
        return given.protonet(what, obj, obj)
    raise LearnerError(
        f"{what} can be read as the model of MAML, [n, …] to logits, or as the encoder of a ProtoNet, [n, …] to "
        "embeddings; give kind='maml' or kind='protonet'"
    )


def _encoder(backbone: nn.Module, centre: Any, norm: float | None) -> nn.Module:
    """The backbone itself, or followed by easyfsl's centring and normalisation where there are any."""
    none = centre is None or (isinstance(centre, (int, float)) and centre == 0)
    if none and norm is None:
        return backbone
    return CentredNormalised(backbone, torch.zeros(()) if none else torch.as_tensor(centre), norm)


class CentredNormalised(nn.Module):
    """z ↦ (z − centre), divided by its p-norm where p is given: what easyfsl does to features."""

    def __init__(self, backbone: nn.Module, centre: Tensor, p: float | None):
        super().__init__()
        self.backbone, self.p = backbone, p
        self.register_buffer("centre", centre.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """[n, …] → [n, D]."""
        z = self.backbone(x) - self.centre
        return z if self.p is None else F.normalize(z, p=self.p, dim=1)


_READINGS: tuple[tuple[Callable[[Any], bool], Callable[[Any, _Given], Learner]], ...] = (
    (lambda obj: _is_wrapper(obj, "lrs"), _meta_sgd),
    (lambda obj: _is_wrapper(obj, "lr"), _maml),
    (lambda obj: _has(obj, "meta_named_parameters", "get_subdict"), _meta_module),
    (
        lambda obj: (
            _has(obj, "backbone", "process_support_set")
            and any(kind.__name__ == "PrototypicalNetworks" for kind in type(obj).__mro__)
        ),
        _prototypical,
    ),
    # easyfsl's other classifiers have heads of their own
    (lambda obj: isinstance(obj, nn.Module) and not _has(obj, "process_support_set"), _module),
)
