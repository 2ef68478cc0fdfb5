"""Linear-regression MAML, where everything has a closed form.

One inner step on a linear model is affine in ω, and so are k of them: θ = P ω + c with P = (I − (2α/mC) X̃ᵀX̃)^k.
Each task's outer loss is then the quadratic L_j(ω) = ½ωᵀH_jω − b_jᵀω + const, G = H, and with δ

    ω(ε) = argmin L + εL_j = (H + εH_j)⁻¹(b + εb_j),    H = ΣH_t/M + δI,  b = Σb_t/M.

I_meta(j) = −H⁻¹g_j is exactly dω/dε at 0. Leaving j out is ε = −1/M, and exact influence and first order differ by a
resolvent: ω_{−j} − ω = (H − H_j/M)⁻¹ g_j/M = −(I − H⁻¹H_j/M)⁻¹ I_meta(j)/M.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import Problem, maml, near

import tlxml_fast as tlx

DELTA = 0.05
C, D = 2, 5  # outputs, features


def flat(matrix: np.ndarray) -> np.ndarray:
    """Θ [D + 1, C], the last row the bias, in the order of nn.Linear's parameters."""
    return np.concatenate([matrix[:D].T.ravel(), matrix[D]])


def quadratic(task: tlx.Task, steps: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """H_j and b_j by hand; numpy alone."""
    pad = [np.c_[x.double().numpy(), np.ones(len(x))] for x in (task.support_x, task.query_x)]
    S, Q = pad
    Y, Z = task.support_y.double().numpy(), task.query_y.double().numpy()
    step = 2 * rate / Y.size
    P, c = np.eye(D + 1), np.zeros((D + 1, C))
    for _ in range(steps):
        P, c = P - step * S.T @ S @ P, c - step * S.T @ (S @ c - Y)
    A, residual = Q @ P, Z - Q @ c  # f − y = AΘ − residual
    order = flat(np.arange((D + 1) * C).reshape(D + 1, C)).astype(int)
    H = 2 / Z.size * np.kron(A.T @ A, np.eye(C))[np.ix_(order, order)]
    return H, 2 / Z.size * flat(A.T @ residual)


class Linear(Problem):
    """Six tasks, the model at the minimiser of its objective."""

    def __init__(self, steps: int):
        super().__init__(maml(steps, 0.125, loss="mse", model="linear", outputs=C, decay=DELTA, tasks=(6, 3)))
        self.H, self.b = (
            np.stack(a) for a in zip(*(quadratic(t, steps, 0.125) for t in self.train), strict=True)
        )
        self.test_H, self.test_b = (
            np.stack(a) for a in zip(*(quadratic(t, steps, 0.125) for t in self.test), strict=True)
        )
        self.M = len(self.train)
        self.omega = self.minimiser(np.ones(self.M))
        self.g = self.H @ self.omega - self.b

    def minimiser(self, counts: np.ndarray) -> np.ndarray:
        """Of (1/M) Σ counts_t L_t + (δ/2)‖ω‖²."""
        H = np.einsum("t,tij->ij", counts, self.H) / self.M + DELTA * np.eye(len(self.b[0]))
        return np.linalg.solve(H, counts @ self.b / self.M)

    def without(self, *left_out: int) -> np.ndarray:
        return self.minimiser(np.array([t not in left_out for t in range(self.M)], dtype=float))

    def learner(self, dtype: torch.dtype = torch.float64) -> tlx.Learner:
        learner = super().learner(dtype)
        omega = torch.tensor(self.omega, dtype=dtype)
        torch.nn.utils.vector_to_parameters(omega, learner.module.parameters())
        return learner


@pytest.fixture(scope="module", params=[1, 3])
def linear(request: pytest.FixtureRequest) -> Linear:
    return Linear(request.param)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(array, dtype=torch.float64)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_gauss_newton_is_the_hessian(linear, backend):
    for j, task in enumerate(linear.train):
        lin = tlx.linearize(linear.learner(), [task], backend)
        eye = torch.eye(lin.q, dtype=torch.float64)
        near(lin.gradients()[0], as_tensor(linear.g[j]))
        for matrix in (
            lin.gnvp(eye),
            lin.hvp(eye),
            lin.gn_rows(slice(0, 1))[0].T @ lin.gn_rows(slice(0, 1))[0],
        ):
            near(matrix, as_tensor(linear.H[j]))


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_first_order_influence_is_the_derivative_in_the_weight(linear, curvature):
    inf = linear.fit(curvature, tlx.Dense())
    assert inf.report["gradient_norm"] < 1e-12  # the minimiser
    H = linear.H.mean(0) + DELTA * np.eye(len(linear.omega))
    derivative = as_tensor(
        np.linalg.solve(H, (linear.b - linear.H @ linear.omega).T).T
    )  # d/dε (H+εH_j)⁻¹(b+εb_j)
    near(torch.stack([inf.meta(j) for j in range(linear.M)]), derivative)
    test_g = as_tensor(linear.test_H @ linear.omega - linear.test_b)
    near(inf.scores(linear.test).values, test_g @ derivative.T)


@pytest.mark.parametrize("left_out", [(0,), (3,), (1, 4), (0, 2, 5)])
def test_leaving_tasks_out(linear, left_out):
    """From the package's own products and influences to the minimiser of what is left."""
    inf, M = linear.fit(inverse=tlx.Dense()), linear.M
    meta = sum(inf.meta(j) for j in left_out)
    lins = [tlx.linearize(linear.learner(), [linear.train[j]]) for j in left_out]
    eye = torch.eye(len(meta), dtype=torch.float64)
    H_left_out = sum(lin.hvp(eye) for lin in lins)
    H = as_tensor(linear.H.mean(0)) + DELTA * eye
    exact = as_tensor(linear.without(*left_out) - linear.omega)
    newton = torch.linalg.solve(H - H_left_out / M, sum(lin.gradients()[0] for lin in lins) / M)
    near(newton, exact)
    near(-torch.linalg.solve(eye - torch.linalg.solve(H, H_left_out) / M, meta) / M, exact)


def test_leaving_a_task_out_changes_test_losses_as_predicted(linear):
    """ΔL_i = g_iᵀd + ½dᵀH_id for the exact step d; −I_perf/M is its first order, the error of second order in 1/M."""
    inf = linear.fit(inverse=tlx.Dense())
    scores, M = inf.scores(linear.test).values, linear.M
    for j in range(M):
        d = linear.without(j) - linear.omega
        slopes = linear.test_H @ linear.omega - linear.test_b
        exact = slopes @ d + 0.5 * np.einsum("i,tij,j->t", d, linear.test_H, d)
        moved = linear.learner()
        torch.nn.utils.vector_to_parameters(as_tensor(linear.without(j)), moved.module.parameters())
        change = [
            (tlx.linearize(moved, [t]).losses() - tlx.linearize(linear.learner(), [t]).losses()).item()
            for t in linear.test
        ]
        near(as_tensor(np.array(change)), as_tensor(exact))
        epsilon = 1e-4  # of a task's weight: central differences of the retrained loss
        ends = [linear.minimiser(np.ones(M) + sign * epsilon * M * np.eye(M)[j]) for sign in (1, -1)]
        loss = [0.5 * np.einsum("i,tij,j->t", w, linear.test_H, w) - linear.test_b @ w for w in ends]
        near(scores[:, j], as_tensor((loss[0] - loss[1]) / (2 * epsilon)), 1e-5)
