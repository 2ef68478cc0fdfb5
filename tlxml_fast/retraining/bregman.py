"""The proximal Bregman response: what damped Gauss-Newton influence approximates to first order."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ..errors import TlxError
from ..linearize import Linearization
from .objective import Objective


class ProximalBregman:
    """Q_J(ω) = Σ_t w_t D_t(f_t(ω), f̂_t) − Σ_{j∈J} w_j L_j(ω) + ((δ+λ)/2)‖ω − ω̂‖²,  f̂_t = f_t(ω̂).

    (Bae et al. 2022, arXiv 2209.05364, equation 10, with tasks for examples.) D_t is the Bregman divergence of the
    loss h_t as a function of the logits,

        D_t(f, f̂) = h_t(f) − h_t(f̂) − ⟨∇h_t(f̂), f − f̂⟩;

    for cross-entropy the mean over queries of KL(p̂ ‖ p). Each term of L stays where it is by its divergence rather than
    by balance with the others, so that ω̂ need not be stationary. So does weight decay: the divergence of
    (δ/2)‖ω‖² is (δ/2)‖ω − ω̂‖², which is how δ joins the proximity λ.

    At ω̂ the gradient is −Σ_J w_j ∇L_j. Of the divergences only J_tᵀΛ_tJ_t is left there to second order, since
    ∇h_t(f) − ∇h_t(f̂) is zero. One Newton step without the curvature of the −L_j, which are of first order already, is

        ω − ω̂ = (Σ_t w_t J_tᵀΛ_tJ_t + (δ+λ)I)⁻¹ Σ_J w_j ∇L_j = −Σ_J w_j I_meta(j)

    of `GaussNewton()` with `Dense(damping=λ)`. Retraining differs from this response by the linearisation of f in the
    terms of L that stay, by λ, and by ω̂ having been no minimum.

    Minimise it from ω̂ (`minimise`). Away from ω̂ it need not be bounded below: the minimum meant is the one there.
    """

    def __init__(self, objective: Objective, omega: Tensor, removed: Iterable[int], damping: float = 0.0):
        if not damping >= 0:
            raise TlxError(f"damping is at least 0, not {damping}")
        self.objective, self.omega = objective, omega.detach().double().cpu()
        self.proximity = objective.weight_decay + damping
        kept = objective.without(removed).weights
        self.removed = objective.reweighted(kept - objective.weights)
        """−Σ_J w_j L_j, with the objective's own weight decay."""
        self.anchors = [
            (lin.logits, lin.learner.loss.gradient(lin.logits, lin.targets))
            for lin in objective.linearizations(self.omega)
        ]

    def value_and_gradient(self, omega: Tensor) -> tuple[float, Tensor]:
        """Q_J(ω), and its gradient, [q]."""
        step = omega - self.omega
        value, gradient = 0.5 * self.proximity * float(step @ step), self.proximity * step
        lost, slope = self.removed.value_and_gradient(omega)
        decay = self.removed.weight_decay
        value += lost - 0.5 * decay * float(omega @ omega)
        gradient = gradient + slope - decay * omega
        for lin, weights, (anchor, pull) in self._each(omega):
            divergence, u = _divergence(lin, anchor, pull)
            value += float(weights @ divergence)
            gradient = gradient + lin.vjp((weights[:, None, None] * u)[:, None])[:, 0].sum(0).cpu()
        return value, gradient

    def hvp(self, omega: Tensor, V: Tensor) -> Tensor:
        """The Hessian without Σ_t w_t (∇h_t(f) − ∇h_t(f̂))·∇²f_t, which vanishes at ω̂: [K, q] → [K, q]."""
        of_removed = self.removed.hvp(omega, V) - self.removed.weight_decay * V
        of_divergence = self.objective.gnvp(omega, V) - self.objective.weight_decay * V
        return of_divergence + of_removed + self.proximity * V

    def _each(self, omega: Tensor):
        lins = self.objective.linearizations(omega)
        for where, lin, anchor in zip(self.objective.buckets.positions, lins, self.anchors, strict=True):
            yield lin, self.objective.weights[where].to(lin.device), anchor


def _divergence(lin: Linearization, anchor: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
    """D_t(f_t, f̂_t) of every task [T], and its gradient in the logits, [T, n, C]."""
    loss, y = lin.learner.loss, lin.targets

    def mean(logits: Tensor) -> Tensor:
        return loss.per_query(logits.flatten(0, 1), y.flatten(0, 1)).view(lin.T, lin.n).mean(1)

    moved = lin.logits - anchor
    divergence = mean(lin.logits) - mean(anchor) - (pull * moved).sum((1, 2))
    return divergence, loss.gradient(lin.logits, y) - pull
