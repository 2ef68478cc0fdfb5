"""Directions by a task's own Gauss-Newton matrix: exact where they are enough, unbiased where they are not."""

from __future__ import annotations

from itertools import product

import nets
import pytest
import torch
from torch import Tensor

import tlxml_fast as tlx
from tlxml_fast.curvature import Fisher
from tlxml_fast.curvature.lanczos import lanczos
from tlxml_fast.errors import CurvatureError
from tlxml_fast.linearize.buckets import Buckets

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["maml, 1 step", "maml, regression", "protonet"]


class Given:
    """Draws that were thought of before."""

    def __init__(self, values: tuple[float, ...]):
        self.values = torch.tensor(values, dtype=torch.float64)

    def signs(self, *shape: int) -> Tensor:
        return self.values.view(shape)


def linearized(kind: str, queries: int, count: int = 1) -> tlx.Linearization:
    tasks = nets.some_tasks("mlp", kind, count, queries)
    return tlx.linearize(nets.learner("mlp", kind), tasks, dtype=torch.float64)


def matrix(rows: Tensor) -> Tensor:
    """RᵀR."""
    return rows.mT @ rows


@pytest.mark.parametrize(
    ("kind", "queries", "s"), [("protonet", 2, 2), ("protonet", 2, 4), ("maml, 1 step", 2, 3)]
)
def test_the_mean_over_all_signs_is_the_matrix_of_the_task(kind, queries, s):
    lin = linearized(kind, queries)
    every = product((-1.0, 1.0), repeat=(s - s // 2) * lin.gn_rank)
    drawn = torch.stack([matrix(lanczos(lin, slice(0, 1), s, [Given(signs)])[0]) for signs in every])
    assert drawn.std(0).max() > 1e-3 * drawn.mean(0).max()
    torch.testing.assert_close(drawn.mean(0), matrix(lin.gn_rows(slice(0, 1))[0]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_rows_are_a_krylov_space(kind):
    lin, e = linearized(kind, 4, 2), 3
    rows, exact = Fisher(2 * e, "lanczos").rows(lin, slice(0, 2)), lin.gn_rows(slice(0, 2))
    for g, found, R in zip(lin.gradients(), rows, exact, strict=True):
        powers = [g]
        for _ in range(e - 1):
            powers.append(R.mT @ (R @ powers[-1]))
        want, got = torch.linalg.qr(torch.stack(powers).mT).Q, torch.linalg.qr(found[:e].mT).Q
        torch.testing.assert_close(want @ want.mT, got @ got.mT, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_to_chance_where_the_directions_are_all_there_are(kind):
    lin = linearized(kind, 1, 3)
    rows = Fisher(2 * lin.gn_rank, "lanczos", seed=4).rows(lin, slice(0, 3))
    torch.testing.assert_close(matrix(rows), matrix(lin.gn_rows(slice(0, 3))), rtol=1e-9, atol=1e-12)


def test_what_a_task_does_to_its_own_score_is_nearer_than_by_the_output_hessian():
    lin = linearized("protonet", 30, 4)
    G, g = matrix(lin.gn_rows(slice(0, 4))), lin.gradients()
    damping = 1e-3 * torch.linalg.eigvalsh(G)[:, -1]

    def own(C: Tensor) -> Tensor:
        """g·(C + λ)⁻¹g of each task."""
        damped = C + damping[:, None, None] * torch.eye(lin.q, dtype=C.dtype)
        return (g * torch.linalg.solve(damped, g)).sum(1)

    off = {
        sketch: (own(matrix(Fisher(12, sketch).rows(lin, slice(0, 4)))) / own(G) - 1).abs()
        for sketch in ("krylov", "lanczos")
    }
    assert (off["lanczos"] < off["krylov"] / 2).all()


def test_blocks_side_by_side_where_forward_mode_is_for_one_at_a_time():
    tasks, fisher = nets.some_tasks("mlp", count=12), Fisher(8, "lanczos")

    def rows(backend: str, threads: int) -> Tensor:
        torch.set_num_threads(threads)

        def linearize(learner: tlx.Learner, tasks: tlx.TaskSet) -> tlx.Linearization:
            return tlx.linearize(learner, tasks, backend, torch.float64)

        found = Buckets(nets.learner("mlp", "protonet"), tasks, linearize).gather(
            fisher.rows, lambda done: None
        )
        return torch.stack(found)

    want = rows("auto", 1)
    torch.testing.assert_close(rows("reference", 4), want, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(rows("auto", 4), want, rtol=1e-7, atol=1e-9)


def test_cotangents_are_not_known_beforehand():
    with pytest.raises(CurvatureError, match="row by row"):
        Fisher(4, "lanczos").cotangents(linearized("protonet", 2), slice(0, 1))


def test_a_task_without_a_gradient_has_signs_alone():
    lin = linearized("maml, regression", 3)
    tasks = [task.replace(query_y=f) for task, f in zip(lin.tasks, lin.logits, strict=True)]
    lin = tlx.linearize(lin.learner, tasks, dtype=torch.float64)
    assert lin.gradients().norm() == 0
    rows = Fisher(6, "lanczos").rows(lin, slice(0, 1))[0]
    assert not rows[:3].any()
    assert rows[3:].any(1).all()
