"""Model-agnostic meta-learning and its relatives: ANIL, Meta-SGD, FOMAML."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LearnerError
from .base import Episode, Learner, Parameters
from .body import check_logits

RATE = "inner_lr."


class MAML(Learner):
    """MAML (Finn et al. 2017): θ_{s+1} = θ_s − D ∇L_S(θ_s), from θ_0 = ω, D = diag(inner_lr), zero where frozen.

    module            maps [n, *features] to logits [n, C]; C may exceed a task's ways, the unused logits
                      stay in the softmax
    inner_lr          α, a number or a dict from parameter name to number or tensor (broadcast). Inner losses
                      are means: the α = 0.4 of the original code, which divides by shots only, is 2.0 for 5 ways
    inner_steps       gradient steps in training
    inner_steps_eval  steps on a new task; the same unless given
    adapt             what is adapted: None for everything; "head" for the last layer with parameters (ANIL,
                      Raghu et al. 2020); names or prefixes of names; or a predicate of the name
    norm              "batch" or "running" statistics in BatchNorm
    learn_inner_lr    makes the rates meta-parameters too, named "inner_lr.*" (Meta-SGD, Li et al. 2017)
    first_order       FOMAML: training only; influence refuses it, since ω is no stationary point of the loss
    loss              "cross_entropy"; or, for tasks with real targets, "mse" or "binary_cross_entropy"; inner and outer

    Raises LearnerError for settings that do not fit the module.
    """

    kind = "maml"

    def __init__(
        self,
        module: nn.Module,
        inner_lr: float | Mapping[str, float | Tensor] = 0.4,
        inner_steps: int = 1,
        inner_steps_eval: int | None = None,
        adapt: str | Sequence[str] | Callable[[str], bool] | None = None,
        norm: str = "batch",
        *,
        learn_inner_lr: bool = False,
        first_order: bool = False,
        loss: str = "cross_entropy",
    ):
        self.rates: Parameters = {}
        self.learn_inner_lr = learn_inner_lr
        super().__init__(module, norm, loss)
        for field, steps in (("inner_steps", inner_steps), ("inner_steps_eval", inner_steps_eval)):
            if steps is not None and (not isinstance(steps, int) or steps < 0):
                raise LearnerError(f"{field} is a number of steps, not {steps!r}")
        self.inner_steps, self.inner_steps_eval, self.first_order = inner_steps, inner_steps_eval, first_order
        self.adapted = self._choose(adapt)
        self.rates = self._rates(inner_lr)

    def parameters(self) -> Parameters:
        """The module's parameters; with learn_inner_lr, then the rates."""
        own = self.body.parameters()
        return {**own, **{RATE + name: r for name, r in self.rates.items()}} if self.learn_inner_lr else own

    def adapt(self, omega: Mapping[str, Tensor], episode: Episode, ways: int) -> Parameters:
        """θ after `inner_steps` gradient steps on the support set; frozen parameters as they are in ω."""
        theta = {name: p for name, p in omega.items() if not name.startswith(RATE)}
        rates = {name: omega.get(RATE + name, rate) for name, rate in self.rates.items()}

        def support_loss(chosen: Parameters) -> Tensor:
            logits = self.predict_at({**theta, **chosen}, episode.support_x)
            if logits.shape[-1] < ways and not self.loss.regression:
                raise LearnerError(f"there are {ways} ways and the model has {logits.shape[-1]} outputs")
            return self.loss(logits, episode.support_y)

        for _ in range(self.inner_steps):
            chosen = {name: theta[name] for name in self.adapted}
            slope = torch.func.grad(support_loss)(chosen)
            if self.first_order:
                slope = {name: g.detach() for name, g in slope.items()}
            step = {name: p - rates[name].to(p) * slope[name] for name, p in chosen.items()}
            theta = {**theta, **step}
        return theta

    def predict(self, theta: Mapping[str, Tensor], episode: Episode, ways: int) -> Tensor:
        """The adapted module's logits on the query set."""
        return self.predict_at(theta, episode.query_x)

    def predict_at(self, theta: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The module's logits at parameters θ, [n, C]."""
        return check_logits(self.body(theta, x), "the model")

    def at_evaluation(self) -> MAML:
        """The same learner with `inner_steps_eval` steps."""
        if self.inner_steps_eval in (None, self.inner_steps):
            return self
        twin = copy.copy(self)
        twin.inner_steps = self.inner_steps_eval
        return twin

    def describe(self) -> dict[str, Any]:
        """The arguments of the constructor, except the module; rates that are tensors only in words."""
        return {
            "learner": self.kind,
            "inner_lr": self._rates_in_words(),
            "inner_steps": self.inner_steps,
            "inner_steps_eval": self.inner_steps_eval,
            "adapt": None if len(self.adapted) == len(self.body.parameters()) else list(self.adapted),
            "norm": self.norm,
            "learn_inner_lr": self.learn_inner_lr,
            "first_order": self.first_order,
            "loss": self.loss.name,
        }

    def refuse_influence(self) -> None:
        """FOMAML does not stop where the gradient of the loss is zero."""
        super().refuse_influence()
        if self.first_order:
            raise LearnerError(
                "first_order=True (FOMAML) does not converge to a stationary point of the outer loss, so influence "
                "through H⁻¹ has no meaning for it; train with first_order=False"
            )

    def _settings(self) -> list[tuple[str, Tensor]]:
        return list(self.rates.items())

    def _rates_in_words(self) -> float | str | dict[str, float | str]:
        if self.learn_inner_lr:
            return "learned"
        each = {
            n: r.item() if r.ndim == 0 else f"tensor of mean {r.mean():.4g}" for n, r in self.rates.items()
        }
        values = set(each.values())
        return values.pop() if len(values) == 1 else each

    def _choose(self, adapt: str | Sequence[str] | Callable[[str], bool] | None) -> tuple[str, ...]:
        names = list(self.body.parameters())
        if adapt is None:
            return tuple(names)
        if callable(adapt):
            chosen = [name for name in names if adapt(name)]
        else:
            if adapt == "head":
                adapt = names[-1].rpartition(".")[0] or names[-1]
            prefixes = [adapt] if isinstance(adapt, str) else list(adapt)
            for prefix in prefixes:
                if not any(_within(name, prefix) for name in names):
                    raise LearnerError(
                        f"adapt names {prefix!r}, and no parameter is called that or lies under it"
                    )
            chosen = [name for name in names if any(_within(name, prefix) for prefix in prefixes)]
        if not chosen:
            raise LearnerError("adapt chooses no parameter")
        return tuple(chosen)

    def _rates(self, inner_lr: float | Mapping[str, float | Tensor]) -> Parameters:
        parameters = self.body.parameters()
        given = inner_lr if isinstance(inner_lr, Mapping) else dict.fromkeys(self.adapted, inner_lr)
        if set(given) != set(self.adapted):
            odd = sorted(set(given) ^ set(self.adapted))[0]
            raise LearnerError(f"inner_lr and the adapted parameters differ: {odd!r} is in one of them only")
        rates = {}
        for name in self.adapted:
            p = parameters[name]
            rate = torch.as_tensor(given[name], dtype=p.dtype, device=p.device).detach()
            try:
                full = rate.expand_as(p)
            except RuntimeError:
                raise LearnerError(
                    f"inner_lr of {name!r} has shape {tuple(rate.shape)}, not {tuple(p.shape)}"
                ) from None
            if not torch.isfinite(rate).all():
                raise LearnerError(f"inner_lr of {name!r} is not finite")
            if (rate < 0).any() and not self.learn_inner_lr:
                raise LearnerError(f"inner_lr of {name!r} is negative, and would climb the support loss")
            rates[name] = full.clone().requires_grad_() if self.learn_inner_lr else rate
        return rates


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
