"""The engine's passes through Triton's kernels, interpreted here or on a device, against the float64 reference."""

from __future__ import annotations

import gc
import sys
import warnings
import weakref
from contextlib import nullcontext
from copy import deepcopy
from importlib import import_module

import pytest
import torch
from torch import nn

import tlxml_fast as tlx
from tlxml_fast import memory
from tlxml_fast.learners import Episode
from tlxml_fast.linearize.batch import Batch
from tlxml_fast.linearize.chunk import Chunk
from tlxml_fast.linearize.feed import Feed
from tlxml_fast.models import mlp
from tlxml_fast.ops._triton import INTERPRETED

pytestmark = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()), reason="needs a CUDA device, or TRITON_INTERPRET=1"
)
DEVICE = "cpu" if INTERPRETED else "cuda"


def tasks(count: int = 2, ways: int = 2, shots: int = 2) -> list[tlx.Task]:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(ways).repeat(shots)

    def image(n: int) -> torch.Tensor:
        return torch.randn(n, 1, 6, 5, dtype=torch.float64, generator=g)

    return [tlx.Task(image(len(y)), y, image(3), torch.tensor([0, 1, 1])) for _ in range(count)]


def learner(kind: str) -> tlx.MAML | tlx.ProtoNet:
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    if kind == "ProtoNet":
        return tlx.ProtoNet(nn.Sequential(*body).double().to(DEVICE), distance="euclidean")
    module = nn.Sequential(*body, nn.Linear(24, 2)).double().to(DEVICE)
    return tlx.MAML(module, inner_lr=0.1, inner_steps=1)


@pytest.fixture(scope="module", params=["ProtoNet", "MAML"])
def pair(request):
    """The learner's linearizations: ours, and the reference's on the CPU."""
    ours = tlx.linearize(learner(request.param), tasks(), backend="triton", strict=True)
    reference = learner(request.param)
    reference.module.cpu()
    return ours, tlx.linearize(reference, tasks(), backend="reference")


def vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def near(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got.cpu(), want.cpu(), rtol=1e-9, atol=1e-10 * float(want.abs().max()))


@pytest.mark.parametrize("product", ["jvp", "gnvp", "hvp"])
def test_products_of_vectors(pair, product):
    ours, reference = pair
    V = vectors(2, ours.q)
    near(getattr(ours, product)(V), getattr(reference, product)(V))


def test_gradients_and_pull_backs(pair):
    ours, reference = pair
    near(ours.gradients(), reference.gradients())
    U = vectors(ours.T, 2, ours.n, ours.C)
    near(ours.vjp(U), reference.vjp(U))


def test_what_ran_is_reported(pair):
    pair[0].prepare()
    report = pair[0].report
    assert report.backend == "triton"
    assert report.decisions["precision"] == "fp32"
    assert "tasks ×" in report.decisions["chunk"]


@pytest.mark.parametrize(
    ("widths", "kernels"), [((30, 4, 2), "whole tasks: a small MLP"), ((30, 65, 2), "up to 64 units")]
)
def test_multilayer_perceptrons(widths, kernels):
    """Whole tasks in a kernel, or layer by layer what that does not run: nothing by the reference."""
    net = mlp(*widths, seed=0).double()
    reference = tlx.linearize(tlx.MAML(net, 0.1, 2), tasks(3), backend="reference")
    lin = tlx.linearize(tlx.MAML(deepcopy(net).to(DEVICE), 0.1, 2), tasks(3), backend="triton", strict=True)
    assert kernels in lin.report.decisions["kernels"]
    V = vectors(2, lin.q)
    with warnings.catch_warnings():
        warnings.simplefilter("error", tlx.FallbackWarning)
        for product in ("jvp", "gnvp", "hvp"):
            near(getattr(lin, product)(V), getattr(reference, product)(V))
        near(lin.gradients(), reference.gradients())
    assert "exact Hessian products" not in lin.report.decisions


def test_memory_that_runs_out_halves_the_chunk(monkeypatch):
    lin = tlx.linearize(learner("ProtoNet"), tasks(5), backend="triton")
    V = vectors(3, lin.q)
    want, gradients = lin.gnvp(V), lin.gradients()
    lin = tlx.linearize(learner("ProtoNet"), tasks(5), backend="triton")
    for name in ("gnvp", "gradients", "logits"):
        plain = getattr(lin.passes, name)

        def short(omega, batch, *rest, plain=plain):
            if len(batch) > 2:
                raise torch.OutOfMemoryError("a fake allocator's")
            return plain(omega, batch, *rest)

        monkeypatch.setattr(lin.passes, name, short)
    with pytest.warns(tlx.FallbackWarning, match="memory at 5 tasks × 32 vectors: going on with 3 tasks"):
        near(lin.gnvp(V), want)
    assert lin.report.decisions["chunk"].startswith("2 tasks × 32 vectors: out of memory at 3 tasks")
    near(lin.gradients(), gradients)


def test_gradients_in_halves(monkeypatch):
    lin = tlx.linearize(learner("ProtoNet"), tasks(3), backend="triton")
    want = lin.gradients()
    plain = lin.passes.gradients

    def short(omega, batch, targets):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("a fake allocator's")
        return plain(omega, batch, targets)

    monkeypatch.setattr(lin.passes, "gradients", short)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tlx.FallbackWarning)
        near(lin.gradients(), want)


def test_many_blocks_and_matrices_when_memory_runs_out(monkeypatch):
    """Later blocks are cut without running out again, and matrices of parts are added."""
    given = tasks(9)
    plain = tlx.linearize(learner("ProtoNet"), given, backend="triton")
    lin = tlx.linearize(learner("ProtoNet"), given, backend="triton")
    lin.chunk.tasks = 4

    def short(product):
        def limited(omega, batch, *rest):
            if len(batch) > 2:
                raise torch.OutOfMemoryError("a fake allocator's")
            return product(omega, batch, *rest)

        return limited

    for name in ("gradients", "logits"):
        monkeypatch.setattr(lin.passes, name, short(getattr(lin.passes, name)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tlx.FallbackWarning)
        near(lin.gradients(), plain.gradients())
        assert lin.chunk.tasks == 2

        def total(block: slice) -> torch.Tensor:
            return lin.passes.gradients(lin.omega, lin._batch(block), lin.targets[block])[1].sum(0)

        lin.chunk.tasks = 9
        with lin.task_threads(join=sum) as each:
            near(next(iter(each(total, [slice(0, 9)]))), plain.gradients().sum(0))


def test_a_chunk_fits_the_memory(monkeypatch):
    monkeypatch.setattr(sys.modules[Chunk.__module__], "free_memory", lambda device: 10_000_000)
    chunk = Chunk.of(torch.device(DEVICE), bytes_a_vector=50_000, shared_bytes=200_000)
    assert (chunk.tasks, chunk.vectors) == (3, 32)
    with memory.as_on_device(20_000_000):
        assert Chunk.of(torch.device(DEVICE), bytes_a_vector=50_000, shared_bytes=200_000).tasks == 6
    small = Chunk.of(torch.device(DEVICE), bytes_a_vector=5_000_000, shared_bytes=200_000)
    assert (small.tasks, small.vectors) == (1, 1)
    with pytest.raises(tlx.TlxError, match="does not hold one task and one vector"):
        small.halve()


def test_precision_is_checked():
    with pytest.raises(tlx.TlxError, match="precision is one of fp32, tf32, tf32x3, bf16, not 'half'"):
        tlx.linearize(learner("ProtoNet"), tasks(), backend="triton", precision="half")


@pytest.mark.skipif(not INTERPRETED, reason="a device has them")
@pytest.mark.parametrize("option", ["graphs", "prefetch"])
def test_options_that_are_a_devices(option):
    with pytest.raises(
        tlx.BackendError, match=f"{option}=True is for CUDA devices; the parameters are on cpu"
    ):
        tlx.linearize(learner("ProtoNet"), tasks(), **{option: True})


@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["ProtoNet", "MAML", "MLP", "moved MAML"])
def test_graphs_give_the_same(kind):
    def made() -> tlx.MAML | tlx.ProtoNet:
        if kind == "MLP":
            return tlx.MAML(mlp(30, 4, 2, seed=0).double().to(DEVICE), 0.1, 2)
        if kind == "moved MAML":  # its rates stay where they were made
            moved = tlx.MAML(mlp(30, 65, 2, seed=0).double(), 0.1, 2)
            moved.module.to(DEVICE)
            return moved
        return learner(kind)

    plain = tlx.linearize(made(), tasks(4), backend="triton")
    recorded = tlx.linearize(made(), tasks(4), backend="triton", graphs=True)
    elsewhere = plain.omega + 0.01
    for K, scale in ((2, 1.0), (2, -3.0), (3, 1.0), (2, 0.5)):
        V = scale * vectors(K, plain.q).cuda()
        for product in ("gnvp", "hvp"):
            near(getattr(recorded, product)(V), getattr(plain, product)(V))
            moved = recorded.at(elsewhere)
            near(getattr(moved, product)(V), getattr(plain.at(elsewhere), product)(V))
            near(getattr(recorded, product)(V), getattr(plain, product)(V))


@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["ProtoNet", "MAML"])
def test_prefetched_tasks_give_the_same(kind):
    """In blocks that end unevenly, sweep after sweep, through one block alone, and where memory runs out."""
    plain = tlx.linearize(learner(kind), tasks(5), backend="triton")
    fed = tlx.linearize(learner(kind), tasks(5), backend="triton", prefetch=True)
    assert fed.episodes[0].query_x.device.type == "cpu"
    plain.chunk.tasks = fed.chunk.tasks = 2
    for K in (2, 3):
        V, U = (
            vectors(K, plain.q).cuda(),
            vectors(5 * K, plain.n * plain.C).cuda().view(5, K, plain.n, plain.C),
        )
        for _ in range(2):
            assert torch.equal(fed.gnvp(V), plain.gnvp(V))
            assert torch.equal(fed.vjp(U), plain.vjp(U))
        near(fed.hvp(V), plain.hvp(V))
    assert torch.equal(fed.gradients(), plain.gradients())
    block = slice(3, 4)
    assert torch.equal(fed.jvp_block(block, V), plain.jvp_block(block, V))
    with pytest.warns(tlx.FallbackWarning, match="going on with 1 task"):
        fed._halve()
    near(fed.gnvp(V), plain.gnvp(V))


@pytest.mark.skipif(not INTERPRETED, reason="stands in for a device's streams and graphs")
def test_graphs_hold_what_they_read(monkeypatch):
    """Other blocks come and go between recording and replay, and memory may run out."""

    class Recorded:
        def __init__(self, function, *inputs):
            function(*inputs)

        def __call__(self, *inputs):
            return inputs[0]

    monkeypatch.setattr(import_module("tlxml_fast.linearize.device"), "Replay", Recorded)
    lin = tlx.linearize(learner("ProtoNet"), tasks(3), backend="triton")
    lin.graphs = True
    V = vectors(1, lin.q)
    lin.gnvp(V)
    read = weakref.ref(lin._latest[1])
    lin.jvp_block(slice(1, 2), V)
    lin.release()
    gc.collect()
    assert read() is not None
    with pytest.warns(tlx.FallbackWarning, match="going on with"):
        lin._halve()
    gc.collect()
    assert read() is None


@pytest.mark.skipif(not INTERPRETED, reason="stands in for a device's streams and graphs")
def test_the_block_that_follows_is_under_way(monkeypatch):
    """Also after the last, which may be smaller; one block alone is not copied twice."""

    class Stream:
        def __init__(self, *device):
            pass

        def record_event(self):
            return None

        def wait_event(self, event):
            pass

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, stream: None)
    started = []

    class Noted(Feed):
        def _start(self, block):
            started.append((block.start, block.stop))
            super()._start(block)

    episodes = [Episode.of(task, torch.float64, torch.device("cpu")) for task in tasks(5)]
    feed = Noted(episodes, torch.device("cpu"))
    for block in 2 * [slice(0, 2), slice(2, 4), slice(4, 5)]:
        batch, want = feed(block), Batch(episodes[block])
        for name in ("support_x", "support_y", "query_x"):
            assert torch.equal(getattr(batch, name), getattr(want, name))
    assert started == 2 * [(0, 2), (2, 4), (4, 5)] + [(0, 2)]
    alone = Noted(episodes, torch.device("cpu"))
    alone(slice(0, 5))
    assert started[7:] == [(0, 5)]


@pytest.mark.skipif(not INTERPRETED, reason="launches are counted in the interpreter")
@pytest.mark.parametrize("kind", ["ProtoNet", "MAML"])
def test_launches_do_not_grow_with_tasks(kind):
    from launches import launches

    counts = []
    for count in (2, 4):
        lin = tlx.linearize(learner(kind), tasks(count), backend="triton")
        V = vectors(2, lin.q)
        lin.gnvp(V)  # what belongs to the tasks is made once
        counts.append(sum(sum(found.values()) for found in launches(lambda lin=lin, V=V: lin.gnvp(V))))
    assert counts[0] == counts[1]


@pytest.mark.skipif(not INTERPRETED, reason="launches are counted in the interpreter")
def test_launches_of_a_prototypical_network():
    """Seven a block (six in the first, which pulls no images back), the head's, and what torch does between.

    Of B convolutions 9B + 4 at most: 40 for Conv4. Torch packs vectors and unpacks results, adds up each
    block's weights and affine parameters over tasks, and joins them with the zeros of absorbed biases.
    """
    from launches import launches

    lin = tlx.linearize(learner("ProtoNet"), tasks(2), backend="triton")
    V = vectors(2, lin.q)
    lin.gnvp(V)  # what is of the primal alone is made once
    kernels, between = launches(lambda: lin.gnvp(V))
    assert sum(kernels.values()) == 6 + 1, dict(kernels)
    assert sum(between.values()) <= 2 * 1 + 4 + 2, dict(between)  # two more flatten a spatial output


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999), ("tf32x3", 0.999), ("tf32", 0.9)])
def test_scores_keep_their_ranks(precision, least):
    """Spearman's correlation with float64 scores, per test task: 0.999 is asked of the first two.

    With bf16 the assembled matrix is refused: it is not symmetric to a thousandth.
    """
    from scipy.stats import spearmanr

    def scores(dtype: torch.dtype, precision: str) -> torch.Tensor:
        made = tlx.TaskInfluence(
            learner("ProtoNet"),
            inverse=tlx.Dense(damping=1e-2),
            backend="triton",
            dtype=dtype,
            precision=precision,
        )
        return made.fit(tasks(12)[:8]).scores(tasks(12)[8:]).values

    want, got = scores(torch.float64, "fp32"), scores(torch.float32, precision)
    found = [spearmanr(g, w).statistic for g, w in zip(got, want, strict=True)]
    print(f"{precision}: Spearman {min(found):.4f} to {max(found):.4f}")
    assert min(found) >= least
