"""What the engine is compared with: torch.func, curvlinops and the loop over tasks that most people write.

All compute Σ_t (1/T) J_tᵀ Λ_t J_t v_k, or the gradients of all tasks, of a learner written down once more in a few
lines, with nothing of this package in the way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap

from ..learners import MAML, Learner
from ..linearize import FlatParameters
from ..ops.prototypes import class_means, prototype_logits
from ..task import TaskSet

Product = Callable[[Tensor], Tensor]

# Tasks × vectors in one vmap: on two cores products of the small MLP are fastest near this, and memory is bounded.
PAIRS_AT_ONCE = 2048
ON_A_DEVICE = 16  # times as many: fewer would leave it idle


class Plain:
    """A learner's query logits as a function of flat parameters and of one task's tensors."""

    def __init__(self, learner: Learner, tasks: TaskSet, dtype: torch.dtype = torch.float32):
        self.learner, self.ways = learner, tasks[0].ways
        parameters = learner.parameters()
        self.flat = FlatParameters(parameters)
        self.omega = self.flat.flatten(parameters).detach().to(dtype)
        self.module = learner.body.template
        self.sx, self.sy, self.qx, self.qy = (
            torch.stack([self._tensor(getattr(t, field), dtype) for t in tasks]).to(self.omega.device)
            for field in ("support_x", "support_y", "query_x", "query_y")
        )

    @staticmethod
    def _tensor(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype) if x.is_floating_point() else x

    def __len__(self) -> int:
        return len(self.sx)

    def chunks(self, size: int) -> list[Plain]:
        """The same on `size` tasks each, in order."""
        made = []
        for part in zip(*(x.split(size) for x in (self.sx, self.sy, self.qx, self.qy)), strict=True):
            made.append(copy.copy(self))
            made[-1].sx, made[-1].sy, made[-1].qx, made[-1].qy = part
        return made

    def __call__(self, omega: Tensor, sx: Tensor, sy: Tensor, qx: Tensor) -> Tensor:
        return self.logits(self.flat.unflatten(omega), sx, sy, qx)

    def logits(self, theta: dict[str, Tensor], sx: Tensor, sy: Tensor, qx: Tensor) -> Tensor:
        """f [n, C] at named parameters."""
        if isinstance(self.learner, MAML):
            rate = next(iter(self.learner.rates.values()))

            def loss(p: dict[str, Tensor]) -> Tensor:
                return F.cross_entropy(functional_call(self.module, p, (sx,)), sy)

            for _ in range(self.learner.inner_steps):
                theta = {name: theta[name] - rate * g for name, g in grad(loss)(theta).items()}
            return functional_call(self.module, theta, (qx,))
        z = functional_call(self.module, theta, (torch.cat([sx, qx]),)).flatten(1)
        prototypes = class_means(z[: len(sx)], sy, self.ways)
        return prototype_logits(z[len(sx) :], prototypes)


def output_hessian(f: Tensor, u: Tensor) -> Tensor:
    """Λu of one task's logits [n, C]."""
    p = f.softmax(-1)
    return p * (u - (p * u).sum(-1, keepdim=True)) / len(f)


def at_once(K: int, device: torch.device) -> int:
    """How many tasks a product with K vectors takes at once."""
    return max(1, PAIRS_AT_ONCE * (ON_A_DEVICE if device.type == "cuda" else 1) // K)


def torch_func(plain: Plain, over_tasks: bool, over_vectors: bool) -> Product:
    """jvp, Λ, vjp; tasks and vectors each looped over or in a vmap, which is of `PAIRS_AT_ONCE` at most."""

    def one(v: Tensor, sx: Tensor, sy: Tensor, qx: Tensor) -> Tensor:
        def f(w: Tensor) -> Tensor:
            return plain(w, sx, sy, qx)

        _, df = jvp(f, (plain.omega,), (v,))
        logits, pull = vjp(f, plain.omega)
        return pull(output_hessian(logits, df))[0]

    def tasks(part: Plain, v: Tensor) -> Tensor:
        if over_tasks:
            return vmap(one, (None, 0, 0, 0))(v, part.sx, part.sy, part.qx).sum(0)
        return sum(one(v, *t) for t in zip(part.sx, part.sy, part.qx, strict=True))

    def product(V: Tensor) -> Tensor:
        total = torch.zeros_like(V)
        for part in plain.chunks(at_once(len(V) if over_vectors else 1, V.device)):
            along = partial(tasks, part)
            total += (vmap(along)(V) if over_vectors else torch.stack([along(v) for v in V])).detach()
        return total / len(plain)

    return product


def autograd_loop(plain: Plain) -> Product:
    """Task by task and vector by vector, J v by differentiating Jᵀu in u."""

    def one(v: Tensor, sx: Tensor, sy: Tensor, qx: Tensor) -> Tensor:
        omega = plain.omega.clone().requires_grad_()
        f = plain(omega, sx, sy, qx)
        u = torch.zeros_like(f, requires_grad=True)
        (pulled,) = torch.autograd.grad(f, omega, u, create_graph=True)
        (df,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
        return torch.autograd.grad(f, omega, output_hessian(f.detach(), df))[0]

    def product(V: Tensor) -> Tensor:
        tasks = list(zip(plain.sx, plain.sy, plain.qx, strict=True))
        return torch.stack([sum(one(v, *t) for t in tasks) / len(tasks) for v in V])

    return product


class _Tasks(nn.Module):
    """A batch of whole tasks → their query logits, [T, C, n]: one datum is one task."""

    def __init__(self, plain: Plain):
        super().__init__()
        self.names = list(plain.flat.shapes)
        values = plain.flat.unflatten(plain.omega.clone())
        self.weights = nn.ParameterList([nn.Parameter(values[name]) for name in self.names])
        self.plain = [plain]  # in a list: its module's parameters are not this one's

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        theta = dict(zip(self.names, self.weights, strict=True))
        logits = vmap(lambda *t: self.plain[0].logits(theta, *t))(x["sx"], x["sy"], x["qx"])
        return logits.mT


def curvlinops(plain: Plain, K: int) -> Product:
    """`GGNLinearOperator` of curvlinops, whose data are tasks, in batches that suit K vectors.

    Raises ImportError where it is not installed.
    """
    from curvlinops import GGNLinearOperator

    model = _Tasks(plain)
    data = [
        ({"sx": part.sx, "sy": part.sy, "qx": part.qx}, part.qy)
        for part in plain.chunks(at_once(K, plain.omega.device))
    ]
    operator = GGNLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), data,
        check_deterministic=False, batch_size_fn=lambda x: len(x["sx"]),
    )  # fmt: skip
    return lambda V: (operator @ V.T).T.detach()


def vmapped_gradients(plain: Plain, chunk: int) -> Callable[[], Tensor]:
    """vmap(grad) over tasks, `chunk` at a time."""

    def loss(w: Tensor, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> Tensor:
        return F.cross_entropy(plain(w, sx, sy, qx), qy)

    run = vmap(grad(loss), (None, 0, 0, 0, 0))

    return lambda: torch.cat([run(plain.omega, p.sx, p.sy, p.qx, p.qy).detach() for p in plain.chunks(chunk)])
