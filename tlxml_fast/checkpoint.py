"""Checkpoints: a learner, what it was trained for, and the optimizer, in one safetensors file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .errors import CheckpointError
from .files import read_tensors, write_tensors
from .learners import LEARNERS, Learner
from .models import from_spec

MODULE, RATE, OPTIMIZER = "module.", "rate.", "optimizer."


def save_checkpoint(
    path: str | os.PathLike[str],
    learner: Learner,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Write the learner's module, settings, weight decay δ and training record; whole or not at all.

    With `optimizer` (over `learner.parameters()`, in order) training can be resumed bit for bit.
    """
    tensors = {MODULE + name: value for name, value in learner.module.state_dict().items()}
    tensors |= {RATE + name: rate for name, rate in getattr(learner, "rates", {}).items()}
    header: dict[str, Any] = {
        "learner": learner.describe(),
        "module": getattr(learner.module, "spec", None),
        "module_class": f"{type(learner.module).__module__}.{type(learner.module).__qualname__}",
        "weight_decay": learner.weight_decay,
        "training": learner.training,
    }
    if optimizer is not None:
        names = list(learner.parameters())
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{OPTIMIZER}{names[index]}/{key}": torch.as_tensor(v) for key, v in state.items()}
    write_tensors(path, "checkpoint", tensors, header)


def load_checkpoint(path: str | os.PathLike[str], module: nn.Module | None = None) -> Learner:
    """The learner that `save_checkpoint` wrote. Reading executes no code.

    module   what to load the parameters into; not needed for the models of `tlxml_fast.models`

    Raises CheckpointError if the file is damaged, or is of another architecture than `module`.
    """
    tensors, header = read_tensors(path, "checkpoint")
    state = {name.removeprefix(MODULE): t for name, t in tensors.items() if name.startswith(MODULE)}
    if module is None:
        if header["module"] is None:
            raise CheckpointError(
                f"{path} holds a {header['module_class']}; give such a module to load it into"
            )
        module = from_spec(header["module"])
        module.to(next(t.dtype for t in state.values() if t.is_floating_point()))
    _check_architecture(path, state, module.state_dict())
    module.load_state_dict(state)
    learner = _learner(path, header["learner"], module, tensors)
    learner.weight_decay, learner.training = header["weight_decay"], header["training"]
    return learner


def restore_optimizer(
    path: str | os.PathLike[str], learner: Learner, optimizer: torch.optim.Optimizer
) -> None:
    """Give an optimizer over `learner.parameters()` the state it had when the checkpoint was written."""
    tensors, _ = read_tensors(path, "checkpoint")
    state: dict[int, dict[str, Tensor]] = {}
    for index, name in enumerate(learner.parameters()):
        prefix = f"{OPTIMIZER}{name}/"
        entries = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        if entries:
            state[index] = entries
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _learner(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    module: nn.Module,
    tensors: Mapping[str, Tensor],
) -> Learner:
    arguments = dict(settings)
    kind = LEARNERS.get(arguments.pop("learner", ""))
    if kind is None:
        raise CheckpointError(
            f"{path} holds a learner called {settings.get('learner')!r}, which is not known here"
        )
    rates = {name.removeprefix(RATE): t for name, t in tensors.items() if name.startswith(RATE)}
    if rates:
        arguments["inner_lr"] = rates
    return kind(module, **arguments)


def _check_architecture(
    path: str | os.PathLike[str], held: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    for name in [*wanted, *held]:
        if name not in held or name not in wanted:
            where = "the module" if name in wanted else "the checkpoint"
            raise CheckpointError(f"{path} is of another architecture: {name!r} is in {where} only")
        a, b = held[name], wanted[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            raise CheckpointError(
                f"{path} is of another architecture: {name!r} is {tuple(a.shape)} {a.dtype} in the checkpoint "
                f"and {tuple(b.shape)} {b.dtype} in the module"
            )
