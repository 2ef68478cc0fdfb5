"""The report's content: structure, escaping, limits, errors. How it looks is in test_chromium.py."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from made_up import RUN, made_up_scores, random_tasks

from tlxml_fast.errors import CheckpointError, TlxError
from tlxml_fast.report import cards, text
from tlxml_fast.scores import Scores
from tlxml_fast.task import Task, TaskSet

HOSTILE = (
    """<script>alert(1)</script>"' onerror=alert(1) x="&amp;$\\frac{1}{2}$ </style>"""
    " https://example.com {{ 7*7 }} {% raw %}"
)
VOID = {"meta", "img", "source", "br", "link", "input"}


class Outline(HTMLParser):
    """Every element with its attributes, the text, and whether tags balance."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.text, self.stack = [], [], []
        self.feed(html)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack[-1:] != ["style"]:
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def read(path) -> Outline:
    return Outline(path.read_text(encoding="utf-8"))


def test_structure(report):
    page = read(report())
    assert len(page.all("h1")) == 1
    assert [a for a in page.all("img") if not a.get("alt")] == []
    assert len(page.all("details")) == 6
    assert len([a for a in page.all("details") if "open" in a]) == 3
    for expected in (
        "6 × 20",
        "ProtoNet",
        "93.1%",
        "± 0.4, 95% interval",
        "negative is helpful",
        "Greek",
        "very strong evidence" if "very strong" in page.words else "evidence",
        "2.98 × 10⁷",
        "backend · why",
        "asked for by name",
        "2.5, 1.25, 0.75, 2.5, 1.25, 0.75, … (30 in all)",
        "1 warning",
        "247.3 s",
        "Machine",
        "tlxml-fast demo --seed 0 --out runs/demo",
        "98th percentile",
    ):
        assert expected in page.words
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    used = {a["href"][1:] for a in page.all("use")} | {a["href"][1:] for a in page.all("a")}
    assert used <= set(ids)


def test_pictures_of_training_tasks_are_stored_once(report):
    page = read(report())
    assert len(page.all("image")) == 2 * len({a["href"][1:] for a in page.all("use") if a["href"][1] == "s"})
    assert len(page.all("use")) == 6 * 2 * 5 * 2


def test_nothing_is_fetched(report):
    path = report()
    page = read(path)
    for _, attributes in page.elements:
        for attribute in ("src", "href", "srcset"):
            assert re.match(r"data:image/(png|jpeg);base64,|#", attributes.get(attribute, "#"))
    html = path.read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|https?://", html)
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert any("default-src 'none'" in (a.get("content") or "") for a in page.all("meta"))


def test_hostile_names_stay_text(report):
    train, test = (
        TaskSet([task.replace(name=HOSTILE, group=HOSTILE) for task in random_tasks(6, "", seed)][:3])
        + random_tasks(3, HOSTILE, seed + 9)
        for seed in (1, 2)
    )
    run = {
        HOSTILE: {HOSTILE: HOSTILE},
        "command": HOSTILE,
        "created": HOSTILE,
        "warnings": [HOSTILE],
        "other": HOSTILE,
    }
    page = read(report(train, test, run={**run, "data": {"name": HOSTILE}}, drawn=True))
    assert page.all("script") == []
    assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes)
    assert " ".join(HOSTILE.split()) in page.words
    assert any(HOSTILE in a.get("alt", "") for a in page.all("img"))
    assert len(page.all("style")) == 1


def test_surrogates_and_control_characters_do_not_stop_it(report):
    tasks = TaskSet(
        [task.replace(group="a\x00\udc80b" if i else "c") for i, task in enumerate(random_tasks(4, "t", 1))]
    )
    assert read(report(tasks, random_tasks(2, "s", 2), drawn=True))


def test_tasks_that_are_not_those_of_the_scores(report):
    train, test, other = (
        random_tasks(8, "training", 1),
        random_tasks(3, "test", 2),
        random_tasks(8, "other", 3),
    )
    scores = made_up_scores(train, test)
    with pytest.raises(CheckpointError, match=r"training task 0 \('other 0', id .*'training 0'"):
        report(other, test, scores)
    with pytest.raises(CheckpointError, match="8 training tasks and 7 were given"):
        report(train[:7], test, scores)
    with pytest.raises(CheckpointError, match="test task 1 "):
        report(train, test[[0, 2, 1]], scores)


def test_margin_turns_the_signs(report):
    train, test = random_tasks(8, "training", 1), random_tasks(3, "test", 2)
    page = read(report(train, test, made_up_scores(train, test, target="margin")))
    assert "positive is helpful" in page.words
    first = next(a for a in page.all("span") if a.get("class") in ("helpful", "harmful"))
    assert (first["class"], first["style"][:6]) == ("helpful", "width:")


def test_per_query_scores_are_averaged(report):
    train, test = random_tasks(8, "training", 1), random_tasks(3, "test", 2)
    scores = made_up_scores(train, test)
    whole = report(train, test, scores).read_text(encoding="utf-8")
    split = replace(scores, values=scores.values[:, None].expand(-1, 4, -1))
    assert report(train, test, split).read_text(encoding="utf-8") == whole


def test_feature_vectors_become_strips(report):
    train, test = (random_tasks(6, "vector", seed, features=(34,)) for seed in (1, 2))
    assert "feature vector" in read(report(train, test)).words


@pytest.mark.parametrize(
    "features", [(28, 28), (3, 84, 84), (2, 9, 13), (1, 8, 8), (1000,), (1,), (), (2, 3, 4, 5), (1, 1, 7)]
)
def test_every_kind_of_feature(report, features):
    train, test = (random_tasks(2, "task", seed, features=features) for seed in (1, 2))
    assert read(report(train.map(lambda task: scaled(task)), test)).all("img")


def scaled(task: Task) -> Task:
    return task.replace(support_x=4 * task.support_x - 2, query_x=4 * task.query_x - 2)


def test_unlabelled_regression_ragged_and_one_of_each(report):
    a = Task(
        torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]), torch.rand(3, 1, 8, 8), name="no query labels"
    )
    b = Task(torch.randn(5, 1), torch.randn(5), torch.randn(7, 1), torch.randn(7), name="regression")
    c = Task(
        torch.rand(25, 9),
        torch.arange(25),
        torch.rand(2, 9),
        torch.tensor([0, 24]),
        name="25 ways, few queries",
    )
    d = Task(
        torch.rand(25, 3, 3),
        torch.arange(25),
        torch.rand(1, 3, 3),
        torch.tensor([24]),
        name="query not shown",
    )
    page = read(report(TaskSet([a, b, c, d]), TaskSet([c, d, a])))
    assert "all training tasks are of one group" in page.words.lower()
    one = TaskSet([a])
    assert "1 × 1" in read(report(one, one, run={})).words


def test_zero_scores_and_a_run_of_nothing(report):
    train, test = random_tasks(6, "training", 1), random_tasks(2, "test", 2)
    scores = made_up_scores(train, test)
    page = read(report(train, test, replace(scores, values=torch.zeros(2, 6)), run={}, drawn=True))
    assert "warning" not in page.words


def test_scores_info_stands_in_for_the_influence_section(report):
    train, test = random_tasks(6, "training", 1), random_tasks(2, "test", 2)
    scores = replace(made_up_scores(train, test), info={"curvature": "Hessian of everything"})
    assert "Hessian of everything" in read(report(train, test, scores, run={})).words


@pytest.mark.parametrize(
    "training", [{"accuracy": {"mean": 0.5, "interval": 0.1}}, {"accuracy": 0.5, "interval": [0.4, 0.6]}]
)
def test_accuracy_may_be_nested_or_an_interval(report, training):
    words = read(report(run={"training": training})).words
    assert "50.0%" in words
    assert "95% interval" in words


def test_a_spectrum_that_cannot_be_drawn(report):
    assert read(report(run={"spectrum": {"eigenvalues": [0.0, None], "n_negative": 0}}, drawn=True))
    assert read(report(run={"spectrum": {"eigenvalues": [-1.0], "damping": 0.5}}, drawn=True))


def test_a_correction_that_nothing_can_survive_is_named(report):
    train, test = (random_tasks(n, "task", n, groups="abcdefgh") for n in (16, 8))
    assert "none can survive the correction" in read(report(train, test)).words


def test_the_number_of_cards_is_limited_and_says_so(report):
    page = read(report(max_test_tasks=2))
    assert len(page.all("details")) == 2
    assert "Shown are 2 of 6 test tasks" in page.words


def test_a_budget_is_kept(monkeypatch):
    train, test = (random_tasks(12, "photo", seed, features=(3, 32, 32)) for seed in (1, 2))
    made = cards.make_cards(made_up_scores(train, test), 5, range(12))
    whole = cards.make_gallery(made, train, test)
    assert (len(whole.cards), whole.train_detail) == (12, cards.LEVELS[0][1])
    for budget in (400_000, 60_000):
        part = cards.make_gallery(made, train, test, budget)
        size = sum(p.size for p in [*part.test.values(), *part.train.values()])
        assert size <= budget
        assert part.train_detail != cards.LEVELS[0][1]


@pytest.mark.slow
def test_a_large_report_stays_under_ten_megabytes(report):
    train, test = random_tasks(512, "training", 1), random_tasks(64, "test", 2)
    assert report(train, test, drawn=True).stat().st_size < 10e6


def test_nothing_is_left_behind_when_it_fails(report, tmp_path):
    with pytest.raises(TlxError, match="k = 0"):
        report(k=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (-0.123456, "−0.1235"),
        (1234567, "1,234,567"),
        (12345.678, "12,346"),
        (1.5e-7, "1.5 × 10⁻⁷"),
        (float("inf"), "∞"),
        (1.0, "1"),
        (100.0, "100"),
    ],
)
def test_numbers(value, expected):
    assert text.number(value) == expected


def test_signed_numbers_line_up():
    assert [text.signed(v, 0.0246) for v in (-0.0246, 0.00123, 1e-9, -1e-9)] == [
        "−0.0246",
        "+0.0012",
        "0.0000",
        "0.0000",
    ]
    assert [text.signed(v) for v in (0.5, -0.5, 0.0)] == ["+0.5", "−0.5", "0"]
    assert text.signed(3e-9, 5e-9) == "+3 × 10⁻⁹"


def test_run_is_not_changed(report):
    before = repr(RUN)
    report()
    assert repr(RUN) == before
    assert isinstance(made_up_scores(random_tasks(2, "a", 1), random_tasks(2, "b", 2)), Scores)
