"""A plain function is linearized and explained as the learner that it is."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tlxml_fast as tlx
from tlxml_fast import FunctionLearner, LearnerError, linearize_fn

POOL = tlx.data.digits("all")
MODULE = tlx.models.mlp(64, 3, 3, seed=0, activation="tanh").double()


class Layer(NamedTuple):
    weight: Tensor
    bias: Tensor


def maml(params, support_x, support_y, query_x):
    """MAML by hand, one step, over nested parameters."""

    def forward(p, x):
        h = torch.tanh(x.flatten(1) @ p["body"][0].weight.T + p["body"][0].bias)
        return h @ p["head"].weight.T + p["head"].bias

    flat = {
        "a": params["body"][0].weight,
        "b": params["body"][0].bias,
        "c": params["head"].weight,
        "d": params["head"].bias,
    }

    def nested(f):
        return {"body": [Layer(f["a"], f["b"])], "head": Layer(f["c"], f["d"])}

    slope = torch.func.grad(lambda f: F.cross_entropy(forward(nested(f), support_x), support_y))(flat)
    return forward(nested({k: v - 0.5 * slope[k] for k, v in flat.items()}), query_x)


def params():
    p = {name: t.detach() for name, t in MODULE.named_parameters()}
    return {
        "body": [Layer(p["linear1.weight"], p["linear1.bias"])],
        "head": Layer(p["classifier.weight"], p["classifier.bias"]),
    }


def tasks(count=4, seed=0):
    return POOL.sample(count, ways=3, shots=1, queries=2, seed=seed)


def test_a_function_is_linearized_as_the_learner_that_it_is():
    ours, theirs = linearize_fn(maml, params(), tasks()), tlx.linearize(tlx.MAML(MODULE, 0.5), tasks())
    V = torch.randn(3, ours.q, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert list(ours.flat.shapes) == ["body.0.0", "body.0.1", "head.0", "head.1"]
    for name in ("gnvp", "hvp", "jvp"):
        torch.testing.assert_close(getattr(ours, name)(V), getattr(theirs, name)(V))
    torch.testing.assert_close(ours.gradients(), theirs.gradients())
    assert ours.report.backend == "reference"
    assert "no learner of class FunctionLearner" in ours.report.reason


def test_its_influence_is_the_learners():
    scores = [
        tlx.TaskInfluence(learner, inverse=tlx.Dense(0.1)).fit(tasks()).scores(tasks(2, seed=1))
        for learner in (FunctionLearner(maml, params()), tlx.MAML(MODULE, 0.5))
    ]
    torch.testing.assert_close(scores[0].values, scores[1].values)
    assert any("function maml" in note for note in scores[0].info["notes"])


def test_a_single_tensor_is_a_tree():
    def linear(weight, support_x, support_y, query_x):
        return query_x.flatten(1) @ weight

    lin = linearize_fn(linear, torch.zeros(64, 3, dtype=torch.float64), tasks())
    assert lin.q == 192
    assert torch.equal(lin.logits, torch.zeros(4, 6, 3, dtype=torch.float64))


def test_it_can_be_meta_trained():
    given = {name: t.detach().clone().requires_grad_() for name, t in MODULE.named_parameters()}
    learner = FunctionLearner(lambda p, sx, sy, qx: torch.func.functional_call(MODULE, p, qx), given)
    first = next(iter(given))
    given[first].requires_grad_(False)
    with pytest.raises(LearnerError, match=f"parameter '{first}' asks for no gradient; call requires_grad_"):
        tlx.meta_train(learner, tasks(), steps=1, progress=False)
    given[first].requires_grad_()
    before = tlx.evaluate(learner, tasks()).loss
    tlx.meta_train(learner, tasks(), steps=20, batch_size=4, lr=1e-2, progress=False)
    assert tlx.evaluate(learner, tasks()).loss < before


def test_what_is_not_defined_is_refused():
    influence = tlx.TaskInfluence(FunctionLearner(maml, params()), inverse=tlx.Dense(0.1)).fit(tasks())
    with pytest.raises(LearnerError, match="does not say what its adapted parameters are"):
        influence.adaptation(tasks()[0], 0)


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        (maml, {"a": torch.arange(3)}, "parameter 'a' is a tensor of real numbers, not torch.int64"),
        (maml, {"a": [1.0]}, r"parameter 'a\.0' is a tensor of real numbers, not float"),
        (maml, {}, "has no trainable parameters"),
        ("maml", {"a": torch.ones(1)}, "query_logits is a function of"),
    ],
)
def test_what_is_no_function_of_tensors_is_refused(function, given, message):
    with pytest.raises(LearnerError, match=message):
        FunctionLearner(function, given)


def test_outputs_that_are_no_logits_are_refused():
    with pytest.raises(LearnerError, match=r"the function gives outputs of shape \(6,\)"):
        linearize_fn(lambda p, sx, sy, qx: qx.flatten(1) @ p, torch.zeros(64, dtype=torch.float64), tasks())
