"""Learners from other libraries' wrappers: objects shaped as theirs, and predictions computed as theirs."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import tlxml_fast as tlx
from tlxml_fast import CheckpointError, LearnerError, parse_learner
from tlxml_fast.learners import Episode


def net(outputs: int = 3) -> nn.Sequential:
    return tlx.models.mlp(4, 5, outputs, seed=0, activation="tanh").double()


def conv() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).double()


class L2LMAML(nn.Module):
    """As learn2learn's: clone, then adapt(loss) steps along its gradient."""

    def __init__(self, model, lr, first_order=False):
        super().__init__()
        self.module, self.lr, self.first_order = model, lr, first_order

    def forward(self, x):
        return self.module(x)

    def clone(self):
        return L2LMAML(copy.deepcopy(self.module), self.lr, self.first_order)

    def adapt(self, loss):
        for p, g in zip(
            self.module.parameters(),
            torch.autograd.grad(loss, list(self.module.parameters())),
            strict=True,
        ):
            p.data = p.data - self.lr * g


class L2LMetaSGD(L2LMAML):
    """As learn2learn's, without `lr`."""

    def __init__(self, model, lr=1.0, first_order=False):
        super().__init__(model, lr, first_order)
        del self.lr
        self.lrs = nn.ParameterList([nn.Parameter(torch.full_like(p, lr)) for p in model.parameters()])


class TorchmetaModel(nn.Module):
    """As torchmeta's MetaModule: a body that is not adapted, and a head that is."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 3)

    def meta_named_parameters(self, prefix="", recurse=True):
        return ((n, p) for n, p in self.named_parameters() if n.startswith("head"))

    def get_subdict(self, params, key=None):
        return params

    def forward(self, x, params=None):
        return self.head(self.body(x).tanh())


class MetaLinear(nn.Linear):
    """As torchmeta's layers, which are not torch's own and take parameters in their place."""

    def meta_named_parameters(self, prefix="", recurse=True):
        return self.named_parameters(prefix, recurse)

    def forward(self, x, params=None):
        params = dict(self.named_parameters()) if params is None else params
        return nn.functional.linear(x, params["weight"], params.get("bias"))


class MetaSequential(nn.Sequential):
    """As torchmeta's."""

    def meta_named_parameters(self, prefix="", recurse=True):
        return self.named_parameters(prefix, recurse)

    def get_subdict(self, params, key=None):
        return None if params is None else {k.removeprefix(f"{key}."): v for k, v in params.items()}

    def forward(self, x, params=None):
        for name, module in self._modules.items():
            meta = hasattr(module, "meta_named_parameters")
            x = module(x, params=self.get_subdict(params, name)) if meta else module(x)
        return x


class FewShotClassifier(nn.Module):
    """As easyfsl's base."""

    def __init__(self, backbone, use_softmax=False, feature_centering=None, feature_normalization=None):
        super().__init__()
        self.backbone, self.use_softmax = backbone, use_softmax
        self.feature_centering = torch.tensor(0) if feature_centering is None else feature_centering
        self.feature_normalization = feature_normalization

    def compute_features(self, images):
        z = self.backbone(images) - self.feature_centering
        return (
            z if self.feature_normalization is None else F.normalize(z, p=self.feature_normalization, dim=1)
        )

    def process_support_set(self, images, labels):
        z = self.compute_features(images)
        self.prototypes = torch.stack([z[labels == c].mean(0) for c in labels.unique()])


class PrototypicalNetworks(FewShotClassifier):
    def forward(self, query):
        return -torch.cdist(self.compute_features(query), self.prototypes)


class MatchingNetworks(FewShotClassifier):
    pass


def task(features=(4,)) -> tlx.Task:
    g = torch.Generator().manual_seed(1)
    y = torch.arange(3).repeat(2)
    x = torch.randn(2, 6, *features, generator=g, dtype=torch.float64)
    return tlx.Task(x[0], y, x[1], y)


def predicted(learner: tlx.learners.Learner, t: tlx.Task) -> torch.Tensor:
    omega = {n: p.detach() for n, p in learner.parameters().items()}
    return learner.query_logits(omega, Episode.of(t, torch.float64, torch.device("cpu")), t.ways)


def test_a_learner_is_returned_as_it_is():
    learner = tlx.MAML(net())
    assert parse_learner(learner) is learner


def test_learn2learns_maml_predicts_as_it_does():
    theirs, t = L2LMAML(net(), 0.3), task()
    learner = parse_learner(theirs, inner_steps=2)
    clone = theirs.clone()
    for _ in range(2):
        clone.adapt(F.cross_entropy(clone(t.support_x), t.support_y))
    torch.testing.assert_close(predicted(learner, t), clone(t.query_x))
    assert learner.describe()["inner_lr"] == pytest.approx(0.3)


def test_first_order_gets_its_own_error():
    learner = parse_learner(L2LMAML(net(), 0.3, first_order=True), inner_steps=1)
    with pytest.raises(LearnerError, match="does not converge to a stationary point"):
        tlx.linearize(learner, [task()])


def test_learn2learns_meta_sgd_has_its_rates():
    theirs = L2LMetaSGD(net(), 0.2)
    with torch.no_grad():
        theirs.lrs[1].fill_(0.7)
    learner = parse_learner(theirs, inner_steps=1)
    assert len(learner.parameters()) == 2 * len(theirs.lrs)
    assert learner.parameters()["inner_lr.linear1.bias"].unique().tolist() == [0.7]
    theirs.lrs = theirs.lrs[:-1]
    with pytest.raises(LearnerError, match="has 3 rates for 4 parameters"):
        parse_learner(theirs, inner_steps=1)


def test_torchmeta_adapts_its_meta_parameters():
    learner = parse_learner(TorchmetaModel(), inner_lr=0.1, inner_steps=1)
    assert learner.adapted == ("head.weight", "head.bias")
    assert len(learner.parameters()) == 4


def test_torchmetas_layers_go_through_the_engine():
    net = MetaSequential(MetaLinear(4, 5), nn.ReLU(), MetaSequential(MetaLinear(5, 3))).double()
    learner = parse_learner(net, inner_lr=0.1, inner_steps=1)
    reference = tlx.linearize(learner, [task()], "reference")
    ours = tlx.linearize(learner, [task()], "native", strict=True)
    V = torch.eye(ours.q, dtype=torch.float64)
    torch.testing.assert_close(ours.gnvp(V), reference.gnvp(V))


@pytest.mark.parametrize("centre", [None, torch.linspace(-1, 1, 3, dtype=torch.float64)])
@pytest.mark.parametrize("p", [None, 1.0, 2.0])
def test_easyfsls_prototypical_networks_predict_as_they_do(centre, p):
    theirs, t = PrototypicalNetworks(net(), feature_centering=centre, feature_normalization=p), task()
    theirs.process_support_set(t.support_x, t.support_y)
    learner = parse_learner(theirs)
    torch.testing.assert_close(predicted(learner, t), theirs(t.query_x), rtol=1e-6, atol=1e-6)
    assert len(learner.parameters()) == 4


def test_easyfsls_other_classifiers_are_not_mistaken():
    with pytest.raises(LearnerError, match="a MatchingNetworks is no learner that is known here"):
        parse_learner(MatchingNetworks(net()))
    with pytest.raises(LearnerError, match="its outputs are probabilities"):
        parse_learner(PrototypicalNetworks(net(), use_softmax=True))


def test_a_module_alone_can_be_read_in_two_ways():
    with pytest.raises(LearnerError, match="give kind='maml' or kind='protonet'"):
        parse_learner(net())
    assert isinstance(parse_learner(net(), kind="maml", inner_lr=0.1, inner_steps=1), tlx.MAML)
    assert isinstance(parse_learner(net(), kind="protonet", scale=2.0), tlx.ProtoNet)


def test_statistics_are_as_the_layers_are_set():
    module = conv()
    assert parse_learner(module, kind="protonet").norm == "batch"
    assert parse_learner(module.eval(), kind="protonet").norm == "running"
    assert parse_learner(module, kind="protonet", norm="batch").norm == "batch"
    both = nn.Sequential(OrderedDict(a=conv()[:2].train(), b=nn.BatchNorm2d(2).eval()))
    with pytest.raises(LearnerError, match="give norm="):
        parse_learner(both, kind="protonet")


def test_a_state_is_loaded_from_a_dict_or_a_file(tmp_path):
    state = {name: t + 1 for name, t in net().state_dict().items()}
    save_file(state, tmp_path / "state.safetensors")
    for given in (state, tmp_path / "state.safetensors"):
        learner = parse_learner(net(), kind="protonet", state=given)
        assert torch.equal(learner.parameters()["linear1.bias"], state["linear1.bias"])
    with pytest.raises(LearnerError, match="the state does not fit the Sequential"):
        parse_learner(net(), kind="protonet", state={"x": torch.ones(1)})
    (tmp_path / "state.txt").write_text("weights")
    with pytest.raises(CheckpointError, match=r"state\.txt cannot be read as a safetensors file"):
        parse_learner(net(), kind="protonet", state=tmp_path / "state.txt")


class Trap:
    """Executes code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was loaded",)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickled_state_is_told_how_to_be_converted(as_zip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, state = tmp_path / "state.pt", net().state_dict()
    torch.save({"trap": Trap()}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(CheckpointError, match=r"state\.pt is a pickle, as torch.save writes") as raised:
        parse_learner(net(), kind="protonet", state=path)
    torch.save(state, path, _use_new_zipfile_serialization=as_zip)
    exec(
        str(raised.value).rpartition("once: ")[2], {"safetensors": safetensors, "torch": torch, "path": path}
    )
    learner = parse_learner(net(), kind="protonet", state="state.safetensors")
    assert torch.equal(learner.parameters()["linear1.bias"], state["linear1.bias"])


@pytest.mark.parametrize(
    ("obj", "given", "message"),
    [
        (L2LMAML(net(), 0.3), {}, "does not say its inner_steps; give inner_steps="),
        (L2LMAML(net(), 0.3), {"inner_steps": 1, "inner_lr": 0.5}, "has lr=0.3, and inner_lr=0.5 is given"),
        (L2LMAML(net(), 0.3), {"kind": "protonet"}, "is a maml, and kind='protonet' is given"),
        (L2LMAML(net(), 0.3), {"inner_steps": 1, "first_order": True}, "has its own first_order, False"),
        (L2LMetaSGD(net()), {"inner_steps": 1, "inner_lr": 0.5}, "has learned rates"),
        (TorchmetaModel(), {"inner_steps": 1}, "does not say its inner_lr"),
        (PrototypicalNetworks(net()), {"kind": "maml"}, "is a protonet, and kind='maml' is given"),
        (PrototypicalNetworks(net()), {"inner_steps": 1}, "adapts without gradient steps"),
        (PrototypicalNetworks(net()), {"distance": "cosine"}, "has its own distance, 'euclidean'"),
        (net(), {"kind": "reptile"}, "kind is one of maml, protonet"),
        (object(), {}, "a object is no learner that is known here"),
        (lambda params, x, y, q: q @ params, {}, r"give them: linearize_fn\(function, params, tasks\)"),
    ],
)
def test_what_is_missing_or_said_twice_is_named(obj, given, message):
    with pytest.raises(LearnerError, match=message):
        parse_learner(obj, **given)
