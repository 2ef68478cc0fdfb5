from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from backend import needs_native
from cases import DTYPES, TOPK, generator, strided

from tlxml_fast.errors import BackendError, TlxError
from tlxml_fast.ops import _native
from tlxml_fast.ops.topk import TopK, topk, topk_ref

BACKENDS = [
    "reference",
    pytest.param("native", marks=needs_native),
]  # Triton's interpreter has no kernel of topk
inf, nan = torch.inf, torch.nan


def scores_of(R, m, dtype, levels=None):
    """Random scores; of so many levels, so that there are ties."""
    g = generator()
    if levels is not None:
        return torch.randint(levels, (R, m), generator=g).to(dtype) - levels // 2
    return torch.randn(R, m, dtype=torch.float64, generator=g).to(dtype)


def by_python(scores, k, largest):
    """The definition: a sort of tuples. A row with fewer than k scores ends in empty places."""
    worst = -inf if largest else inf
    values, indices = [], []
    for row in (scores + 0).tolist():  # −0 is 0
        keys = [(x != x, 0 if x != x else -x if largest else x, c) for c, x in enumerate(row)]
        ranked = [c for _, _, c in sorted(keys)[:k]]
        values.append([row[c] for c in ranked] + [worst] * (k - len(ranked)))
        indices.append(ranked + [-1] * (k - len(ranked)))
    return TopK(torch.tensor(values, dtype=scores.dtype), torch.tensor(indices))


def tiled(scores, k, widths, order=None, **given):
    """The tiles of these widths, merged in this order."""
    starts = [sum(widths[:i]) for i in range(len(widths))]
    best = None
    for i in order or range(len(widths)):
        part = scores[:, starts[i] : starts[i] + widths[i]]
        best = topk(part, k, first=starts[i], into=best, **given)
    return best


def assert_same(got, want):
    assert torch.equal(got.indices, want.indices)
    assert got.values.dtype == want.values.dtype
    torch.testing.assert_close(got.values, want.values, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("shape", TOPK)
@pytest.mark.parametrize("backend", BACKENDS)
def test_against_the_definition(backend, shape, largest, dtype):
    R, m, k = shape
    for levels in (None, 5):
        scores = scores_of(R, m, dtype, levels)
        assert_same(topk(scores, k, largest=largest, backend=backend), by_python(scores, k, largest))


@pytest.mark.parametrize("backend", BACKENDS)
def test_against_torch(backend):
    scores = scores_of(4, 1009, torch.float64)
    for largest in (True, False):
        got, want = topk(scores, 33, largest=largest, backend=backend), scores.topk(33, largest=largest)
        assert_same(got, TopK(*want))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_special_values(backend, largest, dtype):
    scores = torch.tensor([[nan, 1, -inf, 0.0, inf, -0.0, nan, -nan, 1e-40, -1e-40, inf]], dtype=dtype)
    for k in (1, 4, 8, 9, 11, 14):
        got, want = (
            topk(scores, k, largest=largest, backend=backend),
            by_python(scores, k, largest),
        )
        assert_same(got, want)
        assert not (got.values.signbit() & (got.values == 0)).any()
    nans = torch.full((2, 300), nan, dtype=dtype)
    assert topk(nans, 3, largest=largest, backend=backend).indices.tolist() == [[0, 1, 2]] * 2
    worst = torch.full((2, 300), -inf if largest else inf, dtype=dtype)  # as empty places hold, yet scores
    assert topk(worst, 3, largest=largest, backend=backend).indices.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 40, 700])
@pytest.mark.parametrize("backend", BACKENDS)
def test_tiles_in_any_order_are_one_tile(backend, k, largest):
    scores = scores_of(3, 1500, torch.float32, levels=29)
    scores[1, ::7] = nan
    scores[2] = nan
    want = topk(scores, k, largest=largest, backend=backend)
    for widths in ([1] * 12 + [1488], [128, 129, 127, 1116], [700, 1, 799], [500] * 3):
        for order in (None, range(len(widths) - 1, -1, -1), torch.randperm(len(widths)).tolist()):
            assert_same(tiled(scores, k, widths, order, largest=largest, backend=backend), want)


@needs_native
@pytest.mark.parametrize("order", ["ascending", "descending", "equal"])
def test_orders_that_are_the_worst(order):
    row = torch.arange(5000, dtype=torch.float32)
    scores = {"ascending": row, "descending": row.flip(0), "equal": torch.ones(5000)}[order][None]
    for largest in (True, False):
        assert_same(topk(scores, 100, largest=largest), topk_ref(scores, 100, largest=largest))


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_or_rows(dtype, threads):
    scores = scores_of(9, 70_001, dtype, levels=20_000)
    want = topk_ref(scores, 50)
    for count in (1, 2):
        threads(count)
        assert_same(topk(scores, 50), want)
    one_by_one = [topk(row[None], 50) for row in scores]
    assert_same(TopK(*map(torch.cat, zip(*one_by_one, strict=True))), want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_updates_in_place_whatever_the_strides(backend):
    scores = scores_of(5, 200, torch.float64)
    want = topk(scores, 6, first=10**12, backend=backend)
    assert want.indices.min() >= 10**12
    into = TopK(strided(torch.full((5, 6), -inf, dtype=torch.float64)), torch.full((5, 12), -1)[:, ::2])
    kept = TopK(*into)
    for part, first in ((strided(scores[:, 50:]), 10**12 + 50), (scores[:, :50], 10**12)):
        assert topk(part, 6, first=first, into=into, backend=backend) is into
    assert_same(kept, want)


def test_reference_is_differentiable_and_maps():
    scores = scores_of(3, 9, torch.float64).requires_grad_()
    found = topk(scores, 2)
    (gradient,) = torch.autograd.grad(found.values.sum(), scores)
    assert torch.equal(gradient, torch.zeros_like(scores).scatter(1, found.indices, 1.0))
    batch = scores_of(8, 9, torch.float64).reshape(2, 4, 9)
    mapped = torch.func.vmap(lambda x: topk(x, 3).values)(batch)
    assert torch.equal(mapped, topk(batch.reshape(8, 9), 3).values.reshape(2, 4, 3))


def test_bad_input():
    scores = scores_of(2, 5, torch.float32)
    best = topk(scores, 3)
    for k in (0, 1025):
        with pytest.raises(TlxError, match=f"k is {k}, expected 1 to 1024"):
            topk(scores, k)
    with pytest.raises(TlxError, match="scores has shape"):
        topk(scores[0], 3)
    with pytest.raises(TlxError, match=r"scores is torch\.int64"):
        topk(scores.long(), 3)
    with pytest.raises(TlxError, match="first is -1"):
        topk(scores, 3, first=-1)
    with pytest.raises(TlxError, match=r"into\.values has k = 3"):
        topk(scores, 4, into=best)
    with pytest.raises(TlxError, match=r"values is torch\.float32"):
        topk(scores.double(), 3, into=best)
    with pytest.raises(TlxError, match="values has R = 2"):
        topk(scores[:1], 3, into=best)
    with pytest.raises(TlxError, match=r"into\.indices is torch\.int32"):
        topk(scores, 3, into=TopK(best.values, best.indices.int()))
    with pytest.raises(TlxError, match="shares memory"):
        topk(scores, 3, into=TopK(scores[:, :3], best.indices))
    with pytest.raises(BackendError, match="no backend"):
        topk(scores, 3, backend="fortran")


needs_cuda_kernel = pytest.mark.skipif(
    _native.kernel("topk_cuda", torch.float32) is None, reason="the core was built without nvcc"
)


@needs_native
@needs_cuda_kernel
def test_launcher_passes_what_the_cpu_kernel_takes_and_a_stream(monkeypatch):
    from tlxml_fast.kernels import launcher

    scores, found = scores_of(3, 50, torch.float64), []
    best = topk(scores[:, :20], 5, first=7, largest=False)

    def kernel(op, dtype):
        assert op == "topk_cuda"
        cpu = getattr(_native.core, "topk_f64" if dtype == torch.float64 else "topk_f32")
        return lambda *passed: (cpu(*passed[:-1]), found.append(passed[-1]))

    want = topk(scores, 5, first=7, largest=False)
    monkeypatch.setattr(_native, "kernel", kernel)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=123))
    launcher("topk")(scores[:, 20:].contiguous(), *best, 3, 30, 5, 27, 0)
    assert_same(best, want)
    assert found == [123]


@needs_cuda_kernel
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_launch_that_fails_is_an_error_that_names_the_op():
    with pytest.raises(RuntimeError, match="topk on CUDA: "):
        _native.kernel("topk_cuda", torch.float32)(0, 0, 0, 1, 1, 1, 0, 1, 0)


@needs_cuda_kernel
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", TOPK)
def test_on_a_device_and_in_a_graph(shape, dtype):
    R, m, k = shape
    scores = scores_of(R, m, dtype, levels=99)
    want = topk_ref(scores, k)
    on_device = scores.cuda()
    assert_same(TopK(*(x.cpu() for x in topk(on_device, k, backend="triton"))), want)

    into = TopK(torch.full((R, k), -inf, dtype=dtype).cuda(), torch.full((R, k), -1).cuda())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        topk(on_device, k, into=into, backend="triton")
    graph.replay()
    assert_same(TopK(*(x.cpu() for x in into)), want)
