"""What the three random projections have in common."""

import pytest
import torch
from backend import BACKENDS, COMPILED, WHY_NOT, needs_compiled
from cases import DTYPES, PROJECTION, assert_near, projection, strided

from tlxml_fast.errors import BackendError, TlxError
from tlxml_fast.ops import rademacher, rademacher_ref, sjlt, sjlt_ref, srht, srht_ref
from tlxml_fast.ops.srht import padded

SEED = 2**40 + 5


def _sjlt(function):
    return lambda x, d, **given: function(x, d, min(d, 5), **{"seed": SEED, **given})


def _srht(function):
    return lambda x, d, **given: function(x, min(d, padded(x.shape[1])), **{"seed": SEED, **given})


def _rademacher(function):
    return lambda x, d, **given: function(x, d, **{"seed": SEED, **given})


PROJECTIONS = {
    "sjlt": (_sjlt(sjlt), _sjlt(sjlt_ref)),
    "srht": (_srht(srht), _srht(srht_ref)),
    "rademacher": (_rademacher(rademacher), _rademacher(rademacher_ref)),
}
each_op = pytest.mark.parametrize("op", PROJECTIONS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PROJECTION, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@each_op
def test_against_truth(op, backend, shape, dtype):
    function, reference = PROJECTIONS[op]
    x, d = projection(*shape, dtype), shape[2]
    assert_near(function(x, d, backend=backend), reference(x.double(), d), dtype)


@needs_compiled
@pytest.mark.parametrize("seed", [0, 2**63 - 1])
@each_op
def test_every_backend_draws_the_same_matrix(op, seed):
    function, reference = PROJECTIONS[op]
    identity = torch.eye(150, dtype=torch.float64)
    got, want = function(identity, 37, seed=seed, backend=COMPILED), reference(identity, 37, seed=seed)
    assert torch.equal(got.sign(), want.sign())
    torch.testing.assert_close(got, want, rtol=1e-15, atol=0)


@each_op
def test_seeds_draw_different_matrices(op):
    x = projection(1, 150, 37, torch.float64)
    first, second = (PROJECTIONS[op][0](x, 37, seed=seed) for seed in (1, 2**32 + 1))
    assert not (first == second).any() or op == "sjlt"  # which leaves places empty
    assert not torch.equal(first, second)


@needs_compiled
@pytest.mark.parametrize("dtype", DTYPES)
@each_op
def test_bits_do_not_depend_on_threads_or_rows(op, dtype, threads):
    function = PROJECTIONS[op][0]
    x = projection(70 if COMPILED == "native" else 9, 300, 37, dtype)
    want = function(x, 37, backend=COMPILED)
    for count in (1, 2):
        threads(count)
        assert torch.equal(function(x, 37, backend=COMPILED), want)
    got = torch.cat([function(part, 37, backend=COMPILED) for part in (x[:1], x[1:3], x[3:7], x[7:])])
    if op == "rademacher" and COMPILED == "triton":  # the interpreter leaves products of tiles to a BLAS
        torch.testing.assert_close(got, want)
    else:
        assert torch.equal(got, want)


@needs_compiled
@each_op
def test_a_row_that_is_not_finite_spoils_no_other(op):
    function = PROJECTIONS[op][0]
    x = projection(9, 200, 20, torch.float32)
    want = function(x, 20, backend=COMPILED)
    x[4] = torch.nan
    got = function(x, 20, backend=COMPILED)
    assert torch.equal(got[[0, 1, 2, 3, 5, 6, 7, 8]], want[[0, 1, 2, 3, 5, 6, 7, 8]])


@needs_compiled
@each_op
def test_strides_and_out(op):
    function = PROJECTIONS[op][0]
    x = projection(6, 131, 33, torch.float64)
    want = function(x, 33)
    out, odd = torch.full_like(want, torch.nan), strided(torch.full_like(want, torch.nan))
    assert function(strided(x), 33, out=out) is out
    assert function(x[:1].expand(6, 131), 33, out=odd) is odd
    assert torch.equal(out, want)
    assert torch.equal(odd[5], want[0])


@each_op
def test_transforms_take_the_reference(op):
    function, reference = PROJECTIONS[op]
    x = projection(6, 40, 8, torch.float64)
    want = reference(x, 8)
    torch.testing.assert_close(torch.func.vmap(lambda r: function(r[None], 8)[0])(x), want)
    torch.testing.assert_close(torch.func.jvp(lambda r: function(r, 8), (x,), (x,))[1], want)
    assert torch.autograd.gradcheck(lambda r: function(r, 8), x.requires_grad_())


@each_op
def test_bad_input(op):
    function = PROJECTIONS[op][0]
    x = projection(3, 40, 8, torch.float32)
    with pytest.raises(TlxError, match="x has shape"):
        function(x[0][None, None], 8)
    with pytest.raises(TlxError, match=r"x is torch\.int64"):
        function(x.long(), 8)
    with pytest.raises(TlxError, match=f"{op}: dimension is 0, expected 1 to"):
        function(x, 0)
    with pytest.raises(TlxError, match=f"{op}: seed is -1, expected 0 to"):
        function(x, 8, seed=-1)
    with pytest.raises(TlxError, match="out is"):
        function(x, 8, out=torch.empty(3, 7))
    with pytest.raises(TlxError, match="shares memory"):
        function(x, 8, out=x[:, :8])
    with pytest.raises(BackendError, match="no backend"):
        function(x, 8, backend="fortran")
    with pytest.raises(BackendError, match="cannot run" if WHY_NOT else "autograd"):
        function(x.requires_grad_(), 8, backend=COMPILED)
