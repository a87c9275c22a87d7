"""How far trials are, as their workers tell it, and how long a sweep may still take."""

import time
from pathlib import Path

import pytest

from qa_core import heartbeat
from sweeps.progress.recipe_words import recipe_words
from sweeps.progress.status import FrontRow, SweepClock, Training, front_lines, read_training, told_in
from sweeps.run_folder.layout import TrialFolder


def test_a_worker_tells_how_far_it_is_while_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, now = TrialFolder(tmp_path), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert read_training(folder) is None
    heartbeat.steps(1, 2, None)  # nobody listens
    with told_in(folder):
        heartbeat.steps(16, 960, None)
        assert read_training(folder) == Training(16, 960, None, None)
        now = 101.0
        heartbeat.steps(32, 960, 2.5)
        assert read_training(folder) == Training(16, 960, None, None)  # written two seconds ago at most
        now = 104.0
        heartbeat.steps(216, 960, 2.25)
        found = read_training(folder)
        assert found == Training(216, 960, 2.25, 50.0)
        assert found is not None
        assert found.seconds_left == pytest.approx((960 - 216) / 50.0)
        now = 104.5
        heartbeat.steps(960, 960, 1.0)  # the end is always told
        assert read_training(folder) == Training(960, 960, 1.0, pytest.approx(944 / 4.5))
        now = 105.0
        heartbeat.steps(8, 400, None)  # after a teacher, the trial itself: its rate begins anew
        now = 107.0
        heartbeat.steps(28, 400, None)
        assert read_training(folder) == Training(28, 400, None, 10.0)
    assert read_training(folder) is None
    assert not folder.progress.exists()


def test_the_rate_is_that_of_the_last_half_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, now, seen = TrialFolder(tmp_path), 0.0, 0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with told_in(folder):
        for second in range(120):
            now, seen = float(second), seen + (100 if second < 60 else 10)
            heartbeat.steps(seen, 10**6, None)
        found = read_training(folder)
        assert found is not None
        assert found.examples_per_second == pytest.approx(10.0, rel=0.05)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"examples_seen": "x"}'], ids=range(5))
def test_a_file_that_cannot_be_read_tells_nothing(tmp_path: Path, text: str) -> None:
    folder = TrialFolder(tmp_path)
    folder.progress.write_text(text)
    assert read_training(folder) is None


def test_the_time_left_of_a_sweep_is_shared_by_the_trials_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    clock = SweepClock(trials=10, ended=2)
    assert clock.seconds_left([None], 0.0) is None
    clock.trial_ended(40.0)
    clock.trial_ended(None)  # as of a record without its time
    clock.trial_ended(20.0)
    running = [Training(50, 100, None, 10.0), None]
    assert clock.seconds_left(running, 0.0) == pytest.approx((5.0 + 30.0 + 3 * 30.0) / 2)
    limited = SweepClock(trials=10, minutes=17)
    assert limited.seconds_left([], 0.0) == pytest.approx(20.0)
    assert not limited.knows_trials
    limited.trial_ended(600.0)
    assert limited.knows_trials
    assert limited.seconds_left([], 0.0) == pytest.approx(20.0)


def test_of_a_long_front_the_ends_are_shown() -> None:
    rows = [FrontRow(10.0 * number, float(number), f"t{number:04d}", "bert") for number in range(7)]
    assert front_lines(rows, 4) == [
        "front  EM %      MB  trial  recipe",
        "        0.0     0.0  t0000  bert",
        "       10.0     1.0  t0001  bert",
        "           3 more",
        "       50.0     5.0  t0005  bert",
        "       60.0     6.0  t0006  bert",
    ]
    assert front_lines([], 4) == []


def test_of_a_recipe_rate_rank_and_bits_come_first_and_of_a_path_its_end() -> None:
    settings = {
        "data.max_length": 256,
        "methods.quantize.bits": 8,
        "methods.lora.rank": 16,
        "train.learning_rate": 0.00213456,
    }
    words = recipe_words(
        settings, family="bert", methods="lora+quantize", checkpoint="/data/nets/" + 20 * "a" + "/small"
    )
    assert words == "bert lora+quantize lr=0.00213 rank=16 bits=8 ..." + 15 * "a" + "/small length=256"
    assert recipe_words({}, family="lstm", methods="", checkpoint="tiny") == "lstm tiny"


def test_small_models_are_told_apart_by_their_memory() -> None:
    rows = [
        FrontRow(84.1, 0.4973, "t6", "bert"),
        FrontRow(84.6, 0.5312, "t6", "bert"),
        FrontRow(93.7, 3.83, "t20", "bert"),
    ]
    assert [line.split()[1] for line in front_lines(rows, 8)[1:]] == ["0.497", "0.531", "3.8"]
