"""Meta-training: reproducible, resumable, and honest about what it minimised."""

import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast import models
from tlxml_fast.training import _draw


def digits(count: int, split: str = "train", shots: int = 2, queries: int = 3) -> tlx.TaskSet:
    return tlx.data.digits(split).sample(count, ways=3, shots=shots, queries=queries, seed=0)


def mlp_maml(**settings) -> tlx.MAML:
    return tlx.MAML(models.mlp(64, 8, 3, seed=0), 0.1, **settings)


def state(learner: tlx.Learner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.parameters().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


LEARNERS = {
    "maml": mlp_maml,
    "anil": lambda: mlp_maml(adapt="head"),
    "meta-sgd": lambda: mlp_maml(learn_inner_lr=True),
    "fomaml": lambda: mlp_maml(first_order=True),
    "protonet": lambda: tlx.ProtoNet(models.mlp(64, 8, 4, seed=0), "cosine", scale=3.0),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_training_lowers_the_loss_and_repeats_itself(make):
    first, second = make(), make()
    before = tlx.evaluate(first, digits(20)).loss
    for learner in (first, second):
        tlx.meta_train(learner, digits(20), steps=30, batch_size=4, lr=1e-2, progress=False)
    assert tlx.evaluate(first, digits(20)).loss < before
    assert same(state(first), state(second))


def test_training_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    tlx.meta_train(mlp_maml(), digits(4), steps=2, batch_size=2, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_run_ends_bit_for_bit_the_same(tmp_path, optimizer):
    settings = {
        "steps": 9,
        "batch_size": 2,
        "optimizer": optimizer,
        "schedule": "cosine",
        "weight_decay": 1e-3,
        "progress": False,
    }
    whole, stopped = mlp_maml(learn_inner_lr=True), mlp_maml(learn_inner_lr=True)
    tlx.meta_train(whole, digits(8), **settings)

    tasks = digits(8)
    calls = iter(range(11))

    def until_stopped(index: int) -> tlx.Task:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return tasks[index]

    path = tmp_path / "c.safetensors"
    lazy = tlx.TaskSet.lazy(until_stopped, 8)
    with pytest.raises(KeyboardInterrupt):
        tlx.meta_train(stopped, lazy, checkpoint=path, checkpoint_every=2, **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]

    fresh = mlp_maml(learn_inner_lr=True)
    tlx.meta_train(fresh, digits(8), checkpoint=path, resume=True, **settings)
    assert same(state(fresh), state(whole))


def test_resuming_with_other_settings_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    tlx.meta_train(mlp_maml(), digits(4), steps=2, progress=False, checkpoint=path)
    with pytest.raises(tlx.CheckpointError, match=r"trained with lr=0\.001, not 0\.1"):
        tlx.meta_train(mlp_maml(), digits(4), steps=2, lr=0.1, progress=False, checkpoint=path, resume=True)


def test_batches_depend_on_seed_and_step_alone():
    assert _draw(0, 3, 10**9, 4).tolist() == _draw(0, 3, 10**9, 4).tolist()
    assert _draw(0, 3, 100, 4).tolist() != _draw(0, 4, 100, 4).tolist()
    assert sorted(_draw(0, 0, 5, 16).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "make", [*LEARNERS.values(), lambda: tlx.ProtoNet(models.conv4(2, 1, 16, seed=0).double())]
)
def test_a_checkpoint_restores_bit_for_bit(tmp_path, make):
    learner = make()
    learner.weight_decay, learner.training = 1e-4, {"tasks": 3}
    tlx.save_checkpoint(tmp_path / "c", learner)
    twin = tlx.load_checkpoint(tmp_path / "c")
    assert same(state(learner), state(twin))
    assert same(learner.module.state_dict(), twin.module.state_dict())
    assert (twin.describe(), twin.weight_decay, twin.training) == (learner.describe(), 1e-4, {"tasks": 3})


def test_a_checkpoint_of_a_users_module_needs_the_module(tmp_path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    tlx.save_checkpoint(tmp_path / "c", tlx.MAML(module))
    with pytest.raises(tlx.CheckpointError, match=r"Sequential; give such a module"):
        tlx.load_checkpoint(tmp_path / "c")
    twin = tlx.load_checkpoint(
        tmp_path / "c", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    )
    assert torch.equal(twin.module[1].weight, module[1].weight)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            models.mlp(64, 9, 3),
            r"'linear1.weight' is \(8, 64\) torch.float32 in the checkpoint and \(9, 64\)",
        ),
        (models.mlp(64, (8, 8), 3), "'linear2.weight' is in the module only"),
        (models.mlp(64, 8, 3).double(), "torch.float64 in the module"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, other, words):
    tlx.save_checkpoint(tmp_path / "c", mlp_maml())
    with pytest.raises(tlx.CheckpointError, match=words):
        tlx.load_checkpoint(tmp_path / "c", other)


def test_weight_decay_is_recorded_and_adamw_warns():
    learner = mlp_maml()
    tlx.meta_train(learner, digits(4), steps=1, weight_decay=1e-2, progress=False)
    assert learner.weight_decay == 1e-2
    with pytest.warns(tlx.InfluenceWarning, match="decoupled"):
        tlx.meta_train(learner, digits(4), steps=1, weight_decay=1e-2, optimizer="adamw", progress=False)
    assert learner.weight_decay is None


def test_only_training_changes_running_statistics():
    learner = tlx.ProtoNet(models.conv4(2, 1, 16, seed=0), norm="running")
    images = tlx.TaskSet(
        tlx.Task(torch.rand(6, 1, 16, 16), torch.arange(6) % 3, torch.rand(6, 1, 16, 16), torch.arange(6) % 3)
        for _ in range(3)
    )
    with pytest.raises(tlx.LearnerError, match="never saw a batch"):
        tlx.evaluate(learner, images)
    tlx.meta_train(learner, images, steps=2, batch_size=2, progress=False)
    buffers = {name: b.clone() for name, b in learner.module.named_buffers()}
    assert int(buffers["block1.norm.num_batches_tracked"]) == 4
    tlx.evaluate(learner, images)
    tlx.TaskInfluence(learner).fit(images).scores(images)
    assert same(buffers, dict(learner.module.named_buffers()))


def test_a_loss_that_is_not_finite_names_the_task():
    learner = tlx.MAML(models.mlp(64, 8, 3, seed=0), 1e30, 3)
    with pytest.raises(tlx.TaskError, match=r"the loss of task '.+' is nan|inf"):
        tlx.meta_train(learner, digits(4), steps=1, progress=False)


def test_held_out_accuracy_has_an_interval():
    learner = mlp_maml()
    history = tlx.meta_train(
        learner, digits(6), steps=4, val_tasks=digits(10, "test"), val_every=2, progress=False
    )
    assert [entry["step"] for entry in history] == [2, 4]
    assert learner.training["history"] == history
    result = tlx.evaluate(learner, digits(10, "test"))
    assert history[-1]["accuracy"] == result.accuracy
    assert 0 < result.accuracy_interval < 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "lbfgs"}, "optimizer is one of"),
        ({"schedule": "linear"}, "schedule is one of"),
        ({"lr": 0.0}, "lr is positive"),
        ({"lr": float("nan")}, "lr is positive"),
        ({"steps": 0}, "steps is at least 1"),
        ({"weight_decay": -1.0}, "weight_decay is at least 0"),
    ],
)
def test_bad_settings_are_one_sentence(settings, words):
    with pytest.raises(tlx.LearnerError, match=words):
        tlx.meta_train(mlp_maml(), digits(2), progress=False, **settings)
