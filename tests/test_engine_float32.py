"""The engine in float32: near its own float64 at the same ReLU and pooling choices; flips are counted."""

from __future__ import annotations

import pytest
import torch
from choices import nearest, recorded, replayed, separation
from nets import LEARNERS, NETS, crossed, images, learner, normal, products, some_tasks
from oracle import relative_error
from torch import Tensor, nn

import tlxml_fast as tlx
from tlxml_fast.ops import native_available

pytestmark = [
    pytest.mark.skipif(not native_available(), reason="no core"),
    pytest.mark.usefixtures("one_thread"),
]
ROUNDING = 2e-4


def computed(learner: tlx.Learner, tasks: list[tlx.Task], dtype: torch.dtype) -> dict[str, Tensor]:
    """All that the engine itself computes: an exact Hessian left to the reference would make its own choices."""
    lin = tlx.linearize(learner, tasks, "native", dtype, strict=True)
    return products(lin, hvp=lin.passes.no_third_derivative() is None)


def error(got: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    return max(relative_error(got[name], want[name]) for name in want)


@pytest.mark.parametrize(("net", "kind"), crossed(but=["mlp"]))
def test_near_float64_at_its_own_choices(net, kind, record_property):
    made, tasks = learner(net, kind), some_tasks(net, kind, count=1)
    with recorded() as choices:
        got = computed(made, tasks, torch.float32)
    with replayed(choices) as replay:
        want = computed(made, tasks, torch.float64)
    record_property("choices", replay.choices)
    record_property("flips", replay.flips)
    assert error(got, want) <= ROUNDING, f"with {replay.flips} of {replay.choices} choices flipped"


@pytest.mark.parametrize("kind", LEARNERS)
def test_near_float64_where_no_choice_is_near(kind, record_property):
    """An MLP may run in one kernel, whose choices nobody sees: on the tasks that stay clear of kinks."""
    made, tasks = learner("mlp", kind), some_tasks("mlp", kind, count=6)
    clear = [task for task in tasks if nearest(made, task) > 1e-4 and separation(made, task) > 1e-3]
    record_property("tasks left out", len(tasks) - len(clear))
    assert len(clear) >= 4, "few tasks are left: another seed"
    got, want = (computed(made, clear, dtype) for dtype in (torch.float32, torch.float64))
    assert error(got, want) <= ROUNDING


def on_a_kink() -> tuple[tlx.Learner, list[tlx.Task]]:
    """A bias that puts one support pre-activation so near to zero that float32 and float64 choose otherwise."""
    module = images(nn.Conv2d(2, 5, 1), nn.ReLU(), features=5)
    made, tasks = tlx.MAML(module, 0.1, 5), some_tasks("one pixel")
    weight, bias = module[0].weight, module[0].bias
    nn.utils.vector_to_parameters(normal(33, seed=4).float(), module.parameters())
    for channel in range(5):
        for x in tasks[0].support_x:
            before = bias.detach().clone()
            with torch.no_grad():
                bias[channel] = -(weight[channel].double() * x).sum()
            with recorded() as choices:
                _ = tlx.linearize(made, tasks, dtype=torch.float32).logits
            with replayed(choices) as replay:
                _ = tlx.linearize(made, tasks, dtype=torch.float64).logits
            if replay.flips:
                return made, tasks
            bias.data = before
    pytest.skip("no float32 value of a bias makes float32 choose otherwise here")


def test_a_flip_is_counted_and_is_no_error():
    """Compared at float64's own choices, the same run would be wrong by more than rounding."""
    made, tasks = on_a_kink()
    with recorded() as choices:
        got = computed(made, tasks, torch.float32)
    with replayed(choices) as replay:
        want = computed(made, tasks, torch.float64)
    assert 0 < replay.flips < replay.choices / 10
    assert error(got, want) <= ROUNDING
    assert error(got, computed(made, tasks, torch.float64)) > 10 * ROUNDING


@pytest.mark.parametrize("net", [net for net in NETS if "mlp" not in net])
def test_own_choices_replayed_change_nothing(net):
    made, tasks = learner(net, "maml, 1 step"), some_tasks(net, count=1)
    with recorded() as choices:
        got = computed(made, tasks, torch.float64)
    with replayed(choices) as replay:
        again = computed(made, tasks, torch.float64)
    assert replay.flips == 0
    assert error(again, got) <= 1e-12
