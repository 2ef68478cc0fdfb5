"""Sketched rows: unbiased by exact sums over every draw, the same whatever they are computed beside."""

from __future__ import annotations

from itertools import product

import nets
import pytest
import torch
from torch import Tensor

import tlxml_fast as tlx
from tlxml_fast.curvature import Fisher
from tlxml_fast.curvature.fisher import KINDS as ALL
from tlxml_fast.curvature.sketch import OWN_FROM, SKETCHES, Draws
from tlxml_fast.errors import CurvatureError, TaskError
from tlxml_fast.losses import get_loss

pytestmark = pytest.mark.usefixtures("one_thread")

# Loss, n queries, C outputs, s rows: every sign of n·r·s ≤ 12 can be tried.
TINY = [
    ("cross_entropy", 2, 3, 1),
    ("cross_entropy", 2, 3, 3),
    ("cross_entropy", 3, 2, 4),
    ("cross_entropy", 1, 3, 5),
    ("cross_entropy", 1, 2, 6),
    ("mse", 3, 1, 4),
    ("mse", 1, 2, 5),
]
KINDS = ["maml, 1 step", "maml, regression", "protonet"]


def drawn(loss: str, n: int, C: int, scale: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits [1, n, C] and targets."""
    f = scale * nets.normal(1, n, C, seed=seed)
    return f, nets.normal(1, n, C, seed=seed + 1) if loss == "mse" else torch.arange(n)[None] % C


def hessian(loss: str, f: Tensor, y: Tensor) -> Tensor:
    """Λ by autograd, [n·C, n·C]."""
    size = f[0].numel()
    return torch.autograd.functional.hessian(lambda x: get_loss(loss)(x, y[0]), f[0]).view(size, size)


def second_moment(U: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the draws of Σ_k u_k u_kᵀ: U [draws, s, n, C]."""
    weights = torch.full((len(U),), 1 / len(U), dtype=U.dtype) if weights is None else weights
    u = U.flatten(2)
    return torch.einsum("d,dsi,dsj->ij", weights, u, u)


class Given:
    """Draws that were thought of before."""

    def __init__(self, values: tuple[float, ...]):
        self.values = torch.tensor(values, dtype=torch.float64)

    def signs(self, *shape: int) -> Tensor:
        return self.values.view(shape)

    uniform = signs


@pytest.mark.parametrize("sketch", ["krylov", "rademacher"])
@pytest.mark.parametrize("case", TINY, ids=str)
def test_the_mean_over_all_signs_is_the_output_hessian(case, sketch):
    loss, n, C, s = case
    f, y = drawn(loss, n, C)
    every = [Given(signs) for signs in product((-1.0, 1.0), repeat=s * n * get_loss(loss).rank(C))]
    U = SKETCHES[sketch](
        get_loss(loss), f.expand(len(every), n, C), y.expand(len(every), *y.shape[1:]), s, every
    )
    torch.testing.assert_close(second_moment(U), hessian(loss, f, y), rtol=1e-11, atol=1e-13)


def test_the_mean_over_all_labels_is_the_output_hessian():
    n, C = 3, 4
    f, y = drawn("cross_entropy", n, C)
    p = f[0].softmax(-1)
    middle = p.cumsum(-1) - p / 2  # a number in [0, 1) that draws this label
    every = list(product(range(C), repeat=n))
    draws = [Given(tuple(middle[range(n), labels])) for labels in every]
    weights = torch.stack([p[range(n), labels].prod() for labels in every])
    U = SKETCHES["labels"](get_loss("cross_entropy"), f.expand(len(every), n, C), None, 1, draws)
    torch.testing.assert_close(
        second_moment(U, weights), hessian("cross_entropy", f, y), rtol=1e-11, atol=1e-13
    )


@pytest.mark.parametrize("sketch", SKETCHES)
def test_the_mean_over_seeds_approaches_the_output_hessian(sketch):
    count, s, (f, y) = 3000, 6, drawn("cross_entropy", 5, 4)
    draws = [Draws(seed, "7" * 32) for seed in range(count)]
    U = SKETCHES[sketch](get_loss("cross_entropy"), f.expand(count, 5, 4), y.expand(count, 5), s, draws)
    each = torch.einsum("dsi,dsj->dij", U.flatten(2), U.flatten(2))
    error = (each.mean(0) - hessian("cross_entropy", f, y)).norm()
    assert error < 2 * each.std(0).norm() / count**0.5


def test_exact_directions_lower_the_variance():
    """Two of twenty queries have all the doubt there is: four coordinates have all the curvature."""
    f, y = drawn("cross_entropy", 20, 3, scale=0.5)
    f[0, 2:, 0] += 30
    y[0, 2:] = 0
    errors = {}
    for sketch in ("krylov", "rademacher"):
        draws = [Draws(seed, "7" * 32) for seed in range(50)]
        U = SKETCHES[sketch](get_loss("cross_entropy"), f.expand(50, 20, 3), y.expand(50, 20), 8, draws)
        each = torch.einsum("dsi,dsj->dij", U.flatten(2), U.flatten(2))
        errors[sketch] = (each - hessian("cross_entropy", f, y)).norm(dim=(1, 2)).mean()
    assert errors["krylov"] < 1e-6 * errors["rademacher"]


@pytest.mark.parametrize(
    ("s", "scale", "exact"), [(OWN_FROM - 1, 0.01, 0), (OWN_FROM, 0.01, 1), (16, 0.01, 1)]
)
def test_where_all_is_uncertain_signs_do_the_work(s, scale, exact):
    f, y = drawn("cross_entropy", 40, 5, scale)
    both = [
        SKETCHES["krylov"](get_loss("cross_entropy"), f, y, s, [Draws(seed, "0" * 32)])[0] for seed in (0, 1)
    ]
    assert (both[0] == both[1]).all((1, 2)).sum() == exact


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_row_is_the_gradient_to_a_factor(kind):
    lin = linearized(kind)
    rows, gradients = Fisher(OWN_FROM).rows(lin, slice(0, lin.T))[:, 0], lin.gradients()
    torch.testing.assert_close(
        torch.cosine_similarity(rows, gradients), torch.ones(lin.T, dtype=torch.float64)
    )


# ---- rows of tasks ----------------------------------------------------------------------------------


def linearized(kind: str, count: int = 3, **given) -> tlx.Linearization:
    return tlx.linearize(
        nets.learner("mlp", kind), nets.some_tasks("mlp", kind, count), dtype=torch.float64, **given
    )


def sketches(kind: str) -> list[str]:
    return [name for name in SKETCHES if name != "labels" or "regression" not in kind]


CASES = [(kind, sketch) for kind in KINDS for sketch in sketches(kind)]


@pytest.mark.parametrize(("kind", "sketch"), CASES)
def test_rows_are_the_cotangents_pulled_back(kind, sketch):
    lin, fisher = linearized(kind), Fisher(5, sketch, seed=2)
    J = lin.jvp(torch.eye(lin.q))  # [T, q, n, C]
    U = fisher.cotangents(lin, slice(0, lin.T))
    want = torch.einsum("tsmc,tqmc->tsq", U, J)
    rows = fisher.rows(lin, slice(0, lin.T))
    torch.testing.assert_close(rows, want, rtol=1e-9, atol=1e-11)
    V = nets.normal(2, lin.q)
    total = torch.einsum("tsq,tsp,kp->kq", want, want, V)
    torch.testing.assert_close(fisher.product(lin, slice(0, lin.T), V), total, rtol=1e-9, atol=1e-11)
    (way,) = fisher.ways_to_assemble(lin)
    torch.testing.assert_close(V @ way.assemble(slice(0, lin.T)), total, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("sketch", ["krylov", "lanczos"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_as_many_vectors_at_once_as_fit(chunk, sketch, monkeypatch):
    lin, fisher = linearized("protonet"), Fisher(5, sketch)
    want = fisher.rows(lin, slice(0, 2))
    monkeypatch.setattr(type(lin), "vectors_at_once", lambda self: chunk)
    torch.testing.assert_close(fisher.rows(lin, slice(0, 2)), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sketch", ALL)
def test_rows_of_a_task_hang_on_nothing_beside_it(sketch):
    lin, fisher = linearized("maml, 1 step"), Fisher(6, sketch)
    together = fisher.rows(lin, slice(0, 3))
    backwards = tlx.linearize(lin.learner, lin.tasks[::-1], dtype=torch.float64)
    torch.testing.assert_close(fisher.rows(backwards, slice(0, 3)).flip(0), together, rtol=1e-8, atol=1e-10)
    for t in range(3):
        alone = tlx.linearize(lin.learner, lin.tasks[t : t + 1], dtype=torch.float64)
        torch.testing.assert_close(fisher.rows(alone, slice(0, 1))[0], together[t], rtol=1e-8, atol=1e-10)
    assert not torch.allclose(Fisher(6, sketch, seed=1).rows(lin, slice(0, 3)), together)


@pytest.mark.parametrize("sketch", ["krylov", "lanczos"])
def test_float32_gives_the_same_rows_to_its_precision(sketch):
    lin, fisher = linearized("protonet"), Fisher(8, sketch)
    narrow = tlx.linearize(lin.learner, lin.tasks, dtype=torch.float32)
    rows = fisher.rows(narrow, slice(0, 3))
    assert rows.dtype == torch.float32
    want = fisher.rows(lin, slice(0, 3))
    assert (rows - want).norm() < 1e-3 * want.norm()


# ---- draws, edges, errors ---------------------------------------------------------------------------


def test_draws_are_the_same_everywhere():
    """Philox 4×64-10 begins with 1ed5a9a46e5c1ef4, e675eded079bea6d, 6bd40e87284fa9af here."""
    draws = Draws(3, "0123456789abcdef" * 2)
    assert draws.signs(16).gt(0).int().tolist() == [int(bit) for bit in f"{0x1EF4:016b}"[::-1]]
    assert draws.uniform(2).tolist() == [
        (word >> 11) / 2**53 for word in (0xE675EDED079BEA6D, 0x6BD40E87284FA9AF)
    ]


@pytest.mark.parametrize("other", [(1, "0" * 32), (0, "1" + "0" * 31), (0, "0" * 31 + "1")], ids=str)
def test_draws_hang_on_the_seed_and_on_every_digit(other):
    assert not torch.equal(Draws(*other).signs(200), Draws(0, "0" * 32).signs(200))


def test_draws_are_balanced():
    signs, numbers = Draws(0, "a" * 32).signs(20, 1000), Draws(0, "b" * 32).uniform(20_000)
    assert signs.abs().eq(1).all()
    assert abs(signs.mean()) < 0.03
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert abs(numbers.mean() - 0.5) < 0.01


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize(("n", "C", "s"), [(1, 1, 4), (1, 2, 1), (1, 2, 9), (2, 33, 3)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_finite_at_odd_sizes_and_extreme_logits(n, C, s, scale, sketch):
    f, _ = drawn("cross_entropy", n, C, scale)
    U = SKETCHES[sketch](get_loss("cross_entropy"), f, f.argmin(-1), s, [Draws(0, "0" * 32)])
    assert U.shape == (1, s, n, C)
    assert torch.isfinite(U).all()


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_coordinates_give_the_gradient(loss):
    f, y = drawn(loss, 6, 5)
    B, a = get_loss(loss).factor(f), get_loss(loss).coordinates(f, y)
    torch.testing.assert_close(
        (B @ a[..., None])[..., 0] / 6, get_loss(loss).gradient(f, y), rtol=1e-11, atol=1e-14
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((0,), "rows_per_task"),
        ((2.5,), "rows_per_task"),
        ((True,), "rows_per_task"),
        ((8, "signs"), "sketch"),
        ((8, "krylov", -1), "seed"),
        ((8, "krylov", 2**64), "seed"),
    ],
)
def test_settings_out_of_range(given, said):
    with pytest.raises(CurvatureError, match=said):
        Fisher(*given)


def test_labels_of_a_regression():
    with pytest.raises(CurvatureError, match="rademacher"):
        Fisher(2, "labels").rows(linearized("maml, regression"), slice(0, 1))


def test_gradients_take_labels_and_signs_do_not():
    tasks = [task.replace(query_y=None) for task in nets.some_tasks("mlp")]
    lin = tlx.linearize(nets.learner("mlp", "protonet"), tasks)
    assert Fisher(2, "rademacher").rows(lin, slice(0, 1)).shape == (1, 2, lin.q)
    for sketch in ("krylov", "lanczos"):
        with pytest.raises(TaskError, match="query labels"):
            Fisher(2, sketch).rows(lin, slice(0, 1))


def test_described():
    assert Fisher(3, seed=5).describe() == {
        "curvature": "Fisher",
        "rows_per_task": 3,
        "sketch": "krylov",
        "seed": 5,
    }
