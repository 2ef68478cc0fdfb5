"""A learner that is a plain function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import LearnerError
from .base import Episode, Learner, Parameters
from .body import check_logits

QueryLogits = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


class FunctionLearner(Learner):
    """f = query_logits(params, support_x, support_y, query_x): adaptation and prediction in one, by torch.func.

    query_logits  pure: support [m, *features] and its labels [m], query [n, *features] → logits [n, C], differentiable
                  by torch.func in `params`, at least twice (three times for the exact Hessian)
    params        a tensor, or dicts, lists and tuples of them, nested: the meta-parameters ω, in that order. The names
                  are their paths, such as "layers.0.weight"; `meta_train` needs leaves that require gradients
    loss          as of `MAML`

    The kernels know nothing of such a function: it runs on the reference. I_adpt is not defined for it, since it does
    not say what its adapted parameters are. Raises LearnerError for leaves that are no tensors of real numbers.
    """

    kind = "function"

    def __init__(self, query_logits: QueryLogits, params: Any, loss: str = "cross_entropy"):
        if not callable(query_logits):
            raise LearnerError(
                f"query_logits is a function of (params, support_x, support_y, query_x), not {query_logits!r}"
            )
        self.function, self.tree = query_logits, params
        self._leaves = dict(_walk(params, ()))
        for name, leaf in self._leaves.items():
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
                kind = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                raise LearnerError(f"parameter {name or 'params'!r} is a tensor of real numbers, not {kind}")
        super().__init__(nn.Module(), "batch", loss)

    def parameters(self) -> Parameters:
        """The leaves of `params` by their paths."""
        return dict(self._leaves)

    def adapt(self, omega: Mapping[str, Tensor], episode: Episode, ways: int) -> Parameters:
        """Raises LearnerError."""
        raise LearnerError("a function from tasks to logits does not say what its adapted parameters are")

    def predict(self, theta: Mapping[str, Tensor], episode: Episode, ways: int) -> Tensor:
        """Raises LearnerError."""
        raise LearnerError("a function from tasks to logits does not say what its adapted parameters are")

    def query_logits(self, omega: Mapping[str, Tensor], episode: Episode, ways: int) -> Tensor:
        """The function itself, [n, C]."""
        params = _built(self.tree, iter(omega.values()))
        return check_logits(
            self.function(params, episode.support_x, episode.support_y, episode.query_x), "the function"
        )

    def describe(self) -> dict[str, Any]:
        """The function's name and the loss; the function itself cannot be written down."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return {"learner": self.kind, "function": name, "loss": self.loss.name}

    def notes(self) -> list[str]:
        """Says who answers for the function."""
        return [
            f"the logits are those of the function {self.describe()['function']}, whose adaptation is not checked"
        ]


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of every leaf, in order."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _walk(value, (*path, str(key)))
    elif isinstance(tree, (list, tuple)):
        for i, value in enumerate(tree):
            yield from _walk(value, (*path, str(i)))
    else:
        yield ".".join(path), tree


def _built(tree: Any, leaves: Iterator[Tensor]) -> Any:
    """The same tree with other leaves."""
    if isinstance(tree, Mapping):
        return type(tree)((key, _built(value, leaves)) for key, value in tree.items())
    if isinstance(tree, (list, tuple)):
        values = [_built(value, leaves) for value in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    return next(leaves)
