"""Users' modules: whatever normalises, writes, or draws inside them is right or refused."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tlxml_fast as tlx


def tasks(count: int = 2) -> tlx.TaskSet:
    generator = torch.Generator().manual_seed(0)

    def images(n: int) -> torch.Tensor:
        return torch.randn(n, 1, 4, 4, dtype=torch.float64, generator=generator)

    y, t = torch.arange(6) % 3, torch.arange(9) % 3
    return tlx.TaskSet(tlx.Task(images(6), y, images(9), t) for _ in range(count))


class ChannelsLast(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x) + x


class Functional(nn.Module):
    def forward(self, x):
        return F.instance_norm(F.batch_norm(x, None, None, training=True)) + F.layer_norm(x, x.shape[1:])


def network(middle: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 4, 1), middle, nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    return nn.Sequential(*layers).double()


LEARNERS = {"protonet": tlx.ProtoNet, "maml": lambda module: tlx.MAML(module, 0.3, 2)}


@pytest.mark.parametrize(
    "middle", [ChannelsLast(4), Residual(4), Functional()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_the_exact_hessian_of_any_normalisation_is_the_derivative_of_the_gradient(make, middle):
    learner = make(network(middle))
    lin = tlx.linearize(learner, tasks())
    generator = torch.Generator().manual_seed(2)
    v = torch.randn(lin.q, dtype=torch.float64, generator=generator)
    start, step, slopes = lin.omega.clone(), 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, moved in zip(
                learner.parameters().values(),
                lin.flat.unflatten(start + sign * step * v).values(),
                strict=True,
            ):
                p.copy_(moved)
        slopes.append(tlx.linearize(learner, tasks()).gradients().mean(0))
    differences = (slopes[0] - slopes[1]) / (2 * step)
    assert (lin.hvp(v[None])[0] - differences).norm() <= 1e-6 * differences.norm()


class WritesBuffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("variance", torch.ones(3))

    def forward(self, x):
        z = self.linear(x.flatten(1))
        F.batch_norm(z, self.mean, self.variance, training=True)
        return F.batch_norm(z, self.mean, self.variance, training=False)


def test_what_a_module_writes_to_its_buffers_stays_outside():
    module = WritesBuffers().double()
    lin = tlx.linearize(tlx.ProtoNet(module), tasks())
    assert torch.equal(lin.gradients(), lin.gradients())
    assert torch.equal(module.mean, torch.zeros(3).double())


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 3)

    def forward(self, x):
        return self.linear(x.flatten(1) + torch.rand_like(x.flatten(1)))


def test_a_random_module_is_refused():
    with pytest.raises(tlx.LearnerError, match="random"):
        tlx.TaskInfluence(tlx.ProtoNet(Noisy().double())).fit(tasks())


class Dictionary(nn.Linear):
    def forward(self, x):
        return {"logits": super().forward(x.flatten(1))}


def test_outputs_of_another_kind_are_named():
    with pytest.raises(tlx.LearnerError, match=r"maps 15 examples to dict"):
        tlx.linearize(tlx.ProtoNet(Dictionary(16, 3).double()), tasks())


def test_parameters_that_changed_since_fit_are_noticed():
    learner = tlx.ProtoNet(network(nn.Identity()))
    influence = tlx.TaskInfluence(learner).fit(tasks())
    with torch.no_grad():
        next(iter(learner.parameters().values())).add_(1)
    with pytest.raises(tlx.LearnerError, match="changed since fit"):
        influence.scores(tasks())


def test_forward_mode_from_several_threads_is_right():
    lin = tlx.linearize(tlx.MAML(network(nn.Identity()), 0.3, 2), tasks())
    v = torch.ones(1, lin.q, dtype=torch.float64)
    products = [lin.gnvp, lin.hvp, lambda V: lin.jvp(V)]
    alone = [product(v) for product in products]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda i: products[i % 3](v), range(12)))
    assert all(torch.equal(result, alone[i % 3]) for i, result in enumerate(together))
