"""A checkpoint gives back the same learner, with the same ω, or says why it cannot."""

import pytest
import torch
from torch import nn

import tlxml_fast as tlx
from tlxml_fast import CheckpointError, models
from tlxml_fast.files import read_tensors, write_tensors


def frozen() -> nn.Module:
    module = models.mlp(6, 5, 3, seed=0)
    module.linear1.requires_grad_(False)
    return module


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("make", [tlx.MAML, tlx.ProtoNet, lambda m: tlx.MAML(m, learn_inner_lr=True)])
def test_frozen_parameters_stay_frozen(tmp_path, make, given):
    learner = make(frozen())
    tlx.save_checkpoint(tmp_path / "c", learner)
    twin = tlx.load_checkpoint(tmp_path / "c", models.mlp(6, 5, 3) if given else None)
    assert list(twin.parameters()) == list(learner.parameters())
    assert [p.requires_grad for p in twin.module.parameters()] == [False, False, True, True]


def test_parameters_that_were_trained_thaw_in_a_given_module(tmp_path):
    tlx.save_checkpoint(tmp_path / "c", tlx.MAML(models.mlp(6, 5, 3)))
    twin = tlx.load_checkpoint(tmp_path / "c", frozen())
    assert all(p.requires_grad for p in twin.module.parameters())


def test_an_edited_layer_is_not_forgotten(tmp_path):
    module = models.mlp(6, 5, 3, seed=0)
    module.relu1 = nn.Tanh()
    tlx.save_checkpoint(tmp_path / "c", tlx.MAML(module))
    with pytest.raises(CheckpointError, match="give such a module"):
        tlx.load_checkpoint(tmp_path / "c")
    with pytest.raises(
        CheckpointError, match=r"another architecture: '\(relu1\): Tanh\(\)' in the checkpoint"
    ):
        tlx.load_checkpoint(tmp_path / "c", models.mlp(6, 5, 3))
    other = models.mlp(6, 5, 3)
    other.relu1 = nn.Tanh()
    twin = tlx.load_checkpoint(tmp_path / "c", other).module
    x = torch.randn(4, 6)
    assert torch.equal(twin(x), module(x))


def test_saving_draws_no_random_numbers(tmp_path):
    learner = tlx.MAML(models.mlp(6, 5, 3))
    before = torch.get_rng_state()
    tlx.save_checkpoint(tmp_path / "c", learner)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_foreign_spec_is_not_ours(tmp_path):
    module = nn.Linear(2, 3)
    module.spec = {"name": "mine"}
    tlx.save_checkpoint(tmp_path / "c", tlx.MAML(module))
    assert read_tensors(tmp_path / "c", "checkpoint")[1]["module"] is None


def test_tied_weights_come_back(tmp_path):
    def tied() -> nn.Module:
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        module[1].weight = module[0].weight
        return module

    module = tied()
    tlx.save_checkpoint(tmp_path / "c", tlx.MAML(module))
    twin = tlx.load_checkpoint(tmp_path / "c", tied()).module
    assert twin[0].weight is twin[1].weight
    assert torch.equal(twin[0].weight, module[0].weight)


@pytest.mark.parametrize(
    "change",
    [
        {"learner": None},
        {"learner": {"learner": "maml", "stepz": 3}},
        {"module": 3},
        {"module": {"model": "mlp", "in_features": None, "hidden": 1, "out_features": 2}},
        {"trainable": 1},
        {"module": None, "module_class": "M"},
    ],
)
def test_a_malformed_header_is_named(tmp_path, change):
    tlx.save_checkpoint(tmp_path / "c", tlx.MAML(models.mlp(6, 5, 3)))
    tensors, header = read_tensors(tmp_path / "c", "checkpoint")
    write_tensors(tmp_path / "odd", "checkpoint", tensors, header | change)
    with pytest.raises(CheckpointError, match="odd"):
        tlx.load_checkpoint(tmp_path / "odd")


def test_a_header_that_is_empty_or_old(tmp_path):
    tlx.save_checkpoint(tmp_path / "c", tlx.MAML(frozen()))
    tensors, header = read_tensors(tmp_path / "c", "checkpoint")
    write_tensors(tmp_path / "empty", "checkpoint", tensors, {})
    with pytest.raises(CheckpointError, match="empty"):
        tlx.load_checkpoint(tmp_path / "empty")
    del header["trainable"], header["module_repr"]
    write_tensors(tmp_path / "old", "checkpoint", tensors, header)
    given = frozen()
    assert list(tlx.load_checkpoint(tmp_path / "old", given).parameters()) == [
        "classifier.weight",
        "classifier.bias",
    ]
