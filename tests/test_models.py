"""The standard models have the field's exact layers."""

import pytest
import torch

from tlxml_fast import LearnerError, models


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("hidden", "channels", "side", "parameters", "features"),
    [(32, 1, 28, 28_320, 32), (64, 1, 28, 111_936, 64), (32, 3, 84, 28_896, 800), (64, 3, 84, 113_088, 1600)],
)
def test_conv4_backbone(hidden, channels, side, parameters, features):
    encoder = models.conv4(hidden, channels, side)
    assert size(encoder) == parameters
    assert encoder(torch.rand(2, channels, side, side)).shape == (2, features)


def test_conv4_with_classifier():
    assert size(models.conv4(32, ways=5)) == 28_320 + 32 * 5 + 5


def test_conv4_refuses_an_image_that_halves_to_nothing():
    with pytest.raises(LearnerError, match="8×8 is too small"):
        models.conv4(image_size=8)


def test_mlp_of_the_paper():
    assert size(models.mlp(34, 32, 5)) == 1_285


def test_seed_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    a, b = models.mlp(3, 4, 2, seed=7), models.mlp(3, 4, 2, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_mlp_with_another_activation():
    module = models.from_spec(models.mlp(3, (4, 4), 2, activation="tanh").spec)
    assert [type(layer) for layer in module].count(torch.nn.Tanh) == 2
    with pytest.raises(LearnerError, match="activation is one of relu, tanh, gelu, not 'swish'"):
        models.mlp(3, 4, 2, activation="swish")


@pytest.mark.parametrize("module", [models.conv4(3, 2, 16, ways=4), models.mlp(6, (5, 4), 3)])
def test_a_description_rebuilds_the_model(module):
    twin = models.from_spec(module.spec)
    assert {n: p.shape for n, p in twin.named_parameters()} == {
        n: p.shape for n, p in module.named_parameters()
    }


@pytest.mark.parametrize("spec", [{"model": "vgg"}, {"model": "mlp", "depth": 3}, {}])
def test_an_unknown_description_is_refused(spec):
    with pytest.raises(LearnerError):
        models.from_spec(spec)
