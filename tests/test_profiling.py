"""Spans add up, cost nothing unasked, and become rows, a trace and a table."""

import json
import threading
import time

import pytest
import torch
from test_cli import tlxml, trained  # noqa: F401

from tlxml_fast import TlxError, profiling
from tlxml_fast.parallel import task_threads
from tlxml_fast.profiling import Peaks, Profile, machine, peaks, share_of_peak, span


class Clock:
    """Nanoseconds that pass only when told to."""

    def __init__(self):
        self.now = 1_000

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def known_peaks(monkeypatch):
    """100 flops/s and 10 bytes/s; half of the former in float64."""
    reached = {torch.float32: Peaks(100, 10), torch.float64: Peaks(50, 10)}
    monkeypatch.setattr(profiling, "peaks", lambda device, dtype: reached[dtype])


def by_name(profile: Profile) -> dict[str, profiling.Row]:
    return {row.op: row for row in profile.rows()}


def test_a_row_has_its_own_time_and_other_has_the_rest(clock, one_thread):
    with Profile(clock=clock) as profile:
        clock.sleep(1)
        with span("outer"):
            clock.sleep(2)
            for _ in range(2):
                with span("inner"):
                    clock.sleep(0.5)
                    with span("outer"):  # the same name again, inside
                        clock.sleep(1)
        clock.sleep(4)
    rows = by_name(profile)
    assert profile.seconds == 10
    assert [row.op for row in profile.rows()] == ["outer", "inner", "other"]
    assert {op: (row.calls, row.seconds, row.share) for op, row in rows.items()} == {
        "outer": (3, 4, 0.4),
        "inner": (2, 1, 0.1),
        "other": (0, 5, 0.5),
    }


def test_rates_are_compared_with_the_nearer_peak(clock, one_thread, known_peaks):
    with Profile(clock=clock) as profile:
        with span("product", 50, 1):
            clock.sleep(1)
        with span("copy", 1, 8):
            clock.sleep(1)
        with span("unknown"):
            clock.sleep(1)
        for dtype in (torch.float32, torch.float64):
            with span("both", 20, dtype=dtype):
                clock.sleep(0.5)
    rows = by_name(profile)
    found = {
        op: (row.flops_per_second, row.bytes_per_second, row.peak, row.bound) for op, row in rows.items()
    }
    assert found == {
        "product": (50, 1, 0.5, "compute"),
        "copy": (1, 8, 0.8, "memory"),
        "unknown": (None, None, None, None),
        "both": (40, None, pytest.approx(0.6), "compute"),  # 20/100 s + 20/50 s at the peaks, in 1 s
        "other": (None, None, None, None),
    }
    assert profile.peaks() == {"float32": Peaks(100, 10), "float64": Peaks(50, 10)}
    assert share_of_peak(50, 1, 1, Peaks(100, 10)) == (0.5, "compute")
    assert share_of_peak(1, 8, 2, Peaks(100, 10)) == (0.4, "memory")


def test_threads_share_the_wall_time():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    meeting = threading.Barrier(2)

    def work(i: int) -> None:
        with span("task"):
            meeting.wait(timeout=30)
            with span("inside"):
                time.sleep(0.05)

    try:
        with Profile() as profile:
            with task_threads() as each:
                list(each(work, range(4)))
            with span("all threads"):
                time.sleep(0.05)
    finally:
        torch.set_num_threads(before)
    rows = by_name(profile)
    assert {op: row.calls for op, row in rows.items()} == {
        "task": 4,
        "inside": 4,
        "all threads": 1,
        "other": 0,
    }
    # four sleeps, two at a time: as long as two; on all threads, as long as one
    assert 0.1 <= rows["inside"].seconds <= profile.seconds
    assert 0.05 <= rows["all threads"].seconds <= profile.seconds - 0.1
    assert sum(row.seconds for row in rows.values()) == pytest.approx(profile.seconds)
    assert sum(row.share for row in rows.values()) == pytest.approx(1)
    events = profile.trace()
    assert len({event["tid"] for event in events if event["name"] == "inside"}) == 2


def test_the_trace_says_when_each_span_ran(clock, tmp_path, one_thread):
    with Profile(clock=clock) as profile:
        clock.sleep(1)
        with span("outer", 3, 4):
            clock.sleep(1)
            with span("inner"):
                clock.sleep(2)
    profile.write_trace(tmp_path / "deep" / "trace.json")
    written = json.loads((tmp_path / "deep" / "trace.json").read_text())["traceEvents"]
    assert written == profile.trace()
    assert [(e["name"], e["ts"], e["dur"]) for e in written] == [("outer", 1e6, 3e6), ("inner", 2e6, 2e6)]
    assert all(e["ph"] == "X" and e["tid"] == 0 for e in written)
    assert written[0]["args"] == {"flops": 3, "bytes": 4}


def test_without_a_profile_a_span_is_nothing():
    assert span("a") is span("b", 1, 2)
    repeats, best = 20_000, float("inf")
    for _ in range(5):  # the best of several: others use this machine
        start = time.perf_counter()
        for _ in range(repeats):
            with span("a", 1, 2):
                pass
        best = min(best, (time.perf_counter() - start) / repeats)
    assert best < 2e-6


def test_an_error_ends_the_span_and_the_profile(clock, one_thread):
    def fail() -> None:
        clock.sleep(1)
        raise KeyError

    profile = Profile(clock=clock)
    with pytest.raises(KeyError), profile, span("fails"):
        fail()
    assert by_name(profile)["fails"].seconds == 1
    with span("after"):
        pass
    assert "after" not in by_name(profile)


def test_a_span_that_outlives_the_profile_is_not_part_of_it(clock, one_thread):
    with Profile(clock=clock) as profile:
        late = span("late")
        late.__enter__()
        with span("in time"):
            clock.sleep(1)
    late.__exit__(None, None, None)
    assert list(by_name(profile)) == ["in time", "other"]


def test_one_profile_at_a_time(clock):
    with Profile(clock=clock), pytest.raises(TlxError, match="running already"), Profile():
        pass
    with Profile(clock=clock):
        pass


def test_peaks_are_measured_once(monkeypatch, one_thread):
    monkeypatch.setattr(profiling, "CPU_SIZES", (64, 2**16))
    monkeypatch.setattr(profiling, "SECONDS_A_PEAK", 0.001)
    profiling._measured_peaks.cache_clear()
    try:
        first = peaks("cpu", torch.float64)
        assert first.flops > 0
        assert first.bytes > 0
        assert peaks(torch.device("cpu"), torch.float64) is first
        assert peaks("cpu", torch.float32) is not first
    finally:
        profiling._measured_peaks.cache_clear()


def test_the_machine_is_described():
    found = json.loads(json.dumps(machine()))
    assert found["threads"] == torch.get_num_threads()
    assert found["processor"]
    assert found["torch"] == torch.__version__


@pytest.mark.parametrize("checkpoint", [False, True], ids=["directory", "checkpoint"])
def test_the_command_profiles_an_influence_run(trained, tmp_path, checkpoint):  # noqa: F811
    run = trained / "checkpoint.safetensors" if checkpoint else trained
    done = tlxml("profile", run, "--test-tasks", 2, "--train-tasks", 4, "--quiet", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("Scores(2 test × 4 train", "GFLOP/s", "of peak", "eigendecomposition", "other"):
        assert word in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "profile.json",
        "scores.safetensors",
        "trace.json",
    ]
    profile = json.loads((tmp_path / "profile.json").read_text())
    assert sum(row["seconds"] for row in profile["rows"]) == pytest.approx(profile["seconds"], rel=0.01)
    assert set(profile["peaks"]) == {"float32", "float64"}
    assert profile["machine"] == machine()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    calls = {row["op"]: row["calls"] for row in profile["rows"] if row["calls"]}
    assert {op: sum(e["name"] == op for e in events) for op in calls} == calls


def test_the_command_takes_what_influence_takes():
    done = tlxml("profile", "nowhere", "--curvature", "round")
    assert done.returncode == 2
    assert "curvature is one of" in done.stderr


def test_on_cuda_events_are_read_after_one_synchronisation(monkeypatch, clock):
    finished = []

    class Event:
        """Stands for torch's: its time is not known before the device has been waited for."""

        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self, stream: str) -> None:
            assert stream == "the stream of cuda:1"
            self.time = clock()

        def elapsed_time(self, other: "Event") -> float:
            assert len(finished) == 1
            return (other.time - self.time) / 1e6

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", finished.append)
    with Profile("cuda:1") as profile, span("outer"):
        clock.sleep(1)
        with span("inner"):
            clock.sleep(3)
    assert {op: row.seconds for op, row in by_name(profile).items()} == {"outer": 1, "inner": 3, "other": 0}
    assert [(e["ts"], e["dur"]) for e in profile.trace()] == [(0, 4e6), (1e6, 3e6)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_times_are_the_devices():
    x = torch.randn(4096, 4096, device="cuda")
    x @ x  # warms up
    with Profile("cuda") as profile, span("outer"):
        with span("product", 2 * 4096**3):
            x @ x
        with span("copy", bytes=2 * x.nbytes):
            x.clone()
    rows = by_name(profile)
    assert 0.2 < rows["product"].peak < 2
    assert rows["copy"].bound == "memory"
    assert sum(row.seconds for row in rows.values()) == pytest.approx(profile.seconds)
    outer, product, copy = profile.trace()
    assert outer["ts"] <= product["ts"] <= product["ts"] + product["dur"] <= copy["ts"]
