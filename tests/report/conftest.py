"""A report of made-up scores, written where a test can read it."""

from __future__ import annotations

import pytest
from made_up import DOT, RUN, made_up_scores, random_tasks

from tlxml_fast.report import figures, write_report


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Writes a report of made-up scores and returns its path; plots are a dot unless they are to be drawn."""

    def write(train=None, test=None, scores=None, run=RUN, drawn=False, **options):
        if not drawn:
            monkeypatch.setattr(figures, "_png", lambda figure: DOT)
        train = random_tasks(20, "training task", 1) if train is None else train
        test = random_tasks(6, "test task", 2) if test is None else test
        path = tmp_path / "report.html"
        write_report(
            path, scores or made_up_scores(train, test), train, test, run, permutations=100, **options
        )
        return path

    return write
