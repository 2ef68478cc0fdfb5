"""The backends pass the conformance suite, and broken ones do not."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from broken import ALL, broken

import tlxml_fast as tlx
from tlxml_fast import backend as protocol
from tlxml_fast.backend.conformance import CASES, CHECKS, Failure, conform
from tlxml_fast.backend.conformance.__main__ import main
from tlxml_fast.backend.conformance.comparing import equal
from tlxml_fast.backend.ours import compiled, reference
from tlxml_fast.errors import BackendError, CurvatureError


def failures(backend, cases=CASES, checks=CHECKS):
    return {result.check: result.failure for result in conform(backend, cases, checks) if result.failure}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_compiled_backend_conforms(case, one_thread):
    assert failures(compiled, [case]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reference_conforms(case, one_thread):
    assert failures(reference, [case]) == {}


@pytest.mark.parametrize("name", ALL)
def test_a_broken_backend_is_caught(name, one_thread):
    check, case, backend = broken(name)
    on, by = [c for c in CASES if c.name == case], [c for c in CHECKS if c.__name__ == check]
    assert check in failures(backend, on, by)


@pytest.mark.parametrize(
    ("found", "truth", "right"), [(0.0, 0.0, True), (1e-40, 0.0, False), (0.0, 1e-40, False)]
)
def test_only_zero_equals_zero(found, truth, right):
    found, truth = (torch.tensor([x], dtype=torch.float64) for x in (found, truth))
    with nullcontext() if right else pytest.raises(Failure, match="x: relative error"):
        equal("x", found, truth)


def test_backends_are_found_by_their_entry_points():
    assert {"compiled", "reference"} <= set(protocol.names())
    assert protocol.get("compiled") is compiled
    assert protocol.get("tlxml_fast.backend.ours:reference") is reference


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "no installed package brings a backend called 'none'; there are"),
        ("nowhere.at.all:x", "cannot be loaded: No module named 'nowhere'"),
        ("tlxml_fast.backend:nothing", "cannot be loaded"),
        ("tlxml_fast:Dense.fit", "is no backend: it has no name, capabilities"),
        ("broken:old", "speaks version 0 of the protocol, and this is version 1"),
    ],
)
def test_what_is_no_backend_is_refused(name, message):
    with pytest.raises(BackendError, match=message):
        protocol.get(name)


def test_the_compiled_backend_does_not_fall_back():
    class Odd(tlx.models.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = tlx.models.nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x.sin()).cumsum(1)

    learner, tasks = tlx.MAML(Odd().double(), 0.1), CASES[0].tasks
    for call in (compiled.linearize, compiled.influence):
        with pytest.raises(BackendError, match="no plan"):
            call(learner, tasks)
    assert reference.linearize(learner, tasks).gradients().shape == (3, 15)


def test_an_unknown_curvature_is_named():
    with pytest.raises(
        CurvatureError, match="curvature is one of gauss_newton, hessian, identity, not 'k-fac'"
    ):
        compiled.influence(CASES[0].learner(), CASES[0].tasks, curvature="k-fac")


def test_the_command(capsys, monkeypatch):
    run = "tlxml_fast.backend.conformance.__main__.conform"
    monkeypatch.setattr(run, lambda backend: conform(backend, CASES[:1], CHECKS[:2]))
    assert main(["compiled"]) == 0
    assert "compiled: 2 of 2 checks passed" in capsys.readouterr().out
    monkeypatch.setattr(run, lambda backend: conform(broken("losses are sums")[2], CASES[:1], CHECKS[:1]))
    assert main(["compiled"]) == 1
    said = capsys.readouterr().out
    assert (
        "values: losses: relative error 1.0e+00, above 1e-08; it is 2 times what it should be, on MAML, ReLU"
        in said
    )
    assert "compiled: 0 of 1 checks passed; not claimed, and not checked: MAML, tanh, three steps, " in said
    assert main(["none"]) == 2
    assert main([]) == 2


def test_the_page_names_every_check():
    page = (Path(__file__).parents[2] / "docs" / "front-end.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page.partition("| check |")[2], re.M)
    assert rows == [(check.__name__, check.__doc__.splitlines()[0]) for check in CHECKS]
    words = {14: "fourteen", 16: "sixteen"}
    assert f"{words[len(CHECKS)]} checks on {words[len(CASES)]} small learners" in page


class Delegating:
    """A wrapper whose calls are another's, by __getattr__."""

    def __init__(self, inner, **own):
        self.__dict__ |= {"inner": inner, **own}

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_delegated_calls_are_there():
    def linearize(*given, **named):
        return Delegating(reference.linearize(*given, **named))

    backend = Delegating(reference, name="wrapped", linearize=linearize)
    assert failures(backend, CASES[:1]) == {}


def test_what_lacks_calls_is_told_which():
    class Bare:
        logits = jvp = vjp = gnvp = losses = None

    backend = Delegating(reference, linearize=lambda *given: Bare())
    assert failures(backend, CASES[:1], CHECKS[:1]) == {
        "values": "linearize gives a Bare, which has no gradients, hvp"
    }

    def influence(*given, **named):
        return Delegating(None, solve=lambda B: (B, None), scores=None)

    backend = Delegating(reference, influence=influence)
    (said,) = failures(backend, CASES[:1], CHECKS[8:9]).values()
    assert said == "solve gives a tuple, which has no X, certificate: a Solved has"


@pytest.mark.parametrize(
    ("path", "said"),
    [("Class", "is a class, Class; a backend is an instance"), ("dicts", "gives a dict, not a Capabilities")],
)
def test_what_is_no_backend_is_told_why(path, said, monkeypatch):
    import sys
    from types import ModuleType

    module = ModuleType("nobackends")
    module.Class = type("Class", (), {})
    module.dicts = Delegating(reference, capabilities=dict)
    monkeypatch.setitem(sys.modules, "nobackends", module)
    with pytest.raises(BackendError, match=said):
        protocol.get(f"nobackends:{path}")
