"""An experiment run: seeds are kept one by one, conclusions come from them, files are whole."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from tlxml_fast.errors import CheckpointError, DataError, TlxError
from tlxml_fast.experiments import Drawing, Experiment, Finding, Outcome, Setup, Table, run_experiment

SETUP = Setup("digits", progress=False)


class Doubling(Experiment):
    """A seed's number is its double."""

    name = "doubling"
    question = "Is <twice> a number even?"

    def __init__(self):
        self.ran = []

    def one_seed(self, setup, seed):
        if seed == 13:
            raise KeyboardInterrupt
        self.ran.append(seed)
        return {"twice": 2 * seed, "nothing": float("nan")}

    def conclude(self, setup, seeds):
        rows = [[f"seed {seed}", numbers["twice"], None] for seed, numbers in seeds.items()]
        drawing = Drawing(
            "line", "Twice.", lambda figure, theme: figure.add_subplot().plot([r[1] for r in rows])
        )
        return Outcome(
            [Table("Doubles", ["which", "twice", "empty"], rows, "A note.")],
            [drawing],
            [Finding("All are even.", "holds", "By <arithmetic>.")],
        )


def test_a_run_writes_numbers_figures_and_a_page(tmp_path):
    record = run_experiment(Doubling(), SETUP, [3, 1], tmp_path, "typed <this>")
    assert record == json.loads((tmp_path / "doubling.json").read_text(), parse_constant=pytest.fail)
    assert record["seeds"] == {"3": {"twice": 6, "nothing": None}, "1": {"twice": 2, "nothing": None}}
    assert record["tables"][0]["rows"] == [["seed 3", 6, None], ["seed 1", 2, None]]
    assert record["findings"][0]["verdict"] == "holds"
    with Image.open(tmp_path / record["drawings"][0]["file"]) as image:
        assert image.size == (round(6.2 * 160), round(3.2 * 160))
    page = (tmp_path / "doubling.html").read_text()
    assert "By &lt;arithmetic&gt;." in page
    assert "typed &lt;this&gt;" in page
    assert "<script" not in page
    assert page.count("data:image/png") == 4


def test_a_stopped_run_goes_on_after_the_last_seed(tmp_path):
    first, again = Doubling(), Doubling()
    with pytest.raises(KeyboardInterrupt):
        run_experiment(first, SETUP, [0, 13], tmp_path)
    run_experiment(again, SETUP, [0, 2], tmp_path)
    assert (first.ran, again.ran) == ([0], [2])


def test_numbers_of_another_setup_are_refused(tmp_path):
    run_experiment(Doubling(), SETUP, [0], tmp_path)
    with pytest.raises(CheckpointError, match=r"seed-0\.json holds numbers of another setup"):
        run_experiment(Doubling(), Setup("digits", quick=True, progress=False), [0], tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "doubling").mkdir()
    (tmp_path / "doubling" / "seed-0.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"seed-0\.json cannot be read as JSON"):
        run_experiment(Doubling(), SETUP, [0], tmp_path)


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_seeds_are_distinct_numbers(tmp_path, seeds):
    with pytest.raises(TlxError, match="seeds are distinct numbers of at least 0"):
        run_experiment(Doubling(), SETUP, seeds, tmp_path)


def test_data_that_is_absent_is_said_before_the_work(tmp_path):
    experiment = Doubling()
    with pytest.raises(DataError, match="there is no file or folder"):
        run_experiment(experiment, Setup("omniglot", str(tmp_path / "none.npz")), [0], tmp_path)
    assert experiment.ran == []
    with pytest.raises(DataError, match="omniglot needs the path"):
        Setup("omniglot")
    with pytest.raises(DataError, match="experiments run on glyphs, omniglot, digits, not 'mnist'"):
        Setup("mnist")


def test_a_table_is_rectangular_and_a_verdict_one_of_three():
    with pytest.raises(TlxError, match="2 columns and a row of 1"):
        Table("t", ["a", "b"], [[1]])
    with pytest.raises(TlxError, match="a verdict is one of"):
        Finding("c", "perhaps", "")
