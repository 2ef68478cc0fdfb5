import pytest
import torch
from backend import BACKENDS, COMPILED, WHY_NOT, needs_compiled
from cases import DTYPES, SOFTMAX, assert_near, double, generator, softmax_case, strided

from tlxml_fast.errors import BackendError, TlxError
from tlxml_fast.ops import softmax_gn, softmax_gn_ref


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SOFTMAX)
@pytest.mark.parametrize("backend", BACKENDS)
def test_against_truth(backend, shape, dtype):
    logits, u = softmax_case(*shape, dtype)
    assert_near(softmax_gn(logits, u, backend=backend), softmax_gn_ref(*double(logits, u)), dtype)


def test_reference_is_the_hessian_of_cross_entropy():
    logits, u = softmax_case(1, 4, 6, 5, torch.float64)
    labels = torch.randint(5, (6,), generator=generator())
    hessian = torch.func.hessian(lambda f: torch.nn.functional.cross_entropy(f, labels))(logits[0])
    want = torch.einsum("mcnd,knd->kmc", hessian, u[0])
    assert_near(softmax_gn_ref(logits, u)[0], want, torch.float64)


@needs_compiled
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_logits(dtype):
    logits, u = softmax_case(2, 3, 8, 5, dtype)
    logits = 1e4 * logits + 1e6
    got = softmax_gn(logits, u, backend=COMPILED)
    assert_near(got, softmax_gn_ref(*double(logits, u)), dtype)


@needs_compiled
def test_strides_and_out():
    logits, u = softmax_case(3, 4, 7, 5, torch.float64)
    want = softmax_gn(logits, u)
    out, odd = torch.full_like(u, torch.nan), strided(torch.full_like(u, torch.nan))
    assert softmax_gn(strided(logits), strided(u), out=out) is out
    assert softmax_gn(logits[:1].expand(3, 7, 5), u, out=odd) is odd
    assert torch.equal(out, want)
    assert torch.equal(odd[0], want[0])


@needs_compiled
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_or_batching(dtype, threads):
    logits, u = softmax_case(6, 9, 301, 7, dtype)
    want = softmax_gn(logits, u, backend=COMPILED)
    for count in (1, 2):
        threads(count)
        assert torch.equal(softmax_gn(logits, u, backend=COMPILED), want)
    by_task = torch.cat([softmax_gn(logits[t : t + 1], u[t : t + 1], backend=COMPILED) for t in range(6)])
    by_tangent = torch.cat([softmax_gn(logits, u[:, k : k + 2], backend=COMPILED) for k in range(0, 9, 2)], 1)
    assert torch.equal(by_task, want)
    assert torch.equal(by_tangent, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_symmetric_positive_linear(backend):
    logits, u = softmax_case(2, 6, 11, 5, torch.float64)
    v = u.flip(1)
    gu, gv = softmax_gn(logits, u, backend=backend), softmax_gn(logits, v, backend=backend)
    torch.testing.assert_close((u * gv).sum((-1, -2)), (v * gu).sum((-1, -2)), rtol=1e-12, atol=1e-12)
    assert (u * gu).sum((-1, -2)).min() > 0
    torch.testing.assert_close(softmax_gn(logits, 2 * u - 3 * v, backend=backend), 2 * gu - 3 * gv)


def test_transforms_take_the_reference():
    logits, u = softmax_case(3, 2, 4, 5, torch.float64)
    want = softmax_gn_ref(logits, u)
    batched = torch.func.vmap(lambda f, x: softmax_gn(f[None], x[None])[0])(logits, u)
    torch.testing.assert_close(batched, want)
    tangent = torch.func.jvp(lambda x: softmax_gn(logits, x), (u,), (u,))[1]
    torch.testing.assert_close(tangent, want)
    assert torch.autograd.gradcheck(lambda f: softmax_gn(f, u), logits.requires_grad_())


def test_bad_input():
    logits, u = softmax_case(2, 3, 4, 5, torch.float32)
    with pytest.raises(TlxError, match="u has n = 3"):
        softmax_gn(logits, u[:, :, :3])
    with pytest.raises(TlxError, match="logits has shape"):
        softmax_gn(logits[0], u)
    with pytest.raises(TlxError, match=r"u is torch\.float64"):
        softmax_gn(logits, u.double())
    with pytest.raises(TlxError, match=r"logits is torch\.float16"):
        softmax_gn(logits.half(), u.half())
    with pytest.raises(TlxError, match="shares memory"):
        softmax_gn(logits, u, out=u)
    with pytest.raises(TlxError, match="out is"):
        softmax_gn(logits, u, out=u.double())


def test_explicit_backend_errors():
    logits, u = softmax_case(2, 3, 4, 5, torch.float32)
    with pytest.raises(BackendError, match="no backend"):
        softmax_gn(logits, u, backend="fortran")
    with pytest.raises(BackendError, match=f"cannot run on backend {COMPILED} here"):
        torch.func.vmap(lambda x: softmax_gn(logits, x[None].expand_as(u), backend=COMPILED))(u[0, 0, 0])
    with pytest.raises(BackendError, match="cannot run" if WHY_NOT else "autograd"):
        softmax_gn(logits, u.requires_grad_(), backend=COMPILED)


@needs_compiled
def test_lazy_negatives_keep_their_sign():
    logits, u = softmax_case(2, 3, 4, 5, torch.float64)
    want, out = softmax_gn(-logits, -u), torch._neg_view(torch.zeros_like(u))
    assert torch.equal(softmax_gn(torch._neg_view(logits), torch._neg_view(u), backend=COMPILED), want)
    assert torch.equal(softmax_gn(-logits, -u, out=out), want)


def test_whole_numbers_are_refused():
    logits, u = softmax_case(2, 3, 4, 5, torch.float32)
    for args in ((logits.long(), u), (logits, u.long()), (logits.long(), u.long())):
        with pytest.raises(TlxError, match=r"is torch\.int64; all must be"):
            softmax_gn(*args)
