"""From a module to a plan: the sequence of known layers that the engine runs.

torch.fx traces the module; every call it makes must be one of the layers below, else `Unsupported` says which one is
not, and the reference backend runs instead. BatchNorm, activation and max pool that follow each other become one
layer, since one sweep over memory does all three.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils import parametrize

from ..ops.im2col import Window
from ..ops.norm_act_pool import Pool
from .layers import (
    Averages,
    ConvBlock,
    Convolution,
    DirectConvolution,
    Flatten,
    GroupNorm,
    Layer,
    Linear,
    Norm,
    NormActPool,
    convolution,
)


class Unsupported(Exception):
    """The module has something that no layer of a plan stands for; the message says what."""


@dataclass(frozen=True)
class Step:
    """One value of the plan: a layer of an earlier value, or (layer None) the sum of two."""

    layer: Layer | None
    inputs: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class Plan:
    """Value 0 is the input, value i + 1 comes of step i, and the last is the output."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return " – ".join(step.label for step in self.steps)

    @property
    def couples_examples(self) -> bool:
        """Whether an example's output depends on the others: where BatchNorm takes their statistics."""
        rest = (s.layer.rest if isinstance(s.layer, ConvBlock) else s.layer for s in self.steps)
        return any(isinstance(layer, NormActPool) and layer.uses_batch_statistics for layer in rest)

    @property
    def packed_weights(self) -> list[str]:
        """The weights that a device's convolutions read."""
        layers = (s.layer.convolution if isinstance(s.layer, ConvBlock) else s.layer for s in self.steps)
        return [layer.weight for layer in layers if isinstance(layer, DirectConvolution)]

    def on_device(self, precision: str) -> Plan:
        """The same plan with the layers' ways on a GPU: `precision` is what products are made of."""
        return Plan(tuple(replace(step, layer=_on_device(step.layer, precision)) for step in self.steps))


def _on_device(layer: Layer | None, precision: str) -> Layer | None:
    if isinstance(layer, ConvBlock):
        return ConvBlock(DirectConvolution.of(layer.convolution, precision), layer.rest)
    if isinstance(layer, Convolution):
        return DirectConvolution.of(layer, precision)
    if isinstance(layer, Linear):
        layer = copy(layer)
        layer.precision = precision
    return layer


# ---- what a call in the traced graph is ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Conv:
    module: nn.Conv2d
    name: str


@dataclass(frozen=True)
class _BatchNorm:
    norm: Norm


@dataclass(frozen=True)
class _Act:
    act: tuple[str, float] | str
    label: str


@dataclass(frozen=True)
class _Pool:
    pool: Pool


@dataclass(frozen=True)
class _Done:
    layer: Layer | None
    label: str


_SAME = object()  # the call changes nothing


def plan(module: nn.Module, batch_norm: str) -> Plan:
    """The plan of a module in evaluation mode; `batch_norm` is "batch" or "running". Raises Unsupported."""
    for name, layer in module.named_modules():
        if parametrize.is_parametrized(layer):
            raise Unsupported(f"{name!r} is parametrized")
        if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
            raise Unsupported(f"{name or 'the module'!r} has a hook, or a forward of its own instance")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = _Tracer().trace(module, {"params": None} if _is_meta(module) else None)
        except Exception as error:  # whatever a forward may raise when it is traced
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Unsupported(f"torch.fx cannot trace its forward ({reason})") from None
    return _Builder(module, batch_norm).build(graph)


def _is_meta(module: nn.Module) -> bool:
    """Whether it is torchmeta's, whose forward takes other parameters too, where they are given."""
    return hasattr(module, "meta_named_parameters")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, name: str) -> bool:
        """torch's own layers, and torchmeta's that are one of them."""
        return super().is_leaf_module(m, name) or (
            _is_meta(m) and not MODULES.keys().isdisjoint(type(m).__mro__)
        )


class _Builder:
    def __init__(self, module: nn.Module, batch_norm: str):
        self.modules = dict(module.named_modules())
        self.batch_norm = batch_norm

    def build(self, graph: fx.Graph) -> Plan:
        """Read calls one by one, then join what belongs together."""
        values: dict[fx.Node, int] = {}  # which call made a node's value
        calls: list[tuple[Any, tuple[int, ...]]] = []
        output = None
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        for node in graph.nodes:
            if (
                getattr(node.target, "__name__", "") == "_assert_is_none"
            ):  # fx's own, of an input that is not given
                graph.erase_node(node)
        for node in inputs[1:]:
            if node.users:
                raise Unsupported(f"its forward takes {len(inputs)} inputs")
        values[inputs[0]] = 0
        for node in graph.nodes:
            if node.op == "placeholder":
                continue
            if node.op == "output":
                output = node.args[0]
                continue
            if node.op == "get_attr":
                raise Unsupported(f"its forward reads {node.target!r} outside a layer")
            if _is_shape(node):
                continue
            if node.args and node.args[0] not in values:
                raise Unsupported(f"{node.name} is applied to something that is not a value")
            call = self._call(node, values)
            sources = tuple(values[a] for a in node.args if isinstance(a, fx.Node) and a in values)
            if call is _SAME:
                values[node] = sources[0]
                continue
            calls.append((call, sources if isinstance(call, _Done) and call.layer is None else sources[:1]))
            values[node] = len(calls)
        if output not in values:
            raise Unsupported("its output is not one tensor")
        return _join(calls, values[output])

    def _call(self, node: fx.Node, values: dict[fx.Node, int]) -> Any:
        if node.op == "call_module":
            return self._module(str(node.target), self.modules[str(node.target)])
        name = (
            node.target
            if isinstance(node.target, str)
            else getattr(node.target, "__name__", str(node.target))
        )
        reader = FUNCTIONS.get(name)
        if reader is None or (node.op == "call_function" and not _known(node.target)):
            raise Unsupported(f"{name} is not a layer of a plan")
        return reader(node, values)

    def _module(self, name: str, m: nn.Module) -> Any:
        for kind in type(m).__mro__:
            reader = MODULES.get(kind)
            if reader is not None and (type(m).forward is kind.forward or _is_meta(m)):
                return reader(self, name, m)
        raise Unsupported(f"{type(m).__name__} {name!r} is not a layer of a plan")

    # ---- modules ------------------------------------------------------------------------------------

    def _linear(self, name: str, m: nn.Linear) -> _Done:
        return _Done(Linear(f"{name}.weight", _bias(name, m)), "linear")

    def _conv(self, name: str, m: nn.Conv2d) -> _Conv:
        if m.groups != 1 or m.dilation != (1, 1) or m.padding_mode != "zeros":
            raise Unsupported(f"Conv2d {name!r} has groups, dilation or a padding that is not zeros")
        return _Conv(m, name)

    def _norm(self, name: str, m: nn.BatchNorm2d) -> _BatchNorm:
        weight, bias = (f"{name}.weight", f"{name}.bias") if m.affine else (None, None)
        if self.batch_norm == "batch" or m.running_mean is None:
            return _BatchNorm(Norm(weight, bias, m.eps))
        return _BatchNorm(Norm(weight, bias, m.eps, f"{name}.running_mean", f"{name}.running_var"))

    def _layer_norm(self, name: str, m: nn.LayerNorm) -> _Done:
        if len(m.normalized_shape) not in (1, 3):
            raise Unsupported(f"LayerNorm {name!r} is over {len(m.normalized_shape)} dimensions")
        weight = f"{name}.weight" if m.weight is not None else None
        return _Done(GroupNorm(weight, _bias(name, m), 1, m.eps, per_position=True), "layer norm")

    def _group_norm(self, name: str, m: nn.GroupNorm) -> _Done:
        weight, bias = (f"{name}.weight", f"{name}.bias") if m.affine else (None, None)
        return _Done(GroupNorm(weight, bias, m.num_groups, m.eps), "group norm")

    def _instance_norm(self, name: str, m: nn.InstanceNorm2d) -> _Done:
        if m.track_running_stats:
            raise Unsupported(f"InstanceNorm {name!r} tracks running statistics")
        weight, bias = (f"{name}.weight", f"{name}.bias") if m.affine else (None, None)
        return _Done(GroupNorm(weight, bias, None, m.eps), "instance norm")

    def _flatten(self, name: str, m: nn.Flatten) -> _Done:
        return _flatten_of(m.start_dim, m.end_dim)

    def _max_pool(self, name: str, m: nn.MaxPool2d) -> _Pool:
        return _pool_of(m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices)

    def _gelu(self, name: str, m: nn.GELU) -> _Act:
        return _gelu_of(m.approximate)


def _bias(name: str, m: nn.Module) -> str | None:
    return f"{name}.bias" if m.bias is not None else None


def _pool_of(
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    indices: bool = False,
) -> _Pool:
    square = []
    for value in (kernel, kernel if stride is None else stride, padding, dilation):
        pair = value if isinstance(value, tuple | list) else (value, value)
        if pair[0] != pair[-1] or not isinstance(pair[0], int):
            raise Unsupported("a max pool is not square")
        square.append(pair[0])
    if square[3] != 1 or indices:
        raise Unsupported("a max pool has dilation, or returns its indices")
    return _Pool(Pool(*square[:3], bool(ceil_mode)))


def _gelu_of(approximate: str = "none") -> _Act:
    if approximate != "none":
        raise Unsupported("GELU with the tanh approximation is not a layer of a plan")
    return _Act("gelu", "gelu")


def _flatten_of(start: int = 0, end: int = -1) -> Any:
    if (start, end) not in ((1, -1), (1, 3)):
        raise Unsupported(f"flatten from dimension {start} to {end}")
    return _Done(Flatten(), "flatten")


_relu = _Act(("leak", 0.0), "relu")


def _average(function: Callable[..., torch.Tensor], *names: str) -> Callable[..., _Done]:
    def read(builder: _Builder, name: str, m: nn.Module) -> _Done:
        return _Done(Averages(partial(function, **{n: getattr(m, n) for n in names})), "average pool")

    return read


AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
MODULES: dict[type, Callable[[_Builder, str, Any], Any]] = {
    nn.Linear: _Builder._linear,
    nn.Conv2d: _Builder._conv,
    nn.modules.batchnorm._BatchNorm: _Builder._norm,
    nn.LayerNorm: _Builder._layer_norm,
    nn.GroupNorm: _Builder._group_norm,
    nn.modules.instancenorm._InstanceNorm: _Builder._instance_norm,
    nn.Flatten: _Builder._flatten,
    nn.MaxPool2d: _Builder._max_pool,
    nn.GELU: _Builder._gelu,
    nn.AvgPool2d: _average(F.avg_pool2d, *AVG),
    nn.AdaptiveAvgPool2d: _average(F.adaptive_avg_pool2d, "output_size"),
    nn.ReLU: lambda b, name, m: _relu,
    nn.LeakyReLU: lambda b, name, m: _Act(("leak", m.negative_slope), "leaky relu"),
    nn.Tanh: lambda b, name, m: _Act("tanh", "tanh"),
    nn.Sigmoid: lambda b, name, m: _Act("sigmoid", "sigmoid"),
    nn.Identity: lambda b, name, m: _SAME,
    # plans are made in evaluation mode
    **dict.fromkeys(
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout), lambda b, name, m: _SAME
    ),
}


# ---- functions and methods ------------------------------------------------------------------------------


def _arguments(node: fx.Node, *names: str) -> dict[str, Any]:
    """Positional and keyword arguments after the tensor; none may be a traced value."""
    given = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
    if any(isinstance(v, fx.Node) for v in given.values()) or set(given) - set(names):
        raise Unsupported(f"{node.name} has arguments that a plan cannot read")
    return given


def _add(node: fx.Node, values: dict[fx.Node, int]) -> Any:
    a, b, *rest = node.args
    if rest or node.kwargs or not all(isinstance(v, fx.Node) and v in values for v in (a, b)):
        raise Unsupported("a sum with something that is not a value of the plan")
    return _Done(None, "add")


def _view(node: fx.Node, values: dict[fx.Node, int]) -> Any:
    shape = node.args[1:] if len(node.args) > 2 else node.args[1]
    if len(shape) == 2 and shape[1] == -1 and isinstance(shape[0], fx.Node) and _is_shape(shape[0]):
        return _Done(Flatten(), "flatten")
    raise Unsupported(f"a view to {shape}; only flattening is a layer of a plan")


def _mean(node: fx.Node, values: dict[fx.Node, int]) -> Any:
    given = _arguments(node, "dim", "keepdim")
    dims = given.get("dim")
    if dims is None or sorted(d % 4 for d in dims if isinstance(d, int)) != [2, 3]:
        raise Unsupported("a mean that is not over rows and columns")
    layer = Averages(partial(F.adaptive_avg_pool2d, output_size=1))
    return (
        _Done(layer, "global mean") if given.get("keepdim") else _Done(_Both(layer, Flatten()), "global mean")
    )


def _dropout(node: fx.Node, values: dict[fx.Node, int]) -> Any:
    if _arguments(node, "p", "training", "inplace").get("training", True):
        raise Unsupported("dropout that is always on")
    return _SAME


def _max_pool_function(node: fx.Node, values: dict[fx.Node, int]) -> _Pool:
    given = _arguments(node, "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    return _pool_of(
        given["kernel_size"],
        given.get("stride"),
        given.get("padding", 0),
        given.get("dilation", 1),
        given.get("ceil_mode", False),
        given.get("return_indices", False),
    )


def _average_function(function: Callable[..., torch.Tensor], *names: str) -> Callable[..., _Done]:
    return lambda node, values: _Done(Averages(partial(function, **_arguments(node, *names))), "average pool")


def _leaky(node: fx.Node, values: dict[fx.Node, int]) -> _Act:
    return _Act(
        ("leak", _arguments(node, "negative_slope", "inplace").get("negative_slope", 0.01)), "leaky relu"
    )


FUNCTIONS: dict[str, Callable[[fx.Node, dict[fx.Node, int]], Any]] = {
    "add": _add,
    "iadd": _add,
    "relu": lambda node, values: _relu,
    "relu_": lambda node, values: _relu,
    "leaky_relu": _leaky,
    "leaky_relu_": _leaky,
    "gelu": lambda node, values: _gelu_of(**_arguments(node, "approximate")),
    "tanh": lambda node, values: _Act("tanh", "tanh"),
    "sigmoid": lambda node, values: _Act("sigmoid", "sigmoid"),
    "max_pool2d": _max_pool_function,
    "boolean_dispatch": _max_pool_function,
    "avg_pool2d": _average_function(F.avg_pool2d, *AVG),
    "adaptive_avg_pool2d": _average_function(F.adaptive_avg_pool2d, "output_size"),
    "flatten": lambda node, values: _flatten_of(*_arguments(node, "start_dim", "end_dim").values()),
    "view": _view,
    "reshape": _view,
    "mean": _mean,
    "dropout": _dropout,
    "contiguous": lambda node, values: _SAME,
}


def _known(function: Any) -> bool:
    """Whether a function is torch's own, or an operator: another of the same name may do anything."""
    if function in (operator.add, operator.iadd) or function is F.max_pool2d:
        return True
    return (getattr(function, "__module__", "") or "").startswith(("torch", "_operator")) or any(
        getattr(space, getattr(function, "__name__", ""), None) is function for space in (torch, F)
    )


def _is_shape(node: Any) -> bool:
    """x.size(0), x.shape[0]: numbers, not values."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] in ((0,), ())
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] == "shape"
    if node.op == "call_function" and node.target is operator.getitem:
        return _is_shape(node.args[0]) and node.args[1] == 0
    return False


# ---- joining ------------------------------------------------------------------------------------------


class _Both:
    """Two layers for one call; taken apart while joining."""

    def __init__(self, *layers: Layer):
        self.layers = layers


def _join(calls: list[tuple[Any, tuple[int, ...]]], output: int) -> Plan:
    """Group norm – act – pool where each is the only reader of the one before, and number the values anew."""
    readers = [0] * (len(calls) + 1)
    for _, sources in calls:
        for source in sources:
            readers[source] += 1
    readers[output] += 1
    last = _Last(readers)
    for i, (call, sources) in enumerate(calls, start=1):
        last.add(i, call, sources)
    if last.number[output] != len(last.steps):
        raise Unsupported("its output is not the last value that it computes")
    return Plan(tuple(_blocks(last.steps)))


def _blocks(steps: list[Step]) -> Iterator[Step]:
    """A convolution that only a NormActPool reads becomes one layer with it; values are numbered anew."""
    readers = [0] * (len(steps) + 1)
    for step in steps:
        for i in step.inputs:
            readers[i] += 1
    number, made, waiting = {0: 0}, 0, None
    for i, step in enumerate(steps, start=1):
        inputs = tuple(number.get(j, -1) for j in step.inputs)
        if waiting is not None:
            joined = ConvBlock(waiting.layer, step.layer)
            step, inputs, waiting = Step(joined, (), f"{waiting.label}+{step.label}"), waiting.inputs, None
        elif isinstance(step.layer, Convolution) and readers[i] == 1 and i < len(steps):
            follower = steps[i]
            if isinstance(follower.layer, NormActPool) and follower.inputs == (i,):
                waiting = Step(step.layer, inputs, step.label)
                continue
        made += 1
        number[i] = made
        yield Step(step.layer, inputs, step.label)


class _Last:
    """Steps so far, and the group of norm, act and pool that may still grow."""

    def __init__(self, readers: list[int]):
        self.readers = readers
        self.steps: list[Step] = []
        self.number = {0: 0}  # of a call's value among those of the plan
        self.open: dict[
            int, tuple[Norm | None, Any, int]
        ] = {}  # value → what its NormActPool has, and its input
        self.convolutions: dict[int, tuple[_Conv, int]] = {}  # value → a convolution that a norm may absorb

    def add(self, i: int, call: Any, sources: tuple[int, ...]) -> None:
        source = sources[0]
        alone = self.readers[source] == 1
        if isinstance(call, _Done):
            layers = call.layer.layers if isinstance(call.layer, _Both) else (call.layer,)
            inputs = tuple(self.number[s] for s in sources)
            for layer in layers:
                self.steps.append(Step(layer, inputs, call.label))
                inputs = (len(self.steps),)
        elif isinstance(call, _Conv):
            self.steps.append(Step(self._convolution(call, False), (self.number[source],), "conv"))
            self.convolutions[i] = (call, len(self.steps) - 1)
        elif isinstance(call, _BatchNorm):
            if alone and call.norm.running_mean is None and source in self.convolutions:
                conv, at = self.convolutions[source]
                self.steps[at] = Step(self._convolution(conv, True), self.steps[at].inputs, "conv")
            self._start(i, source, call.norm, None, "batch norm")
        elif isinstance(call, _Act):
            norm, act, at = self.open.get(source, (None, None, -1))
            if alone and at == len(self.steps) - 1 and act is None and source in self.open:
                self._grow(i, norm, call.act, None, call.label)
            else:
                self._start(i, source, None, call.act, call.label)
        elif isinstance(call, _Pool):
            norm, act, at = self.open.get(source, (None, None, -1))
            if alone and source in self.open and at == len(self.steps) - 1 and not isinstance(act, str):
                self._grow(i, norm, act, call.pool, "max pool")
                del self.open[i]
            else:
                step = Step(NormActPool(None, None, call.pool), (self.number[source],), "max pool")
                self.steps.append(step)
        self.number[i] = len(self.steps)

    def _start(self, i: int, source: int, norm: Norm | None, act: Any, label: str) -> None:
        self.steps.append(Step(NormActPool(norm, act), (self.number[source],), label))
        self.open[i] = (norm, act, len(self.steps) - 1)

    def _grow(self, i: int, norm: Norm | None, act: Any, pool: Pool | None, label: str) -> None:
        before = self.steps[-1]
        self.steps[-1] = Step(NormActPool(norm, act, pool), before.inputs, f"{before.label}+{label}")
        self.open[i] = (norm, act, len(self.steps) - 1)

    @staticmethod
    def _convolution(call: _Conv, absorbed: bool) -> Layer:
        m = call.module
        padding = m.padding
        if padding == "same":
            if any(k % 2 == 0 for k in m.kernel_size):
                raise Unsupported(f"Conv2d {call.name!r} pads an even kernel to the same size")
            padding = tuple(k // 2 for k in m.kernel_size)
        elif padding == "valid":
            padding = (0, 0)
        window = Window(m.kernel_size, m.stride, padding)
        return convolution(f"{call.name}.weight", _bias(call.name, m), window, m.in_channels, absorbed)
