import pytest
import torch
from backend import COMPILED, needs_compiled
from cases import DISTANCES, DTYPES, PROTO, assert_near, double, inner, proto_case, strided
from torch.func import jacrev, jvp, vmap

from tlxml_fast.errors import BackendError, TaskError, TlxError
from tlxml_fast.ops import proto_gn, proto_gn_ref, proto_logits, softmax_gn_ref
from tlxml_fast.ops.proto_gn import HeadProduct

each_distance = pytest.mark.parametrize("distance", DISTANCES)


@needs_compiled
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PROTO)
@each_distance
def test_against_truth(distance, shape, dtype):
    tensors, ways = proto_case(*shape, dtype)
    options = {"ways": ways, "distance": distance, "scale": 1.7}
    got = proto_gn(*tensors, backend=COMPILED, **options)
    want = proto_gn_ref(*double(*tensors), **options)
    for g, w in zip(got, want, strict=True):
        assert_near(g, w, dtype)


@each_distance
def test_reference_against_dense_jacobian(distance):
    (s, q, y, ds, dq), ways = proto_case(1, 3, (1, 2, 2), 4, 5, torch.float64)
    f, options = proto_logits, {"ways": ways, "distance": distance, "scale": 0.7}
    js, jq = jacrev(lambda a, b: f(a, b, y[0], **options), (0, 1))(s[0], q[0])
    df = torch.einsum("mcsd,ksd->kmc", js, ds[0]) + torch.einsum("mcnd,knd->kmc", jq, dq[0])
    w = softmax_gn_ref(f(s[0], q[0], y[0], **options), df)
    gs, gq = proto_gn_ref(s, q, y, ds, dq, **options)
    assert_near(gs[0], torch.einsum("mcsd,kmc->ksd", js, w), torch.float64)
    assert_near(gq[0], torch.einsum("mcnd,kmc->knd", jq, w), torch.float64)


@needs_compiled
@each_distance
def test_embeddings_far_from_the_origin(distance):
    """A common offset costs the Euclidean distances no digits beyond those the inputs lost to it."""
    (s, q, *rest), ways = proto_case(2, 3, (2, 3, 1), 9, 40, torch.float32)
    tensors = (s + 100, q + 100, *rest)
    got = proto_gn(*tensors, ways=ways, distance=distance, backend=COMPILED)
    want = proto_gn_ref(*double(*tensors), ways=ways, distance=distance)
    for g, w in zip(got, want, strict=True):
        assert (g - w).abs().max() <= (1e-4 if distance != "cosine" else 1e-2) * w.abs().max()


@needs_compiled
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PROTO)
@each_distance
def test_weighted_products_of_one_head(distance, shape, dtype):
    """As the engine takes them: support and query beside each other, weighted, one product after another."""
    (support, query, labels, ds, dq), ways = proto_case(*shape, dtype)
    options = {"ways": ways, "distance": distance, "scale": 1.7}
    weights = torch.linspace(0.5, 2, len(labels), dtype=dtype)
    product = HeadProduct(torch.cat([support, query], 1), labels, **options)
    for factor in (1.0, -3.0):
        dz = factor * torch.cat([ds, dq], 2).transpose(1, 2)
        got = product(dz, weights)
        want = torch.cat(proto_gn_ref(*double(support, query), labels, *double(ds, dq), **options), 2)
        assert got.is_contiguous()
        assert_near(got.transpose(1, 2), factor * weights[:, None, None, None].double() * want, dtype)


@needs_compiled
@each_distance
def test_strides_and_out(distance):
    tensors, ways = proto_case(2, 3, (2, 1, 3), 5, 21, torch.float32)
    want = proto_gn(*tensors, ways=ways, distance=distance)
    out = torch.full_like(tensors[3], torch.nan), strided(torch.full_like(tensors[4], torch.nan))
    got = proto_gn(*map(strided, tensors), ways=ways, distance=distance, out=out)
    for g, o, w in zip(got, out, want, strict=True):
        assert g is o
        assert torch.equal(g, w)


@needs_compiled
@pytest.mark.parametrize("dtype", DTYPES)
@each_distance
def test_bits_do_not_depend_on_threads_batching_or_alignment(distance, dtype, threads):
    T, K = (4, 5) if COMPILED == "native" else (2, 3)  # the interpreter takes its time
    tensors, ways = proto_case(T, K, (3, 1, 2, 2, 4), 23, 67, dtype)

    def run(*chunk):
        return torch.cat(proto_gn(*chunk, ways=ways, distance=distance, backend=COMPILED), 2)

    want = run(*tensors)
    for count in (1, 2):
        threads(count)
        assert torch.equal(run(*tensors), want)
    assert torch.equal(torch.cat([run(*(x[t : t + 1] for x in tensors)) for t in range(T)]), want)
    by_tangent = [run(*tensors[:3], *(x[:, k : k + 2] for x in tensors[3:])) for k in range(0, K, 2)]
    assert torch.equal(torch.cat(by_tangent, 1), want)
    shifted = [torch.cat([x.flatten()[:1], x.flatten()])[1:].view_as(x) for x in tensors]
    assert torch.equal(run(*shifted), want)


@needs_compiled
@each_distance
def test_symmetric_positive_linear(distance):
    (s, q, y, *u), ways = proto_case(2, 6, (2, 3, 1, 2), 11, 13, torch.float64)
    v = [x.flip(1) for x in u]

    def G(ds, dq):
        return proto_gn(s, q, y, ds, dq, ways=ways, distance=distance, backend=COMPILED)

    gu, gv = G(*u), G(*v)
    torch.testing.assert_close(inner(u, gv), inner(v, gu), rtol=1e-11, atol=1e-12)
    assert inner(u, gu).min() > 0
    for mixed, a, b in zip(G(*(2 * a - 3 * b for a, b in zip(u, v, strict=True))), gu, gv, strict=True):
        torch.testing.assert_close(mixed, 2 * a - 3 * b, rtol=1e-10, atol=1e-12)


@each_distance
def test_transforms_take_the_reference(distance):
    tensors, ways = proto_case(3, 2, (1, 2), 4, 5, torch.float64)
    options = {"ways": ways, "distance": distance}
    want = proto_gn_ref(*tensors, **options)
    by_task = vmap(lambda *x: tuple(g[0] for g in proto_gn(*(t[None] for t in x), **options)))(*tensors)
    linear = jvp(lambda *u: proto_gn(*tensors[:3], *u, **options), tensors[3:], tensors[3:])[1]
    for got in (by_task, linear):
        for g, w in zip(got, want, strict=True):
            torch.testing.assert_close(g, w)


@each_distance
def test_logits_derivatives_and_leading_dimensions(distance):
    (s, q, y, *_), ways = proto_case(2, 1, (1, 2), 2, 3, torch.float64)
    options = {"ways": ways, "distance": distance, "scale": 1.3}
    whole = proto_logits(s[:, None], q[:, None], y[:, None], **options)[:, 0]
    torch.testing.assert_close(whole, vmap(lambda *x: proto_logits(*x, **options))(s, q, y))
    torch.testing.assert_close(whole[1], proto_logits(s[1], q[1], y[1], **options))

    def second(a, b):  # gradgradcheck of a gradient: third order
        logits = proto_logits(a, b, y[0], **options)
        return torch.autograd.grad(logits.square().sum(), (a, b), create_graph=True)

    inputs = s[0].clone().requires_grad_(), q[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(second, inputs)
    assert torch.autograd.gradgradcheck(second, inputs)


def test_bad_input():
    (s, q, y, ds, dq), ways = proto_case(2, 3, (1, 2), 4, 5, torch.float32)
    with pytest.raises(TaskError, match="task 1"):
        proto_gn(s, q, torch.stack([y[0], y[1] * 0]), ds, dq, ways=ways)
    with pytest.raises(TaskError, match="task 0"):
        proto_gn(s, q, y - 1, ds, dq, ways=ways)
    with pytest.raises(TlxError, match="dsupport_z has S = 2"):
        proto_gn(s, q, y, ds[:, :, :2], dq, ways=ways)
    with pytest.raises(TlxError, match=r"support_y is torch\.int32"):
        proto_gn(s, q, y.int(), ds, dq, ways=ways)
    with pytest.raises(TlxError, match="no distance"):
        proto_gn(s, q, y, ds, dq, ways=ways, distance="manhattan")
    with pytest.raises(TlxError, match="no size zero"):
        proto_gn(s, q, y, ds[:, :0], dq[:, :0], ways=ways)
    with pytest.raises(BackendError, match="no backend"):
        proto_gn(s, q, y, ds, dq, ways=ways, backend="fortran")


@needs_compiled
def test_lazy_negatives_keep_their_sign():
    (s, q, y, ds, dq), ways = proto_case(2, 3, (1, 2), 4, 5, torch.float64)
    want = proto_gn(-s, -q, y, -ds, -dq, ways=ways)
    got = proto_gn(*map(torch._neg_view, (s, q)), y, *map(torch._neg_view, (ds, dq)), ways=ways)
    assert all(map(torch.equal, got, want))


def test_labels_are_whole_and_the_rest_is_not():
    (s, q, y, ds, dq), ways = proto_case(2, 3, (1, 2), 4, 5, torch.float32)
    with pytest.raises(TlxError, match=r"support_y is torch\.float32, expected torch\.int64"):
        proto_gn(s, q, y.float(), ds, dq, ways=ways)
    with pytest.raises(TlxError, match=r"dquery_z is torch\.int64"):
        proto_gn(s, q, y, ds, dq.long(), ways=ways)


def test_outs_in_one_memory_are_refused():
    (s, q, y, ds, dq), ways = proto_case(1, 2, (1, 2), 3, 5, torch.float32)
    both = torch.empty_like(ds)
    with pytest.raises(TlxError, match="with each other"):
        proto_gn(s, q, y, ds, dq, ways=ways, out=(both, both))
