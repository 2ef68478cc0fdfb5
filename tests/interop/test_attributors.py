"""dattri's and captum's calls give I_perf in their orientation and sign, and their metrics apply."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

import tlxml_fast as tlx
from tlxml_fast.experiments.statistics import linear_datamodelling_score
from tlxml_fast.interop import captum_influence, dattri_attributor

POOL = tlx.data.digits("all")
TRAIN = tlx.TaskSet(POOL.sample(6, ways=3, shots=1, queries=2, seed=0))
TEST = tlx.TaskSet(POOL.sample(3, ways=3, shots=1, queries=2, seed=1))


def unfitted():
    learner = tlx.MAML(tlx.models.mlp(64, 3, 3, seed=0).double(), 0.5)
    return tlx.TaskInfluence(learner, inverse=tlx.Dense(0.1))


def loader(tasks):
    return DataLoader(tasks, batch_size=2, collate_fn=list)


@pytest.mark.parametrize("given", [lambda tasks: tasks, list, loader], ids=["set", "list", "loader"])
def test_dattris_attributor(given):
    base = pytest.importorskip("dattri.algorithm.base")
    attributor = dattri_attributor(unfitted())
    assert isinstance(attributor, base.BaseAttributor)
    attributor.cache(given(TRAIN))
    found = attributor.attribute(given(TRAIN[:4]), given(TEST))
    expected = unfitted().fit(TRAIN).scores(TEST).values[:, :4]
    torch.testing.assert_close(found, -expected.mT)


def test_dattris_datamodelling_score_is_ours():
    metric = pytest.importorskip("dattri.metric")
    attributor = dattri_attributor(unfitted())
    attributor.cache(TRAIN)
    score, g = attributor.attribute(TRAIN, TEST), torch.Generator().manual_seed(0)
    subsets = torch.stack([torch.randperm(6, generator=g)[:3] for _ in range(10)])
    losses = torch.rand(10, 3, generator=g, dtype=torch.float64)
    theirs = metric.lds(score, (-losses, subsets))[0]
    kept = torch.zeros(10, 6, dtype=torch.bool).scatter_(1, subsets, True)
    ours = linear_datamodelling_score(-score.mT.numpy(), kept.numpy(), losses.numpy())
    torch.testing.assert_close(theirs, torch.from_numpy(ours))


def test_captums_influence():
    captum = pytest.importorskip("captum.influence")
    made = captum_influence(unfitted().fit(TRAIN))
    assert isinstance(made, captum.DataInfluence)
    scores = unfitted().fit(TRAIN).scores(TEST)
    torch.testing.assert_close(made.influence(TEST), -scores.values)
    for proponents, ranking in ((True, scores.helpful(2)), (False, scores.harmful(2))):
        indices, values = made.influence(list(TEST), k=2, proponents=proponents)
        assert torch.equal(indices, ranking.indices)
        torch.testing.assert_close(values, -ranking.values)
    own = unfitted().fit(TRAIN).scores(TRAIN).values.diagonal()
    torch.testing.assert_close(made.self_influence(TRAIN), -own)
    margins = made.influence(TEST, target="margin")
    torch.testing.assert_close(margins, unfitted().fit(TRAIN).scores(TEST, target="margin").values)
