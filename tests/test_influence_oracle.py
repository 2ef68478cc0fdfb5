"""The three influences against dense Jacobians, Hessians and eigendecompositions that share no code with them."""

from __future__ import annotations

import pytest
import torch
from oracle import CASES, Problem, invert, near, problem

import tlxml_fast as tlx
from tlxml_fast.learners import Episode
from tlxml_fast.ops import native_available

DAMPING = 0.0625
EPS32 = torch.finfo(torch.float32).eps
SLOW = ("maml conv4, 3 steps", "maml conv4, 5 steps")
# float32 takes the same code: one case of every kind.
IN_FLOAT32 = [
    "maml, 1 step", "maml, 5 steps", "maml, learned rates", "maml, regression", "maml conv4, 1 step",
    "proto, euclidean, scaled", "proto, cosine, scaled", "proto conv4",
]  # fmt: skip


def runs(names: list[str]) -> list:
    """Each curvature on each backend; but the Hessian has no native kernel, and runs once."""
    made = [(name, "gauss_newton", "reference") for name in names]
    made += [(name, "gauss_newton", "native") for name in names if name not in SLOW]
    made += [(name, "hessian", "auto") for name in names if CASES[name].hessian]
    no_core = pytest.mark.skipif(not native_available(), reason="no core")
    return [
        pytest.param(*run, id=", ".join(run), marks=no_core if run[2] == "native" else ()) for run in made
    ]


def assert_equals_oracle(
    p: Problem, inf: tlx.TaskInfluence, meta: torch.Tensor, tolerance: float = 1e-9
) -> None:
    """I_meta, I_adpt and I_perf, of whole tasks and of single queries."""
    tests = p.truths[1]
    near(torch.stack([inf.meta(j) for j in range(len(p.train))]), meta, tolerance)
    near(inf.scores(p.test).values, torch.stack([t.gradient for t in tests]) @ meta.T, tolerance)
    queries = inf.scores(p.test, per_query=True).values
    for i, truth in enumerate(tests):
        n = len(truth.query_gradients)
        near(queries[i, :n], truth.query_gradients @ meta.T, tolerance)
        assert queries[i, n:].isnan().all()
        adapted = inf.adaptation(p.test[i], i + 1)
        near(adapted, truth.theta_jacobian @ meta[i + 1], tolerance)


@pytest.mark.parametrize(("name", "curvature", "backend"), runs(list(CASES)))
def test_influence(name, curvature, backend):
    p = problem(name)
    inf = p.fit(curvature, tlx.Dense(DAMPING), backend)
    meta, _ = p.meta(curvature, damping=DAMPING)
    assert_equals_oracle(p, inf, meta)


@pytest.mark.parametrize(("name", "curvature", "backend"), runs(IN_FLOAT32))
def test_influence_in_float32(name, curvature, backend):
    p = problem(name)
    inf = p.fit(curvature, tlx.Dense(DAMPING), backend, torch.float32)
    meta, kappa = p.meta(curvature, damping=DAMPING)
    assert p.kink > 1e-6, "float32 may take other ReLU and pooling choices here: another seed"
    assert_equals_oracle(p, inf, meta, 100 * EPS32 * kappa)


# A cut is only well defined inside a gap of the spectrum: rank and rtol are put into the middle of one.
INVERSES = {
    "damping": {"damping": 0.01},
    "relative": {"relative": 0.02},
    "rank": {"rank": None},
    "rtol": {"rtol": None},
}


def cut(matrix: torch.Tensor) -> tuple[int, float]:
    """The rank between 5 and 25 followed by the widest gap, and the relative tolerance in its middle."""
    sizes = torch.linalg.eigvalsh(matrix).abs().sort(descending=True).values
    rank = 5 + int((sizes[4:24] / sizes[5:25]).argmax())
    return rank, float((sizes[rank - 1] * sizes[rank]).sqrt() / sizes[0])


@pytest.mark.parametrize("kind", INVERSES)
@pytest.mark.parametrize(
    ("curvature", "negative"),
    [
        ("hessian", "drop"),
        ("hessian", "keep"),
        ("hessian", "abs"),
        ("hessian", "error"),
        ("gauss_newton", "error"),
    ],
)
def test_inverses(curvature, negative, kind):
    p = problem("maml, 1 step")
    rank, rtol = cut(p.matrix(curvature))
    wanted = {"rank": {"rank": rank}, "rtol": {"rtol": rtol}}.get(kind, INVERSES[kind])
    options = dict(wanted)
    if "relative" in options:
        options["damping"] = tlx.Relative(options.pop("relative"))
    inverse = tlx.Dense(**options, negative=negative)
    if negative == "error" and curvature == "hessian":
        with pytest.raises(tlx.CurvatureError, match="eigenvalues are negative"):
            p.fit(curvature, inverse)
        return
    inf = p.fit(curvature, inverse)
    meta, kappa = p.meta(curvature, negative=negative, **wanted)
    near(torch.stack([inf.meta(j) for j in range(len(p.train))]), meta)
    spectrum = inf.report["curvature"]["spectrum"]
    assert spectrum["condition_number"] == pytest.approx(kappa, rel=1e-9)
    own = -torch.stack([inf.meta(j) @ t.gradient for j, t in enumerate(p.truths[0])])
    if negative in ("drop", "abs"):
        assert own.min() >= 0  # H⁺ ⪰ 0: self-influence is −own


@pytest.mark.parametrize("target", ["predicted", "margin", "probability"])
@pytest.mark.parametrize("name", ["maml, 1 step", "maml, more outputs than ways", "proto, cosine, scaled"])
def test_targets_need_no_labels(name, target):
    p = problem(name)
    inf = p.fit(inverse=tlx.Dense(DAMPING))
    meta, _ = p.meta("gauss_newton", damping=DAMPING)
    unlabelled = [task.replace(query_y=None) for task in p.test]
    want = [truth.target(target) @ meta.T for truth in p.truths[1]]
    near(inf.scores(unlabelled, target=target).values, torch.stack([w.mean(0) for w in want]))
    for row, w in zip(inf.scores(unlabelled, target=target, per_query=True).values, want, strict=True):
        near(row[: len(w)], w)
    with pytest.raises(tlx.TaskError, match="task 'task 100' has no query labels"):
        inf.scores(unlabelled)


@pytest.mark.parametrize("name", ["maml, 5 steps", "proto, cosine, scaled"])
def test_an_adapted_parameter(name):
    """Its score is its part of I_adpt."""
    p = problem(name)
    inf = p.fit(inverse=tlx.Dense(DAMPING))
    task = p.test[0].replace(query_y=None)
    episode = Episode.of(task, torch.float64, torch.device("cpu"))
    theta = inf.learner.adapt(inf.learner.parameters(), episode, task.ways)
    entry = [name for name, x in theta.items() if x.ndim == 2][-1]  # the prototypes, or a weight
    places = torch.arange(sum(x.numel() for x in theta.values())).split([x.numel() for x in theta.values()])
    place = dict(zip(theta, places, strict=True))[entry].view(theta[entry].shape)[1, 2]
    want = torch.stack([inf.adaptation(task, j)[place] for j in range(len(p.train))])
    near(inf.scores([task], target=f"adapted {entry}[1, 2]").values[0], want)
    for target, problem_with in (
        (f"adapted {entry}", r"names no entry of an adapted parameter: give 'adapted NAME\[i, j\]'"),
        ("adapted nothing[0]", "θ has no 'nothing'; it has "),
        (f"adapted {entry}[1]", "has no entry \\[1\\]"),
        (f"adapted {entry}[1, 9999]", "has no entry \\[1, 9999\\]"),
    ):
        with pytest.raises(tlx.LearnerError, match=problem_with):
            inf.scores([task], target=target)
    with pytest.raises(tlx.LearnerError, match="belongs to a task, not to its queries"):
        inf.scores([task], target=f"adapted {entry}[1, 2]", per_query=True)


def test_groups_add():
    p = problem("maml, 1 step")
    scores = p.fit(inverse=tlx.Dense(DAMPING)).scores(p.test)
    meta, _ = p.meta("gauss_newton", damping=DAMPING)
    want = (
        torch.stack([t.gradient for t in p.truths[1]]) @ torch.stack([meta[0::2].sum(0), meta[1::2].sum(0)]).T
    )
    near(scores.group().values, want)
    near(scores.group(reduce="mean").values, want / 2)


def test_tasks_that_were_not_fitted_are_added():
    p = problem("maml, 3 steps")
    inf = p.fit(inverse=tlx.Dense(DAMPING))
    H_plus, _ = invert(p.matrix("gauss_newton"), damping=DAMPING)
    g = torch.stack([t.gradient for t in [*p.truths[0][:2], *p.truths[1]]])
    scores = inf.scores(p.test, [*p.train[:2], *p.test])
    near(scores.values, -g[2:] @ H_plus @ g.T)
    assert scores.in_fit.tolist() == [True, True, False, False]


@pytest.mark.parametrize("normalize", [False, True])
def test_identity_compares_gradients(normalize):
    p = problem("maml, other steps at evaluation")
    inf = tlx.TaskInfluence(p.learner(), tlx.Identity(normalize)).fit(p.train)
    train, test = (torch.stack([t.gradient for t in side]) for side in p.truths)
    if normalize:
        test, train = (g / g.norm(dim=1, keepdim=True) for g in (test, train))
    near(inf.scores(p.test).values, -test @ train.T)


def test_report_of_the_objective():
    p = problem("maml, a decay each")
    report = p.fit(inverse=tlx.Dense(DAMPING)).report
    objective = sum(t.gradient for t in p.truths[0]) / len(p.train) + p.decay * p.recipe.omega
    assert report["gradient_norm"] == pytest.approx(objective.norm().item(), rel=1e-9)
    confidence = torch.cat([t.f.softmax(1).amax(1) for t in p.truths[0]]).quantile(0.5)
    assert report["median_confidence"] == pytest.approx(confidence.item(), rel=1e-9)
    assert report["learner"]["parameters"] == len(p.recipe.omega)


# ---- state --------------------------------------------------------------------------------------------


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "name", ["maml conv4, 1 step", "maml conv4, running", "proto conv4", "proto conv4, running"]
)
def test_only_meta_train_changes_the_module(name, training):
    p = problem(name)
    learner = p.learner(torch.float32)
    learner.module.train(training)
    before, modes = state(learner.module), [m.training for m in learner.module.modules()]
    inf = tlx.TaskInfluence(learner, inverse=tlx.Dense(DAMPING)).fit(p.train[:1])
    inf.scores(p.test[:1])
    inf.adaptation(p.test[0], 0)
    tlx.linearize(learner, p.train[:1]).hvp(torch.ones(1, len(p.recipe.omega)))
    tlx.evaluate(learner, p.test)
    after = state(learner.module)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert [m.training for m in learner.module.modules()] == modes
    assert all(w.grad is None for w in learner.module.parameters())
    tlx.meta_train(learner, tlx.TaskSet(p.train), steps=1, batch_size=2, progress=False)
    buffers = [name for name, _ in learner.module.named_buffers()]
    moved = [name for name in buffers if not torch.equal(before[name], state(learner.module)[name])]
    assert bool(moved) == ("running" in name)
    if moved:  # two tasks; MAML passes support and query apart
        passes = learner.module.block1.norm.num_batches_tracked - before["block1.norm.num_batches_tracked"]
        assert passes == (4 if name.startswith("maml") else 2)


def test_running_statistics_that_never_saw_a_batch_are_refused():
    learner = tlx.MAML(tlx.models.conv4(2, image_size=16, ways=3, seed=0), norm="running")
    with pytest.raises(tlx.LearnerError, match=r"running statistics of 'block1\.norm' never saw a batch"):
        tlx.TaskInfluence(learner)
    with pytest.raises(tlx.LearnerError, match="never saw a batch"):
        tlx.linearize(learner, problem("maml conv4, 1 step").train[:1])


def single_values() -> tuple[torch.nn.Module, list[tlx.Task]]:
    """BatchNorm1d, and a task whose query set is one example."""
    g = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 3)
    )
    y = torch.arange(3)
    return net, [
        tlx.Task(torch.randn(3, 5, generator=g), y, torch.randn(1, 5, generator=g), y[:1], name="lonely")
    ]


def test_batch_statistics_over_a_single_value_are_an_error():
    net, tasks = single_values()
    for learner in (tlx.MAML(net), tlx.ProtoNet(net, joint_forward=False)):
        with pytest.raises(tlx.LearnerError, match=r"task 'lonely' .*more than 1 value per channel"):
            tlx.TaskInfluence(learner).fit(tasks)
    tlx.TaskInfluence(tlx.ProtoNet(net)).fit(tasks)  # four examples in one batch


# ---- numbers that are not finite name their task ------------------------------------------------------


def spoilt(p: Problem, how: str) -> tuple[tlx.Learner, list[tlx.Task]]:
    """A learner and tasks of which the third overflows in float32."""
    if how == "inner_lr":  # only where the slope is large
        factor, learner = 1e6, tlx.MAML(p.learner(torch.float32).module, 1e30, 2)
    elif how == "pixels":
        factor, learner = 1e38, p.learner(torch.float32)
    else:
        factor, learner = 1.0, p.learner(torch.float32)
        with torch.no_grad():
            next(learner.module.parameters())[0] = float("inf")
    bad = p.train[2]
    tasks = [
        *p.train[:2],
        bad.replace(support_x=bad.support_x * factor, query_x=bad.query_x * factor),
        *p.train[3:],
    ]
    return learner, tasks


@pytest.mark.parametrize(
    ("how", "named"), [("inner_lr", r"task \d"), ("pixels", "task 2"), ("weights", "task 0")]
)
def test_a_loss_that_is_not_finite_names_its_task(how, named):
    learner, tasks = spoilt(problem("maml, 1 step"), how)
    with pytest.raises(tlx.TaskError, match=f"the (loss|gradient) of task '{named}' is not finite"):
        tlx.TaskInfluence(learner).fit(tasks)


def test_a_test_task_that_is_not_finite_is_named():
    p = problem("maml, 1 step")
    _, tasks = spoilt(p, "pixels")
    inf = p.fit(inverse=tlx.Dense(DAMPING), dtype=torch.float32)
    with pytest.raises(tlx.TaskError, match="test task 'task 2' is not finite"):
        inf.scores(tasks)
    with pytest.raises(tlx.TaskError, match="task 'task 2' is not finite"):
        inf.meta(tasks[2])


def test_first_order_maml_is_refused():
    p = problem("maml, 1 step")
    with pytest.raises(tlx.LearnerError, match="FOMAML"):
        tlx.TaskInfluence(tlx.MAML(p.learner().module, first_order=True))
