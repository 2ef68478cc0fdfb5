"""The answer does not depend on how tasks are batched, their order, how many vectors at once, threads or backend."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from oracle import near, problem

import tlxml_fast as tlx
from tlxml_fast.linearize import ReferenceLinearization
from tlxml_fast.ops import native_available

NAMES = ["maml, 3 steps", "maml, regression", "proto, cosine, scaled", "proto conv4"]
INVERSE = tlx.Dense(0.0625)
EXACT = 1e-12  # sums in another order, times a condition number of about 100


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@cache
def fitted(name: str) -> tlx.TaskInfluence:
    """The usual training tasks on the reference backend."""
    return problem(name).fit(inverse=INVERSE)


def scores(name: str, train: list[tlx.Task] | None = None, backend: str = "reference") -> torch.Tensor:
    p = problem(name)
    if train is None and backend == "reference":
        return fitted(name).scores(p.test).values
    inf = tlx.TaskInfluence(p.learner(), inverse=INVERSE, backend=backend)
    return inf.fit(p.train if train is None else train).scores(p.test).values


@pytest.mark.parametrize("name", NAMES)
def test_order_of_tasks(name):
    p = problem(name)
    want = scores(name)
    order = torch.randperm(len(p.train), generator=torch.Generator().manual_seed(1))
    near(scores(name, [p.train[i] for i in order]), want[:, order], EXACT)
    near(fitted(name).scores(p.test[::-1], [p.train[i] for i in order]).values, want.flip(0)[:, order], EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_test_tasks_together_or_alone(name):
    p, inf = problem(name), fitted(name)
    alone = torch.cat([inf.scores([task]).values for task in p.test])
    near(alone, inf.scores(p.test).values, EXACT)
    columns = [inf.scores(p.test, [j]).values for j in p.train]
    near(torch.cat(columns, 1), inf.scores(p.test).values, EXACT)
    products = torch.stack([inf.meta(j) for j in range(len(p.train))])
    near(torch.stack([inf.meta(task) for task in p.train]), products, EXACT)


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("product", ["gnvp", "hvp"])
@pytest.mark.parametrize("name", ["maml, 3 steps", "proto"])
def test_chunks_add(name, product, backend):
    p = problem(name)
    tasks = [p.train[0], p.train[3], p.train[0].replace(query_x=p.train[3].query_x)]
    whole = tlx.linearize(p.learner(), tasks, backend)
    g = torch.Generator().manual_seed(0)
    V = torch.randn(3, whole.q, dtype=torch.float64, generator=g)
    weights = torch.tensor([0.5, 2.0, -0.25])
    chunks = [(tasks[:2], weights[:2]), (tasks[2:], weights[2:])]
    parts = [getattr(tlx.linearize(p.learner(), t, backend), product)(V, w) for t, w in chunks]
    near(sum(parts), getattr(whole, product)(V, weights), EXACT)
    near(
        getattr(whole, product)(V),
        getattr(whole, product)(V, torch.full((3,), 1 / 3, dtype=torch.float64)),
        EXACT,
    )


@pytest.mark.parametrize("product", ["gnvp", "hvp", "jvp", "gradients"])
@pytest.mark.parametrize("name", NAMES)
def test_vectors_at_once(name, product):
    """One at a time, looped, and in vmaps of 32 with a remainder."""
    p = problem(name)
    looped, batched = (
        ReferenceLinearization(p.learner(), p.train[:1], execution=e) for e in ("looped", "batched")
    )
    if product == "gradients":
        near(batched.per_query_gradients(), looped.per_query_gradients(), EXACT)
        return
    V = torch.randn(35, looped.q, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = getattr(looped, product)(V)
    near(getattr(batched, product)(V), want, EXACT)
    dim = want.ndim - (2 if product != "jvp" else 3)
    near(torch.cat([getattr(batched, product)(v[None]) for v in V[:4]], dim), want.narrow(dim, 0, 4), EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_threads(name, threads):
    p = problem(name)
    results = []
    for count in (1, 2):
        threads(count)
        lin = tlx.linearize(p.learner(), p.train[:1])
        V = torch.linspace(-1, 1, 3 * lin.q, dtype=torch.float64).reshape(3, lin.q)
        results.append(torch.cat([lin.gradients(), lin.gnvp(V), lin.hvp(V)]))
    near(results[1], results[0], EXACT)


@pytest.mark.skipif(not native_available(), reason="no core")
@pytest.mark.parametrize("name", NAMES)
def test_backends(name):
    near(scores(name, backend="native"), scores(name), EXACT)


def test_every_task_twice():
    """The curvature is a mean: every training task twice changes nothing."""
    p = problem("maml, 1 step")
    near(scores("maml, 1 step", [*p.train, *p.train])[:, : len(p.train)], scores("maml, 1 step"), EXACT)


def test_a_lazy_set_is_the_same_as_a_list():
    p = problem("proto")
    near(scores("proto", tlx.TaskSet.lazy(p.train.__getitem__, len(p.train))), scores("proto"), 0)
