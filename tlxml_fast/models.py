"""The field's two standard backbones, layer for layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .errors import LearnerError

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def conv4(
    hidden: int = 64,
    in_channels: int = 1,
    image_size: int = 28,
    ways: int | None = None,
    seed: int | None = None,
) -> nn.Sequential:
    """Conv4 (Vinyals et al. 2016; Snell et al. 2017): four blocks of conv 3×3 – BatchNorm – ReLU – max-pool 2×2.

    hidden       filters a block
    in_channels  1 for grey images, 3 for colour
    image_size   height and width; each block halves it, rounding down, so at least 16
    ways         None for the backbone (an encoder, [n, features]); a number adds the linear `classifier`
    seed         initialises the weights from this seed instead of the global random state

    The backbone has 28,320 parameters at hidden=32 and 111,936 at 64 for 28×28×1; 28,896 and 113,088 for 84×84×3.
    Raises LearnerError if the image is too small.
    """
    if hidden < 1 or in_channels < 1:
        raise LearnerError(f"conv4 has at least one filter and one channel, not {hidden} and {in_channels}")
    side = image_size // 16
    if side < 1:
        raise LearnerError(
            f"conv4 halves an image four times: {image_size}×{image_size} is too small, give at least 16"
        )
    with _seeded(seed):
        layers = OrderedDict(
            (f"block{i}", _block(in_channels if i == 1 else hidden, hidden)) for i in range(1, 5)
        )
        layers["flatten"] = nn.Flatten()
        if ways is not None:
            layers["classifier"] = nn.Linear(hidden * side * side, ways)
        model = nn.Sequential(layers)
    return _described(
        model, model="conv4", hidden=hidden, in_channels=in_channels, image_size=image_size, ways=ways
    )


def mlp(
    in_features: int,
    hidden: int | tuple[int, ...],
    out_features: int,
    seed: int | None = None,
    activation: str = "relu",
) -> nn.Sequential:
    """A fully connected network: Flatten, then Linear – activation for every hidden width, then Linear.

    `mlp(34, 32, 5)` is the 1,285-parameter network of the TLXML paper's experiments (arXiv 2501.14271).

    activation   "relu", "tanh" or "gelu". A gradient step through a ReLU jumps where a unit switches, so MAML's
                 objective is continuous in the meta-parameters with the smooth ones only
    """
    widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if min(in_features, out_features, *widths) < 1:
        raise LearnerError(f"mlp has widths of at least 1, not {(in_features, *widths, out_features)}")
    if activation not in ACTIVATIONS:
        raise LearnerError(f"activation is one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    with _seeded(seed):
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for i, (a, b) in enumerate(zip((in_features, *widths), widths, strict=False), start=1):
            layers[f"linear{i}"], layers[f"{activation}{i}"] = nn.Linear(a, b), ACTIVATIONS[activation]()
        layers["classifier"] = nn.Linear((in_features, *widths)[-1], out_features)
        model = nn.Sequential(layers)
    return _described(
        model,
        model="mlp",
        in_features=in_features,
        hidden=list(widths),
        out_features=out_features,
        activation=activation,
    )


def from_spec(spec: dict) -> nn.Module:
    """The model that `module.spec` describes, freshly initialised.

    Raises LearnerError for a description that names no model of this module.
    """
    arguments = dict(spec)
    builders = {"conv4": conv4, "mlp": mlp}
    name = arguments.pop("model", None)
    if name not in builders:
        raise LearnerError(
            f"no model is called {name!r}; those that can be rebuilt are {', '.join(builders)}"
        )
    if isinstance(arguments.get("hidden"), list):
        arguments["hidden"] = tuple(arguments["hidden"])
    try:
        return builders[name](**arguments)
    except TypeError as error:
        raise LearnerError(f"the description of model {name!r} does not fit: {error}") from None


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, 3, padding=1),
            norm=nn.BatchNorm2d(out_channels),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(2),
        )
    )


def _described(module: nn.Sequential, **spec: object) -> nn.Sequential:
    module.spec = spec
    return module


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draws inside come from `seed` and leave the global random state alone; None changes nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
