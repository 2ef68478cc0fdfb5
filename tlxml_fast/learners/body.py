"""A module as a pure function of its parameters."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import LearnerError
from .elementary_norms import ElementaryNorms

NORMS = ("batch", "running")


class Body:
    """`body(parameters, x)`: the user's module evaluated at other parameters, the module itself never changed.

    norm="batch" normalises by the statistics of the batch given (the transductive convention of MAML and
    ProtoNet code); norm="running" by the running statistics, and is refused while they never saw a batch.
    Dropout is off. Parameters with requires_grad=False are constants, like buffers.
    """

    def __init__(self, module: nn.Module, norm: str = "batch"):
        if norm not in NORMS:
            raise LearnerError(f"norm is 'batch' or 'running', not {norm!r}")
        self.module, self.norm = module, norm
        self.has_batch_norm = any(isinstance(m, _BatchNorm) for m in module.modules())
        try:
            self.template = copy.deepcopy(module).eval()
        except (RuntimeError, TypeError) as error:
            raise LearnerError(f"the module cannot be copied ({str(error).splitlines()[0]})") from None
        for layer in self.template.modules():
            if isinstance(layer, _BatchNorm) and norm == "batch":
                layer.running_mean = layer.running_var = None  # so that F.batch_norm takes the batch's own
                layer.track_running_stats = False
        self._skeletons: dict[int, nn.Module] = {}
        self._norms: Callable[[], AbstractContextManager[object]] = nullcontext

    def parameters(self) -> dict[str, Tensor]:
        """The trainable parameters by name, in the module's own order."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def check_statistics(self) -> None:
        """Raise LearnerError if running statistics are asked for that never saw a batch."""
        if self.norm != "running":
            return
        for name, layer in self.module.named_modules():
            if not isinstance(layer, _BatchNorm):
                continue
            if layer.running_mean is None:
                raise LearnerError(f"norm='running' needs running statistics, and {name!r} tracks none")
            if layer.num_batches_tracked is not None and int(layer.num_batches_tracked) == 0:
                raise LearnerError(
                    f"norm='running', but the running statistics of {name!r} never saw a batch"
                )

    def any_order(self) -> Body:
        """The same function from elementary operations, slower and differentiable to any order."""
        twin = copy.copy(self)
        twin._norms = ElementaryNorms
        return twin

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        # copies: whatever the module writes to its buffers stays here
        constants = {
            name: value.detach().to(
                x.device, x.dtype if value.is_floating_point() else value.dtype, copy=True
            )
            for name, value in self.constants()
        }
        with self._norms():
            outputs = functional_call(self._skeleton(), {**constants, **parameters}, (x,), strict=False)
        if not isinstance(outputs, Tensor) or outputs.ndim < 2 or len(outputs) != len(x):
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise LearnerError(f"the module maps {len(x)} examples to {shape}, not to [{len(x)}, outputs]")
        return outputs

    def _skeleton(self) -> nn.Module:
        """This thread's own copy: functional_call exchanges a module's parameters while it runs."""
        thread = threading.get_ident()
        if thread not in self._skeletons:
            self._skeletons[thread] = copy.deepcopy(self.template)
        return self._skeletons[thread]

    def constants(self) -> list[tuple[str, Tensor]]:
        """What the module reads besides its parameters: frozen ones, and buffers, by name."""
        live = [(name, p) for name, p in self.module.named_parameters() if not p.requires_grad]
        known = dict(self.template.named_buffers())
        return live + [(name, b) for name, b in self.module.named_buffers() if name in known]


class TrainingBody(Body):
    """What `meta_train` runs when norm="running": batch statistics, running ones updated on the way."""

    def __init__(self, module: nn.Module, norm: str = "batch"):
        super().__init__(module, norm)
        self._ahead: dict[str, Tensor] = {}

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        # A transform (MAML's inner gradient) forbids writing to the module's own buffers: copies run ahead of them,
        # until a pass outside, the query's, writes them back.
        own = dict(self.module.named_buffers())
        buffers = {name: self._ahead.get(name, b).clone() for name, b in own.items()}
        modes = [(layer, layer.training) for layer in self.module.modules()]
        self.module.eval()
        for layer in self.module.modules():
            if isinstance(layer, _BatchNorm):
                layer.train()
        try:
            outputs = functional_call(self.module, {**buffers, **parameters}, (x,))
        finally:
            for layer, mode in modes:
                layer.training = mode
        self._ahead = buffers
        if not any(is_functorch_wrapped_tensor(b) for b in buffers.values()):
            for name, b in own.items():
                b.copy_(buffers[name])
            self._ahead = {}
        return outputs


def check_logits(logits: Tensor, what: str) -> Tensor:
    """`logits` if they are [n, C], else LearnerError."""
    if logits.ndim != 2:
        raise LearnerError(f"{what} gives outputs of shape {tuple(logits.shape)}, not [n, outputs]")
    return logits
