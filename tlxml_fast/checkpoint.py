"""Checkpoints: a learner, what it was trained for, and the optimizer, in one safetensors file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from .errors import CheckpointError
from .files import read_tensors, understanding, write_tensors
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
        "module": _spec(learner.module),
        "module_class": f"{type(learner.module).__module__}.{type(learner.module).__qualname__}",
        "module_repr": _repr(learner.module),
        "trainable": [name for name, p in _named_parameters(learner.module) if p.requires_grad],
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

    Parameters that were frozen (requires_grad=False) are frozen again, in a given module too.

    Raises CheckpointError if the file is damaged, or is of another architecture than `module`.
    """
    tensors, header = read_tensors(path, "checkpoint")
    with understanding(path):
        return _rebuilt(path, tensors, header, module)


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


def _rebuilt(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    module: nn.Module | None,
) -> Learner:
    state = {name.removeprefix(MODULE): t for name, t in tensors.items() if name.startswith(MODULE)}
    if module is None:
        if header["module"] is None:
            raise CheckpointError(
                f"{path} holds a {header['module_class']}; give such a module to load it into"
            )
        module = from_spec(header["module"])
        floating = (t.dtype for t in state.values() if t.is_floating_point())
        module.to(next(floating, torch.get_default_dtype()))
    _check_architecture(path, state, module.state_dict())
    _check_repr(path, header.get("module_repr"), module)
    module.load_state_dict(state)
    if "trainable" in header:  # before the learner is made: ω is what can be trained
        trainable = set(header["trainable"])
        for name, p in _named_parameters(module):
            p.requires_grad_(name in trainable)
    learner = _learner(path, header["learner"], module, tensors)
    learner.weight_decay, learner.training = header["weight_decay"], header["training"]
    return learner


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


def _check_repr(path: str | os.PathLike[str], held: str | None, module: nn.Module) -> None:
    """Layers without tensors, such as activations, show only in the module's printed form."""
    if held is None:
        return
    for a, b in zip_longest(held.splitlines(), _repr(module).splitlines(), fillvalue="nothing"):
        if a != b:
            raise CheckpointError(
                f"{path} is of another architecture: {a.strip()!r} in the checkpoint is {b.strip()!r} in the module"
            )


def _repr(module: nn.Module) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(module))  # addresses differ in every process


def _named_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters under all their names: tied weights have several."""
    return list(module.named_parameters(remove_duplicate=False))


def _spec(module: nn.Module) -> dict[str, Any] | None:
    """The module's description, if it still rebuilds the module: a layer may have been replaced since."""
    spec = getattr(module, "spec", None)
    try:
        with torch.device("meta"):  # no memory, and no draw from the global random state
            return spec if repr(from_spec(spec)) == repr(module) else None
    except (TypeError, ValueError):  # another library's idea of a spec
        return None
