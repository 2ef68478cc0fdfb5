"""The engine's answers do not depend on batches of tasks, chunks, the number of vectors, order, threads or shapes."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from nets import NETS, learner, normal, products, some_tasks
from oracle import near

import tlxml_fast as tlx
from tlxml_fast.linearize import CompiledLinearization
from tlxml_fast.ops import native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="no core")
EXACT = 1e-12
KINDS = ["maml, 3 steps", "protonet"]
SOME = ["mlp", "batch norm 1d, tanh", "layer norm, gelu", "group norm, leaky relu, average pool"]
SOME += ["strided, without bias", "winograd, overlapping pool", "one pixel"]


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def linearized(net: str, kind: str, tasks: list[tlx.Task]) -> tlx.Linearization:
    return tlx.linearize(learner(net, kind), tasks, "native", torch.float64, strict=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", NETS)
def test_chunks_of_tasks_vectors_and_images(net, kind, monkeypatch):
    """Two tasks, two vectors and one image at a time give what all at once give."""
    tasks = some_tasks(net, count=3)
    whole = products(linearized(net, kind, tasks))
    monkeypatch.setattr(CompiledLinearization, "block_size", 2)
    monkeypatch.setattr(CompiledLinearization, "vectors_at_once", lambda self: 2)
    monkeypatch.setattr(import_module("tlxml_fast.linearize.layers.convolution"), "CHUNK_BYTES", 1)
    for name, part in products(linearized(net, kind, tasks)).items():
        near(part, whole[name], EXACT)


@pytest.mark.parametrize("kind", [*KINDS, "learned rates"])
@pytest.mark.parametrize("net", SOME)
def test_vectors_together_or_alone(net, kind):
    lin = linearized(net, kind, some_tasks(net))
    V, U = normal(5, lin.q), normal(lin.T, 5, lin.n, lin.C, seed=1)
    near(torch.cat([lin.jvp(v[None]) for v in V], 1), lin.jvp(V), EXACT)
    near(torch.cat([lin.vjp(U[:, k : k + 1]) for k in range(5)], 1), lin.vjp(U), EXACT)
    near(torch.cat([lin.gnvp(v[None]) for v in V]), lin.gnvp(V), EXACT)
    near(torch.cat([lin.hvp(v[None]) for v in V[:2]]), lin.hvp(V)[:2], EXACT)


@pytest.mark.parametrize("kind", [*KINDS, "learned rates"])
@pytest.mark.parametrize("net", SOME)
def test_order_of_tasks(net, kind):
    tasks, order = some_tasks(net, count=4), [2, 0, 3, 1]
    lin, moved = (linearized(net, kind, t) for t in (tasks, [tasks[i] for i in order]))
    V = normal(2, lin.q)
    near(moved.jvp(V), lin.jvp(V)[order], EXACT)
    near(moved.gradients(), lin.gradients()[order], EXACT)
    near(moved.gnvp(V), lin.gnvp(V), EXACT)


@pytest.mark.parametrize("net", SOME)
def test_tasks_beside_others_or_alone(net):
    tasks = some_tasks(net, count=4)
    lin = linearized(net, "maml, 3 steps", tasks)
    alone = [linearized(net, "maml, 3 steps", [task]) for task in tasks]
    V, weights = normal(2, lin.q), torch.tensor([0.5, 2.0, -0.25, 1.0])
    near(torch.cat([one.gradients() for one in alone]), lin.gradients(), EXACT)
    for product in ("gnvp", "hvp"):
        each = [getattr(one, product)(V, w[None]) for one, w in zip(alone, weights, strict=True)]
        near(sum(each), getattr(lin, product)(V, weights), EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", NETS)
def test_threads(net, kind, threads):
    """The same bits where there are blocks of tasks for every thread; else vectors are shared out, to rounding."""
    results = []
    for count in (1, 2):
        threads(count)
        lin = linearized(net, kind, some_tasks(net, count=3))
        results.append(products(lin))
    for name, one in results[0].items():
        if len(lin.blocks) > 1:
            assert torch.equal(one, results[1][name])
        near(results[1][name], one, EXACT)


def ragged(net: str) -> list[tlx.Task]:
    """Three shapes, in no order: other numbers of queries, support examples and ways."""
    usual, fewer, more = (some_tasks(net, count=2, queries=n, seed=n) for n in (4, 3, 7))
    fewer = [t.replace(support_x=t.support_x[:3], support_y=t.support_y[:3]) for t in fewer]
    two = torch.tensor([0, 1, 1, 0, 1])
    more = [t.replace(support_y=two, query_y=two[torch.arange(7) % 5]) for t in more]
    return [usual[0], fewer[0], more[0], fewer[1], more[1], usual[1]]


@pytest.mark.parametrize("kind", ["maml, 1 step", "anil", "protonet"])
@pytest.mark.parametrize("net", SOME)
def test_ragged_tasks(net, kind):
    """Influence over tasks of three shapes: native, reference, and the tasks in another order."""
    tasks = ragged(net)
    made = learner(net, kind)
    scores = [
        tlx.TaskInfluence(made, tlx.Identity(), backend=backend, dtype=torch.float64).fit(train).scores(tasks)
        for backend, train in (("reference", tasks), ("native", tasks), ("native", tasks[::-1]))
    ]
    near(scores[1].values, scores[0].values, 1e-10)
    near(scores[2].values, scores[1].values.flip(1), EXACT)


@pytest.mark.parametrize("kind", ["maml, 3 steps", "protonet"])
@pytest.mark.parametrize("net", ["mlp", "one pixel"])
def test_ragged_tasks_through_the_curvature(net, kind):
    tasks, made = ragged(net), learner(net, kind)
    scores = [
        tlx.TaskInfluence(made, inverse=tlx.Dense(0.25), backend=backend, dtype=torch.float64)
        .fit(tasks)
        .scores(tasks)
        for backend in ("reference", "native")
    ]
    near(scores[1].values, scores[0].values, 1e-10)
