"""Derivatives of the query logits and losses: dense truth, adjoints and symmetry, odd layers and shapes, bad input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import CASES, Truth, losses, near, problem, relative_error, rows
from torch import Tensor, nn

import tlxml_fast as tlx

QUICK = [name for name in CASES if "conv4" not in name]
BOTH = [*QUICK, "maml conv4, 1 step", "proto conv4, apart"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one_shape(name: str) -> tuple[tlx.Linearization, list[Truth]]:
    """The training tasks of the first shape, with their truth."""
    p = problem(name)
    return tlx.linearize(p.learner(), p.train[::3], dtype=torch.float64), p.truths[0][::3]


@pytest.mark.parametrize("name", BOTH)
def test_dense_truth(name):
    lin, truths = one_shape(name)
    V, U = normal(3, lin.q), normal(lin.T, 2, lin.n, lin.C)
    near(lin.logits, torch.stack([t.f for t in truths]))
    near(lin.jvp(V), torch.stack([(V @ t.J.T).unflatten(1, (lin.n, lin.C)) for t in truths]))
    near(lin.vjp(U), torch.stack([u.flatten(1) @ t.J for t, u in zip(truths, U, strict=True)]))
    near(lin.gradients(), torch.stack([t.gradient for t in truths]))
    near(lin.per_query_gradients(), torch.stack([t.query_gradients for t in truths]))
    near(lin.gnvp(V), V @ sum(t.gauss_newton for t in truths) / lin.T)
    near(lin.hvp(V), V @ sum(t.hessian for t in truths) / lin.T)
    for t, truth in enumerate(truths):
        (R,) = lin.gn_rows(slice(t, t + 1))
        near(R.mT @ R, truth.gauss_newton)
    near(lin.losses(), torch.stack([losses(t.f, t.y).mean() for t in truths]))


@pytest.mark.parametrize("name", ["maml, 3 steps", "maml conv4, 1 step", "proto conv4"])
def test_the_oracle_itself_one_row_at_a_time(name):
    truth = problem(name).truths[0][0]
    slope = torch.autograd.grad((truth.f**2).mean(), truth.omega, create_graph=True)[0][::40]
    near(rows(slope, truth.omega), rows(slope, truth.omega, together=False), 1e-12)


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize(
    "name", ["maml, 3 steps", "maml, learned rates", "maml conv4, 1 step", "proto conv4"]
)
def test_at_other_meta_parameters(name, backend):
    """At ω it is what a learner with those parameters gives; at the old ω nothing has changed."""
    p = problem(name)
    learner, moved = p.learner(), p.learner()
    lin = tlx.linearize(learner, p.train[::3], backend, torch.float64)
    before = every_product(lin)
    with torch.no_grad():
        for i, parameter in enumerate(moved.parameters().values()):
            parameter += 0.1 * normal(*parameter.shape, seed=i)
    fresh = tlx.linearize(moved, p.train[::3], backend, torch.float64)
    for got, want in zip(every_product(lin.at(fresh.omega)), every_product(fresh), strict=True):
        near(got, want, 1e-13)
    for got, want in zip(every_product(lin), before, strict=True):
        near(got, want, 1e-13)
    with pytest.raises(tlx.TlxError, match="vectors have shape"):
        lin.at(fresh.omega[1:])


def test_at_where_the_exact_hessian_is_the_references():
    """The engine has no third derivative of layer normalisation: its reference moves with ω."""
    net = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)).double()
    lin = tlx.linearize(tlx.MAML(net, 0.5), problem("maml, 1 step").train[::3], dtype=torch.float64)
    omega, v = lin.omega + 0.1 * normal(lin.q), normal(1, lin.q)
    _ = lin.hvp(v)
    moved = lin.at(omega).hvp(v)
    nn.utils.vector_to_parameters(omega, net.parameters())
    near(moved, tlx.linearize(tlx.MAML(net, 0.5), lin.tasks, dtype=torch.float64).hvp(v), 1e-12)


def every_product(lin: tlx.Linearization) -> list[Tensor]:
    V, U = normal(2, lin.q), normal(lin.T, 2, lin.n, lin.C)
    losses, gradients = lin.losses_and_gradients()
    near(losses, lin.losses(), 1e-13)
    near(gradients, lin.gradients(), 1e-13)
    return [lin.logits, losses, gradients, lin.jvp(V), lin.vjp(U), lin.gnvp(V), lin.hvp(V)]


SIZES = st.integers(1, 3)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    shots=st.lists(SIZES, min_size=2, max_size=4),
    spare=st.integers(0, 2),
    sizes=st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES),
    steps=st.sampled_from([0, 1, 2, None]),
    backend=st.sampled_from(["reference", "auto"]),
)
def test_adjoint_linear_symmetric(shots, spare, sizes, steps, backend):
    """Any shapes; ProtoNet where there are no steps to take."""
    T, K, queries, features, hidden = sizes
    outputs = len(shots) + spare
    y = torch.repeat_interleave(torch.arange(len(shots)), torch.tensor(shots))
    tasks = [
        tlx.Task(
            normal(len(y), features, seed=t),
            y,
            normal(queries, features, seed=9 + t),
            y[torch.arange(queries) % len(y)],
        )
        for t in range(T)
    ]
    module = tlx.models.mlp(features, hidden, outputs, seed=1).double()
    lin = tlx.linearize(
        tlx.ProtoNet(module) if steps is None else tlx.MAML(module, inner_steps=steps), tasks, backend
    )
    V, W, U = normal(K, lin.q), normal(K, lin.q, seed=1), normal(T, K, lin.n, lin.C)

    def same(a: Tensor, b: Tensor) -> None:
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)

    same((lin.jvp(V) * U).sum((2, 3)), (lin.vjp(U) * V).sum(2))
    for product in (lin.gnvp, lin.hvp):
        same((product(V) * W).sum(1), (product(W) * V).sum(1))
        same(product(2 * V - 3 * W), 2 * product(V) - 3 * product(W))
    assert (lin.gnvp(V) * V).sum(1).min() >= -1e-14
    same(lin.jvp(2 * V - W), 2 * lin.jvp(V) - lin.jvp(W))
    same(lin.per_query_gradients().mean(1), lin.gradients())
    G = lin.gnvp(torch.eye(lin.q, dtype=torch.float64))
    if lin.gn_rank:
        R = lin.gn_rows(slice(0, T)).flatten(0, 1)
        same(R.mT @ R / T, G)


@pytest.mark.parametrize("name", ["maml, 1 step", "maml, regression", "proto", "proto, apart"])
def test_gauss_newton_is_positive(name):
    lin, _ = one_shape(name)
    eigenvalues = torch.linalg.eigvalsh(lin.gnvp(torch.eye(lin.q, dtype=torch.float64)))
    assert eigenvalues.min() >= -1e-14 * eigenvalues.max()


# ---- layers whose higher derivatives are easily wrong ------------------------------------------------

LAYERS = {
    "tanh": lambda: nn.Tanh(),
    "sigmoid": lambda: nn.Sigmoid(),
    "softplus": lambda: nn.Softplus(),
    "gelu": lambda: nn.GELU(),
    "silu": lambda: nn.SiLU(),
    "elu": lambda: nn.ELU(),
    "leaky relu": lambda: nn.LeakyReLU(0.1),
    "softmax": lambda: nn.Softmax(1),
    "layer norm": lambda: nn.LayerNorm((4, 6)),
    "layer norm, no affine": lambda: nn.LayerNorm(6, elementwise_affine=False),
    "rms norm": lambda: nn.RMSNorm(6),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "batch norm": lambda: nn.BatchNorm1d(4),
    "batch norm, no affine": lambda: nn.BatchNorm1d(4, affine=False),
    "instance norm": lambda: nn.InstanceNorm1d(4, affine=True),
    "average pool": lambda: nn.AvgPool1d(2),
    "max pool": lambda: nn.MaxPool1d(3, stride=1),
    "dropout": lambda: nn.Dropout(0.5),
}


@pytest.mark.parametrize("kind", ["maml", "proto"])
@pytest.mark.parametrize("layer", LAYERS)
def test_hvp_is_the_derivative_of_the_gradient(layer, kind):
    """Central differences with a step of 2e-6 leave about 1e-10 of the third derivative; a wrong formula, percents."""
    torch.manual_seed(0)
    middle = LAYERS[layer]()
    width = middle(torch.ones(2, 4, 6)).flatten(1).shape[1]
    # the layer twice: one that is right in the first derivative alone must not hide behind a linear head
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), middle, nn.Tanh(), nn.Flatten(), nn.Linear(width, 3)
    ).double()
    y = torch.tensor([0, 1, 2, 1, 0])
    tasks = [tlx.Task(normal(5, 2, 6), y, normal(4, 2, 6, seed=1), y[:4])]
    learner = tlx.MAML(net, 0.5, 2) if kind == "maml" else tlx.ProtoNet(net)
    lin = tlx.linearize(learner, tasks, "reference")
    v, step = normal(1, lin.q), 2e-6
    Jv, Hv = lin.jvp(v)[0], lin.hvp(v)
    ends, logits = [], []
    for sign in (1, -1):
        nn.utils.vector_to_parameters(lin.omega + sign * step * v[0], net.parameters())
        moved = tlx.linearize(learner, tasks, "reference")
        ends.append(moved.gradients())
        logits.append(moved.logits)
    near(Jv, (logits[0] - logits[1]) / (2 * step), 1e-6)
    near(Hv, (ends[0] - ends[1]) / (2 * step), 1e-6)


def test_a_layer_that_is_used_twice():
    """Both places have the same parameters, and both are differentiated to third order."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3)
    net = nn.Sequential(
        nn.Linear(3, 3), norm, nn.Tanh(), nn.Linear(3, 3), norm, nn.Tanh(), nn.Linear(3, 2)
    ).double()
    y = torch.tensor([0, 1, 0, 1])
    lin = tlx.linearize(tlx.MAML(net, 0.5), [tlx.Task(normal(4, 3), y, normal(4, 3, seed=1), y)])
    H = lin.hvp(torch.eye(lin.q, dtype=torch.float64))
    assert relative_error(H, H.mT) <= 1e-12


# ---- bad input ----------------------------------------------------------------------------------------


def test_tasks_of_several_shapes_are_listed():
    p = problem("maml, 1 step")
    with pytest.raises(
        tlx.TaskError, match=r"these have 3: 2-way, 5 support.*; 3-way, 3 support.*; 3-way, 5 support"
    ):
        tlx.linearize(p.learner(), p.train)
    with pytest.raises(tlx.TaskError, match="have 0: none"):
        tlx.linearize(p.learner(), [])


BAD_CALLS = {
    "too short": lambda lin: lin.gnvp(torch.ones(2, lin.q - 1)),
    "no K": lambda lin: lin.hvp(torch.ones(lin.q)),
    "none": lambda lin: lin.jvp(torch.ones(0, lin.q)),
    "scalar": lambda lin: lin.jvp(torch.tensor(1.0)),
    "tangent as cotangent": lambda lin: lin.vjp(torch.ones(2, lin.q)),
    "tasks": lambda lin: lin.vjp(torch.ones(lin.T + 1, 1, lin.n, lin.C)),
    "logits": lambda lin: lin.vjp(torch.ones(lin.T, 1, lin.n, lin.C + 1)),
    "weights": lambda lin: lin.gnvp(torch.ones(1, lin.q), weights=torch.ones(lin.T + 1)),
    "weight": lambda lin: lin.hvp(torch.ones(1, lin.q), weights=1.0),
}


@pytest.mark.parametrize("call", BAD_CALLS)
def test_shapes_are_checked(call):
    lin, _ = one_shape("maml, 1 step")
    with pytest.raises(tlx.TlxError, match=r"(vectors|cotangents|weights) have shape"):
        BAD_CALLS[call](lin)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_precisions_refused(dtype):
    p = problem("maml, 1 step")
    with pytest.raises(tlx.TlxError, match=r"dtype is torch\.float32 or torch\.float64, not"):
        tlx.linearize(p.learner(), p.train[:1], dtype=dtype)


def test_backends_refused():
    p = problem("maml, 1 step")
    with pytest.raises(tlx.BackendError, match="backend is one of auto, native, triton, reference"):
        tlx.linearize(p.learner(), p.train[:1], "cuda")
    lin = tlx.linearize(p.learner(), p.train[:1], "reference")
    assert (lin.report.backend, lin.report.reason) == ("reference", "asked for")


def test_a_model_that_does_not_fit_the_tasks():
    p = problem("maml, 1 step")
    for net, message in (
        (tlx.models.mlp(5, 4, 2), "3 ways and the model has 2 outputs"),
        (tlx.models.mlp(6, 4, 3), "does not run through the model"),
    ):
        with pytest.raises(tlx.LearnerError, match=f"task 'task 0'.*{message}"):
            tlx.linearize(tlx.MAML(net), p.train[:1])
    with pytest.raises(tlx.TaskError, match="task 'task 0' has class labels, and the learner's loss is mse"):
        tlx.linearize(tlx.MAML(tlx.models.mlp(5, 4, 3), loss="mse"), p.train[:1])


def test_what_is_given_is_named():
    learner = tlx.MAML(tlx.models.mlp(4, 3, 3, seed=0).double(), 0.1)
    task = tlx.Task(torch.randn(3, 4).double(), torch.arange(3), torch.randn(3, 4).double(), torch.arange(3))
    with pytest.raises(tlx.LearnerError, match="a learner is linearized, not a Sequential; tlx"):
        tlx.linearize(learner.module, [task])
    with pytest.raises(tlx.TaskError, match="is one task, not a set of them; give"):
        tlx.linearize(learner, task)
    lin = tlx.linearize(learner, [task])
    with pytest.raises(tlx.TlxError, match="vectors are a torch tensor, not a ndarray"):
        lin.gnvp(torch.zeros(1, lin.q).numpy())
