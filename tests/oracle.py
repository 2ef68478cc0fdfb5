"""The truth that influence is tested against, and the table of cases it is tested on.

The first half shares nothing with the package but the weights of the user's module and the tensors of the tasks:
forward passes, inner loops and prototypes written out by hand, plain reverse-mode autograd, dense Jacobians and
Hessians row by row in float64, numpy for eigenvalues. The second half describes each case once, as plain data, and
builds from it both the package's learner and the oracle's `Recipe`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tlxml_fast as tlx  # the second half only

# ---- models by hand ---------------------------------------------------------------------------------

KINKS: list[float] = []
"""How near each forward pass came to a ReLU or pooling choice that float32 might make differently."""


def relu(x: Tensor) -> Tensor:
    KINKS.append(float(x.detach().abs().min()))
    return torch.where(x > 0, x, torch.zeros_like(x))


def max_pool(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    windows = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
    first, second = windows.detach().movedim(4, 3).flatten(-2).topk(2).values.unbind(-1)
    KINKS.append(
        float((first - second)[first > 0].min())
    )  # after a ReLU, a tie at zero has no derivative anyway
    return windows.amax((3, 5))


def mlp(w: list[Tensor], x: Tensor, statistics: None = None) -> Tensor:
    x = x.flatten(1)
    for i in range(0, len(w), 2):
        x = (relu(x) if i else x) @ w[i].T + w[i + 1]
    return x


def conv4(w: list[Tensor], x: Tensor, statistics: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
    for block in range(4):
        weight, bias, gamma, beta = w[4 * block : 4 * block + 4]
        n, _, h, side = x.shape
        patches = F.unfold(x, 3, padding=1)
        x = (weight.flatten(1) @ patches).reshape(n, -1, h, side) + bias[:, None, None]
        mean = x.mean((0, 2, 3)) if statistics is None else statistics[block][0]
        centred = x - mean[:, None, None]
        variance = (centred**2).mean((0, 2, 3)) if statistics is None else statistics[block][1]
        x = centred / (variance + 1e-5).sqrt()[:, None, None] * gamma[:, None, None] + beta[:, None, None]
        x = max_pool(relu(x))
    x = x.flatten(1)
    return x @ w[16].T + w[17] if len(w) > 16 else x


# ---- learners by hand -------------------------------------------------------------------------------


def losses(f: Tensor, y: Tensor) -> Tensor:
    """ℓ_m of every query: cross-entropy for labels, mean squared error for targets."""
    if y.is_floating_point():
        return ((f - y) ** 2).mean(1)
    return f.logsumexp(1) - f[torch.arange(len(y)), y]


@dataclass
class Recipe:
    """A learner as plain data: MAML where `distance` is None, else ProtoNet."""

    forward: Callable[..., Tensor]
    weights: list[Tensor]
    statistics: list[tuple[Tensor, Tensor]] | None = None
    steps: int = 1
    rates: list[Tensor | None] = field(default_factory=list)  # None where frozen
    learned: bool = False
    distance: str | None = None
    joint: bool = True
    scale: float = 1.0

    @property
    def omega(self) -> Tensor:
        """ω: the weights, then the rates where they are learned."""
        rates = [r for r in self.rates if r is not None] if self.learned else []
        return torch.cat([v.reshape(-1) for v in [*self.weights, *rates]])

    def split(self, flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
        return [
            part.reshape(s) for part, s in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)
        ]

    def theta(self, omega: Tensor, task: Task) -> list[Tensor]:
        shapes = [w.shape for w in self.weights]
        size = sum(s.numel() for s in shapes)
        theta = self.split(omega[:size], shapes)
        if self.distance is not None:
            z = self.embed(theta, task)[0]
            return [*theta, torch.stack([z[task.support_y == c].mean(0) for c in range(task.ways)])]
        adapted = [i for i, rate in enumerate(self.rates) if rate is not None]
        rates = [self.rates[i] for i in adapted]
        if self.learned:
            rates = self.split(omega[size:], [r.shape for r in rates])
        for _ in range(self.steps):
            f = self.forward(theta, task.support_x, self.statistics)
            slope = torch.autograd.grad(
                losses(f, task.support_y).mean(), [theta[i] for i in adapted], create_graph=True
            )
            theta = list(theta)
            for i, rate, g in zip(adapted, rates, slope, strict=True):
                theta[i] = theta[i] - rate * g
        return theta

    def predict(self, theta: list[Tensor], task: Task) -> Tensor:
        if self.distance is None:
            return self.forward(theta, task.query_x, self.statistics)
        z, prototypes = self.embed(theta[:-1], task)[1], theta[-1]
        columns = []
        for c in prototypes:
            if self.distance == "cosine":
                columns.append((z @ c) / ((z**2).sum(1) + 1e-12).sqrt() / ((c**2).sum() + 1e-12).sqrt())
            else:
                squared = ((z - c) ** 2).sum(1)  # the offset under the root is part of the public definition
                columns.append(-squared if self.distance == "sqeuclidean" else -(squared + 1e-12).sqrt())
        return self.scale * torch.stack(columns, 1)

    def embed(self, theta: list[Tensor], task: Task) -> tuple[Tensor, Tensor]:
        if not self.joint:
            return tuple(self.forward(theta, x, self.statistics) for x in (task.support_x, task.query_x))
        z = self.forward(theta, torch.cat([task.support_x, task.query_x]), self.statistics)
        return z[: len(task.support_x)], z[len(task.support_x) :]


def rows(outputs: Tensor, inputs: Tensor, together: bool = True) -> Tensor:
    """The dense Jacobian by one reverse pass a row, the rows of one batch or (`together=False`) one after another."""
    outputs = outputs.reshape(-1)
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    if together:
        eye = torch.eye(len(outputs), dtype=outputs.dtype)
        return torch.autograd.grad(outputs, inputs, eye, is_grads_batched=True, **options)[0]
    return torch.stack([torch.autograd.grad(o, inputs, **options)[0] for o in outputs])


class Truth:
    """Everything influence needs of one task, dense and in float64."""

    def __init__(self, recipe: Recipe, task: Task):
        self.recipe, self.task, self.y = recipe, as_double(task), as_double(task).query_y
        self.omega = recipe.omega.clone().requires_grad_()
        self.theta = recipe.theta(self.omega, self.task)
        self.f = recipe.predict(self.theta, self.task)

    @cached_property
    def J(self) -> Tensor:
        """∂f/∂ω, [nC, q]."""
        return rows(self.f, self.omega)

    @cached_property
    def output_hessian(self) -> Tensor:
        """Λ, [nC, nC]."""
        n, C = self.f.shape
        if self.y.is_floating_point():
            return 2 / (n * C) * torch.eye(n * C, dtype=torch.float64)
        p = self.f.detach().softmax(1)
        return torch.block_diag(*[torch.diag(r) - r[:, None] * r[None] for r in p]) / n

    @cached_property
    def query_gradients(self) -> Tensor:
        return self.gradients_of(losses(self.f, self.y))

    @property
    def gradient(self) -> Tensor:
        return self.query_gradients.mean(0)

    @property
    def gauss_newton(self) -> Tensor:
        return self.J.T @ self.output_hessian @ self.J

    @cached_property
    def hessian(self) -> Tensor:
        slope = torch.autograd.grad(losses(self.f, self.y).mean(), self.omega, create_graph=True)[0]
        return rows(slope, self.omega)

    @cached_property
    def theta_jacobian(self) -> Tensor:
        """∂θ/∂ω, [p, q]."""
        return torch.cat([rows(part, self.omega) for part in self.theta])

    @cached_property
    def theta_gradient(self) -> Tensor:
        """∇_θ L, [p]."""
        theta = [part.detach().requires_grad_() for part in self.theta]
        slopes = torch.autograd.grad(losses(self.recipe.predict(theta, self.task), self.y).mean(), theta)
        return torch.cat([s.reshape(-1) for s in slopes])

    def gradients_of(self, values: Tensor) -> Tensor:
        """Gradients of per-query values, [n, q]."""
        return rows(values, self.omega)

    def target(self, name: str) -> Tensor:
        """Gradients of the loss of the predicted class, of its probability, or of its margin, [n, q]."""
        order = self.f.detach().argsort(1, descending=True)
        if name == "predicted":
            return self.gradients_of(losses(self.f, order[:, 0]))
        n = torch.arange(len(self.f))
        if name == "probability":
            e = self.f.exp()
            return self.gradients_of(e[n, order[:, 0]] / e.sum(1))
        return self.gradients_of(self.f[n, order[:, 0]] - self.f[n, order[:, 1]])


def invert(
    A: Tensor,
    damping: float = 0.0,
    relative: float = 0.0,
    rank: int | None = None,
    rtol: float | None = None,
    negative: str = "drop",
) -> tuple[Tensor, float]:
    """A⁺ and the condition number of what was inverted."""
    eigenvalues, Q = np.linalg.eigh(A.numpy())
    size = np.abs(eigenvalues)
    rounding = len(size) * np.finfo(float).eps * size.max()
    kept = np.ones(len(size), dtype=bool)
    if rank is not None:
        kept = size >= np.sort(size)[-rank]
    if rtol is not None:
        kept = size > rtol * size.max()
    if negative == "drop":
        kept &= eigenvalues >= -rounding
    inverted = (size if negative == "abs" else eigenvalues)[kept] + damping + relative * size.max()
    inverse = (Q[:, kept] / inverted) @ Q[:, kept].T
    return torch.tensor(inverse), float(np.abs(inverted).max() / np.abs(inverted).min())


def relative_error(got: Tensor, want: Tensor) -> float:
    """The largest error, relative to the largest entry; NaN if anything is."""
    assert got.shape == want.shape
    return float((got.double() - want).abs().max() / want.abs().max())


def near(got: Tensor, want: Tensor, tolerance: float = 1e-9) -> None:
    error = relative_error(got, want.detach())
    assert error <= tolerance, f"relative error {error:.1e} above {tolerance:.1e}"  # a NaN fails too


# ---- the cases --------------------------------------------------------------------------------------

Task = tlx.Task

# ways, shots of each class, queries
RAGGED = ((3, (2, 1, 2), 4), (3, (1, 1, 1), 3), (2, (2, 3), 5))
LEARNT = {"learn_inner_lr": True}


@dataclass(frozen=True)
class Case:
    """One learner on a few ragged tasks."""

    args: dict
    model: str = "mlp"
    adapted: tuple[int, ...] | None = None  # positions of the adapted parameters, where not all are
    decay: object = 0.0
    outputs: int = 3
    hessian: bool = True  # also in reverse³ by hand, which is slow for many parameters or steps
    tasks: tuple[int, int] | None = None  # to train and to test on, where the usual few are not enough
    seed: int = 0

    @property
    def protonet(self) -> bool:
        return "distance" in self.args

    @property
    def regression(self) -> bool:
        return self.args.get("loss") == "mse"


def maml(steps: int = 1, inner_lr: object = 0.5, **more: object) -> Case:
    """0.5 and the like are exact in float32, so that both precisions compute with the same rate."""
    own = {k: more.pop(k) for k in list(more) if k in Case.__dataclass_fields__}
    return Case({"inner_lr": inner_lr, "inner_steps": steps, **more}, **own)


def proto(distance: str = "sqeuclidean", **more: object) -> Case:
    own = {k: more.pop(k) for k in list(more) if k in Case.__dataclass_fields__}
    return Case({"distance": distance, **more}, **own)


EACH = {  # a rate of each parameter of the MLP: a number, a tensor, one that broadcasts
    "linear1.weight": torch.linspace(0.25, 1, 4)[:, None],
    "linear1.bias": 0.125,
    "classifier.weight": torch.arange(12).reshape(3, 4) / 16,
    "classifier.bias": 0.75,
}
CASES = {
    "maml, 1 step": maml(1),
    "maml, 3 steps": maml(3),
    "maml, 5 steps": maml(5),
    "maml, a rate each": maml(2, EACH),
    "maml, learned rates": maml(2, EACH, **LEARNT),
    "maml, other steps at evaluation": maml(1, inner_steps_eval=4),
    "maml, more outputs than ways": maml(2, outputs=5),
    "maml, regression": maml(2, loss="mse", outputs=2),
    "maml, decay": maml(1, decay=0.03),
    "maml, a decay each": maml(1, decay=(0.1, 0.0, 0.02, 0.5)),
    "anil, head": maml(3, adapt="head", adapted=(2, 3)),
    "anil, prefix": maml(2, adapt=["linear1", "classifier.bias"], adapted=(0, 1, 3)),
    "anil, learned rates": maml(2, adapt="head", adapted=(2, 3), **LEARNT),
    "maml conv4, 1 step": maml(1, model="conv4"),
    "maml conv4, 3 steps": maml(3, model="conv4", hessian=False),
    "maml conv4, 5 steps": maml(5, 0.125, model="conv4", hessian=False),
    "maml conv4, running": maml(1, model="conv4", norm="running"),
    "proto": proto(),
    "proto, euclidean, scaled": proto("euclidean", scale=2.5),
    "proto, cosine, scaled": proto("cosine", scale=4.0),
    "proto, apart": proto(joint_forward=False, scale=0.5),
    "proto conv4": proto(model="conv4", scale=0.25),
    "proto conv4, apart": proto("euclidean", joint_forward=False, model="conv4"),
    "proto conv4, running": proto("cosine", norm="running", model="conv4", scale=3.0, decay=0.01),
}


def features(case: Case) -> tuple[int, ...]:
    return (1, 16, 16) if case.model == "conv4" else (5,)


def make_task(case: Case, ways: int, shots: tuple[int, ...], queries: int, seed: int) -> Task:
    """Noisy class centres, the examples in no particular order. float32 numbers."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(ways, *features(case), generator=g)
    y = torch.repeat_interleave(torch.arange(ways), torch.tensor(shots))[
        torch.randperm(sum(shots), generator=g)
    ]
    labels = torch.cat([y, torch.randint(ways, (queries,), generator=g)])
    x = centres[labels] + torch.randn(len(labels), *features(case), generator=g)
    if case.regression:
        labels = torch.randn(len(labels), case.outputs, generator=g)
    m = len(y)
    return Task(x[:m], labels[:m], x[m:], labels[m:], name=f"task {seed}", group=f"group {seed % 2}")


def as_double(task: Task) -> Task:
    """The same task with every float in float64."""
    floats = {k: getattr(task, k).double() for k in ("support_x", "query_x")}
    if task.regression:
        floats |= {k: getattr(task, k).double() for k in ("support_y", "query_y")}
    return task.replace(**floats)


def make_module(case: Case) -> nn.Module:
    """float32 weights that are not at their initial 0 and 1, running statistics that saw something."""
    classes = None if case.protonet else case.outputs
    module = (
        tlx.models.conv4(2, image_size=16, ways=classes, seed=case.seed)
        if case.model == "conv4"
        else tlx.models.mlp(5, () if case.model == "linear" else 4, case.outputs, seed=case.seed)
    )
    g = torch.Generator().manual_seed(case.seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.3 * torch.randn(p.shape, generator=g)
        module.train()
        for _ in range(20):
            module(torch.randn(16, *features(case), generator=g))
    return module


class Problem:
    """A case made concrete: package side (`learner`, `train`, `test`, `fit`) and oracle side (`truths`)."""

    def __init__(self, case: Case):
        self.case = case
        train, test = case.tasks or ((3 if case.hessian else 2, 1) if case.model == "conv4" else (4, 2))
        self.train = [make_task(case, *RAGGED[i % 3], seed=i) for i in range(train)]
        self.test = [make_task(case, *RAGGED[-i % 3], seed=100 + i) for i in range(test)]
        self.names = [name for name, _ in make_module(case).named_parameters()]

    # -- the package

    def learner(self, dtype: torch.dtype = torch.float64) -> tlx.Learner:
        kind = tlx.ProtoNet if self.case.protonet else tlx.MAML
        return kind(make_module(self.case).to(dtype), **self.case.args)

    def fit(
        self,
        curvature: str = "gauss_newton",
        inverse: tlx.Dense | None = None,
        backend: str = "reference",
        dtype: torch.dtype = torch.float64,
    ) -> tlx.TaskInfluence:
        decay = self.case.decay
        if isinstance(decay, tuple):
            decay = dict(zip(self.names, decay, strict=True))
        kind = {"gauss_newton": tlx.GaussNewton, "hessian": tlx.Hessian}[curvature]
        inf = tlx.TaskInfluence(self.learner(dtype), kind(), inverse, backend, weight_decay=decay)
        return inf.fit(self.train)

    # -- the oracle

    @cached_property
    def recipe(self) -> Recipe:
        case, module = self.case, make_module(self.case).double()
        weights = [p.detach() for p in module.parameters()]
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        running = [(layer.running_mean, layer.running_var) for layer in norms]
        common = {
            "forward": conv4 if case.model == "conv4" else mlp,
            "weights": weights,
            "statistics": running if case.args.get("norm") == "running" else None,
        }
        if case.protonet:
            args = case.args
            return Recipe(
                **common,
                distance=args["distance"],
                joint=args.get("joint_forward", True),
                scale=args.get("scale", 1.0),
            )
        given = case.args["inner_lr"]
        rates: list[Tensor | None] = [None] * len(weights)
        for i in range(len(weights)) if case.adapted is None else case.adapted:
            rate = given[self.names[i]] if isinstance(given, dict) else given
            rates[i] = torch.as_tensor(rate, dtype=torch.float64).expand_as(weights[i])
        return Recipe(
            **common,
            steps=case.args["inner_steps"],
            rates=rates,
            learned=case.args.get("learn_inner_lr", False),
        )

    @cached_property
    def evaluation(self) -> Recipe:
        return replace(self.recipe, steps=self.case.args.get("inner_steps_eval", self.recipe.steps))

    @cached_property
    def truths(self) -> tuple[list[Truth], list[Truth]]:
        """Of the training tasks and of the test tasks."""
        KINKS.clear()
        made = [Truth(self.recipe, t) for t in self.train], [Truth(self.evaluation, t) for t in self.test]
        self.kink = min(KINKS, default=1.0)
        return made

    def matrix(self, curvature: str) -> Tensor:
        """G or H of the objective."""
        train = self.truths[0]
        return sum(getattr(t, curvature) for t in train) / len(train) + torch.diag(self.decay)

    @cached_property
    def decay(self) -> Tensor:
        each = self.case.decay
        sizes = [w.numel() for w in self.recipe.weights]
        if isinstance(each, tuple):
            return torch.cat(
                [torch.full((n,), d, dtype=torch.float64) for n, d in zip(sizes, each, strict=True)]
            )
        return torch.full_like(self.recipe.omega, each)

    def meta(self, curvature: str, **inverse: object) -> tuple[Tensor, float]:
        """I_meta of every training task, [M, q], and the condition number of what was inverted."""
        H_plus, kappa = invert(self.matrix(curvature), **inverse)
        return -torch.stack([t.gradient for t in self.truths[0]]) @ H_plus, kappa


@cache
def problem(name: str) -> Problem:
    """A case by name; its truth is computed once for all tests."""
    return Problem(CASES[name])
