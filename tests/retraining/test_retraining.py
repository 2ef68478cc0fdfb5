"""Objectives and their minima against closed forms, autograd, and what influence is the first order of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import relative_error
from torch import Tensor

import tlxml_fast as tlx
from tlxml_fast.retraining import (
    Objective,
    ProximalBregman,
    bregman_responses,
    minimise,
    retrain_without,
    train_to_minimum,
    whitening,
)

pytestmark = pytest.mark.usefixtures("one_thread")
DECAY = 0.02


def make_task(seed: int, queries: int = 4, ways: int = 3) -> tlx.Task:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(ways).repeat_interleave(2)
    centres = torch.randn(ways, 4, dtype=torch.float64, generator=g)
    z = torch.randint(ways, (queries,), generator=g)
    x, q = (centres[c] + torch.randn(len(c), 4, dtype=torch.float64, generator=g) for c in (y, z))
    return tlx.Task(x, y, q, z, name=f"task {seed}")


TASKS = [make_task(seed, queries=3 + seed % 2) for seed in range(7)]
TESTS = [make_task(seed) for seed in range(90, 93)]


def maml(module: torch.nn.Module | None = None) -> tlx.MAML:
    return tlx.MAML(module or tlx.models.mlp(4, 5, 3, seed=0, activation="tanh").double(), 0.5)


def protonet() -> tlx.ProtoNet:
    return tlx.ProtoNet(tlx.models.mlp(4, 5, 2, seed=0, activation="tanh").double())


LEARNERS = {"maml": maml, "protonet": protonet}


def by_hand(learner: tlx.Learner, weights: Tensor, omega: Tensor) -> Tensor:
    """The objective in plain autograd: inner step, loss, sum."""
    names, sizes, shapes = zip(
        *((n, p.numel(), p.shape) for n, p in learner.parameters().items()), strict=True
    )
    at = dict(zip(names, (v.view(s) for v, s in zip(omega.split(sizes), shapes, strict=True)), strict=True))

    def net(p: dict[str, Tensor], x: Tensor) -> Tensor:
        hidden = torch.tanh(x @ p["linear1.weight"].T + p["linear1.bias"])
        return hidden @ p["classifier.weight"].T + p["classifier.bias"]

    total = 0.5 * DECAY * omega.square().sum()
    for task, w in zip(TASKS, weights, strict=True):
        if learner.kind == "maml":
            inner = F.cross_entropy(net(at, task.support_x), task.support_y)
            slopes = torch.autograd.grad(inner, list(at.values()), create_graph=True)
            moved = {n: p - 0.5 * g for (n, p), g in zip(at.items(), slopes, strict=True)}
            logits = net(moved, task.query_x)
        else:
            z = net(at, task.support_x)
            prototypes = torch.stack([z[task.support_y == c].mean(0) for c in range(3)])
            logits = -(net(at, task.query_x)[:, None] - prototypes).square().sum(-1)
        total = total + w * F.cross_entropy(logits, task.query_y)
    return total


def test_what_is_lower_is_kept_though_its_gradient_is_larger():
    """From beside the saddle at 0, where the gradient is smallest, evaluations end before a minimum is reached."""
    start = torch.full((9,), 0.01, dtype=torch.float64)
    stopped = minimise(Quartic(), start, max_evaluations=4, strict=False)
    assert stopped.value < Quartic().value_and_gradient(start)[0]
    assert not torch.equal(stopped.omega, start)


@pytest.mark.parametrize("kind", LEARNERS)
def test_objective_against_autograd(kind):
    learner = LEARNERS[kind]()
    weights = torch.linspace(-0.2, 0.5, len(TASKS), dtype=torch.float64)
    objective = Objective(learner, TASKS, DECAY, weights)
    omega = objective.start + 0.1
    leaf = omega.clone().requires_grad_()
    want = by_hand(learner, weights, leaf)
    (slope,) = torch.autograd.grad(want, leaf, create_graph=True)
    v = torch.linspace(-1, 1, objective.q, dtype=torch.float64)
    (curved,) = torch.autograd.grad(slope @ v, leaf)
    value, gradient = objective.value_and_gradient(omega)
    assert value == pytest.approx(float(want.detach()), rel=1e-12)
    torch.testing.assert_close(gradient, slope.detach(), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(objective.hvp(omega, v[None])[0], curved, rtol=1e-9, atol=1e-12)


def test_losses_and_accuracies_are_those_of_evaluate():
    learner = maml()
    objective = Objective(learner, TASKS)
    for i, task in enumerate(TASKS):
        alone = tlx.evaluate(learner, tlx.TaskSet([task]))
        assert float(objective.losses(objective.start)[i]) == pytest.approx(alone.loss, rel=1e-12)
        assert float(objective.accuracies(objective.start)[i]) == alone.accuracy


def test_removing_keeps_the_weights_of_the_others():
    objective = Objective(maml(), TASKS, DECAY)
    less = objective.without([1, 4])
    omega = objective.start
    assert less.weights.tolist() == [0 if i in (1, 4) else 1 / 7 for i in range(7)]
    lost = float(objective.losses(omega)[[1, 4]].sum()) / 7
    assert less.value_and_gradient(omega)[0] == pytest.approx(
        objective.value_and_gradient(omega)[0] - lost, rel=1e-12
    )
    with pytest.raises(tlx.TaskError, match="not all among the 7"):
        objective.without([7])


def test_bad_arguments():
    with pytest.raises(tlx.TlxError, match="weights are 7 finite numbers"):
        Objective(maml(), TASKS, weights=torch.ones(6))
    with pytest.raises(tlx.TlxError, match="weight_decay is at least 0"):
        Objective(maml(), TASKS, -1.0)
    with pytest.raises(tlx.TaskError, match="no query labels"):
        Objective(maml(), [TASKS[0].replace(query_y=None)])
    with pytest.raises(tlx.LearnerError, match="float64"):
        train_to_minimum(maml(tlx.models.mlp(4, 5, 3)), TASKS, DECAY)


# ---- minima -----------------------------------------------------------------------------------------


class Quartic:
    """Σ (a_i/2)(x_i² − 1)² over badly scaled a: a saddle at 0, minima at ±1."""

    a = torch.logspace(-2, 2, 9, dtype=torch.float64)

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        return float((self.a * (x**2 - 1) ** 2).sum() / 2), 2 * self.a * x * (x**2 - 1)

    def hvp(self, x: Tensor, V: Tensor) -> Tensor:
        return V * 2 * self.a * (3 * x**2 - 1)


@pytest.mark.parametrize("scaled", [False, True])
def test_minimum_of_a_quartic(scaled):
    problem = Quartic()
    start = torch.full((9,), 1.2, dtype=torch.float64)
    scaling = whitening(torch.diag(4 * problem.a)) if scaled else None
    found = minimise(problem, start, 1e-9, scaling=scaling)
    torch.testing.assert_close(found.omega, torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-7)
    assert found.converged
    assert found.gradient_norm <= 1e-9


def test_scaling_saves_evaluations():
    start = torch.full((9,), 1.2, dtype=torch.float64)
    plain = minimise(Quartic(), start)
    scaled = minimise(Quartic(), start, scaling=whitening(torch.diag(4 * Quartic.a)))
    assert scaled.evaluations < plain.evaluations / 2


def test_the_trust_region_goes_on_where_quasi_newton_stalls(monkeypatch):
    monkeypatch.setattr("tlxml_fast.retraining.minima._quasi_newton", lambda *_, **__: None)
    found = minimise(Quartic(), torch.full((9,), 0.1, dtype=torch.float64), 1e-8)
    assert found.converged
    assert found.products > 0
    torch.testing.assert_close(found.omega.abs(), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-6)


def test_what_does_not_converge_is_an_error_or_is_marked():
    start = torch.full((9,), 1.2, dtype=torch.float64)
    with pytest.raises(
        tlx.TlxError, match=r"minimisation ended at a gradient norm of .* after 3 evaluations"
    ):
        minimise(Quartic(), start, max_evaluations=3)
    assert not minimise(Quartic(), start, max_evaluations=3, strict=False).converged
    with pytest.raises(tlx.TlxError, match="not finite where its minimisation starts"):
        minimise(Quartic(), start * float("nan"))


def test_ridge_regression_in_closed_form():
    """Without inner steps MAML of a linear model with squared error is ridge regression on all query sets."""
    g = torch.Generator().manual_seed(3)
    tasks = []
    for _ in range(4):
        x, y = torch.randn(5, 3, generator=g).double(), torch.randn(5, generator=g).double()
        tasks.append(tlx.Task(x[:1], y[:1], x[1:], y[1:]))
    learner = tlx.MAML(torch.nn.Linear(3, 1).double(), inner_steps=0, loss="mse")
    objective, found = train_to_minimum(learner, tasks, DECAY, 1e-10)
    X = np.concatenate([np.c_[t.query_x, np.ones(4)] for t in tasks])
    y = np.concatenate([t.query_y for t in tasks])
    want = np.linalg.solve(X.T @ X / 8 + DECAY * np.eye(4), X.T @ y / 8)
    np.testing.assert_allclose(found.omega, want, atol=1e-9)
    np.testing.assert_allclose(learner.module.weight.detach()[0], want[:3], atol=1e-9)
    assert learner.weight_decay == DECAY
    (without,) = retrain_without(objective, [[2]], found.omega, 1e-10)
    keep = [r for r in range(16) if r // 4 != 2]
    want = np.linalg.solve(X[keep].T @ X[keep] / 8 + DECAY * np.eye(4), X[keep].T @ y[keep] / 8)
    np.testing.assert_allclose(without.omega, want, atol=1e-9)


# ---- what influence is the first order of ---------------------------------------------------------------


@pytest.fixture(scope="module", params=LEARNERS)
def trained(request):
    learner = LEARNERS[request.param]()
    objective, found = train_to_minimum(learner, TASKS, DECAY, 1e-11, strict=False)
    return learner, objective, found.omega


def small(objective: Objective, j: int, share: float) -> Objective:
    """Only a share of task j's weight is there to be removed: the other part is a task of its own, the last."""
    weights = torch.cat([objective.weights, objective.weights[j : j + 1] * (1 - share)])
    weights[j] *= share
    tasks = [*objective.buckets.tasks, objective.buckets.tasks[j]]
    learner = objective.buckets.linearizations[0].learner
    return Objective(learner, tasks, objective.weight_decay, weights)


def change(learner: tlx.Learner, curvature: tlx.GaussNewton, inverse: tlx.Dense, j: int) -> Tensor:
    """Of the test tasks' losses when task j is removed, as influence predicts it, [n_test]."""
    return -tlx.TaskInfluence(learner, curvature, inverse).fit(TASKS).scores(TESTS).values[:, j] / len(TASKS)


def assert_first_order(learner: tlx.Learner, retrain: Callable[[float], Tensor], omega: Tensor, want: Tensor):
    """Ten times less removed, about ten times less error. Judged by losses: a ProtoNet's ω may rotate for nothing."""
    tests, errors = Objective(learner, TESTS), []
    for share in (1e-2, 1e-3):
        moved = (tests.losses(retrain(share)) - tests.losses(omega)) / share
        errors.append(relative_error(moved, want))
    assert errors[1] < 1e-2
    assert errors[1] < errors[0] / 5


def test_retraining_is_hessian_influence_to_first_order(trained):
    learner, objective, omega = trained

    def retrain(share: float) -> Tensor:
        return retrain_without(small(objective, 2, share), [[2]], omega, 1e-10, strict=False)[0].omega

    want = change(learner, tlx.Hessian(), tlx.Dense(rtol=1e-8, negative="error"), 2)
    assert_first_order(learner, retrain, omega, want)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_bregman_response_is_damped_gauss_newton_influence_to_first_order(trained, damping):
    learner, objective, omega = trained

    def respond(share: float) -> Tensor:
        removed = small(objective, 2, share)
        return bregman_responses(removed, [[2]], omega, damping, 1e-10, strict=False)[0].omega

    want = change(learner, tlx.GaussNewton(), tlx.Dense(damping=damping + 1e-12), 2)
    assert_first_order(learner, respond, omega, want)


def test_bregman_gradient_and_product(trained):
    _, objective, omega = trained
    problem = ProximalBregman(objective, omega, [1, 3], 0.1)
    g = torch.Generator().manual_seed(0)
    v, at = (torch.randn(objective.q, dtype=torch.float64, generator=g) for _ in range(2))
    at, h = omega + 0.2 * at, 1e-5
    (up, g_up), (down, g_down) = (problem.value_and_gradient(at + s * h * v) for s in (1, -1))
    assert (up - down) / (2 * h) == pytest.approx(float(problem.value_and_gradient(at)[1] @ v), rel=1e-7)
    (_, g_up), (_, g_down) = (problem.value_and_gradient(omega + s * h * v) for s in (1, -1))
    torch.testing.assert_close(
        problem.hvp(omega, v[None])[0], (g_up - g_down) / (2 * h), rtol=1e-6, atol=1e-8
    )


def test_the_divergence_of_cross_entropy_is_kullback_leibler(trained):
    learner, objective, omega = trained
    moved = omega + 0.1 * torch.sin(torch.arange(objective.q, dtype=torch.float64))
    value, _ = ProximalBregman(objective, omega, []).value_and_gradient(moved)
    total = 0.5 * DECAY * float((moved - omega).square().sum())
    at = tlx.linearize(learner, TASKS[:1])
    for task in TASKS:
        lin = at if task is TASKS[0] else tlx.linearize(learner, [task])
        before, after = (lin.at(w).logits[0].log_softmax(-1) for w in (omega, moved))
        total += float((before.exp() * (before - after)).sum(-1).mean()) / len(TASKS)
    assert value == pytest.approx(total, rel=1e-10)


def test_responses_without_removal_stay(trained):
    _, objective, omega = trained
    (found,) = bregman_responses(objective, [[]], omega)
    assert found.evaluations == 1
    assert torch.equal(found.omega, omega)


def test_reference_and_engine_find_the_same_minimum():
    few = TASKS[:2]
    start = Objective(maml(), few).start
    found = [
        minimise(Objective(maml(), few, 0.2, backend=b), start, 1e-8).omega for b in ("reference", "auto")
    ]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)
