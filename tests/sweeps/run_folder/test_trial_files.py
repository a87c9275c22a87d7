"""What is removed of a trial that ended, and what the folders of all trials hold."""

import os
from pathlib import Path

import pytest

from sweeps.run_folder.trial_files import TrialFiles


def _trial(folder: Path, trial_id: str, **sizes: int) -> None:
    for name, size in sizes.items():
        (folder / trial_id / name).mkdir(parents=True)
        (folder / trial_id / name / "file").write_bytes(bytes(size))


def test_a_trial_keeps_its_artifact_until_it_is_no_longer_chosen(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path, "front")
    _trial(tmp_path, "t0", checkpoint=100, artifact=20, other=3)
    files.ended(["t0"], {"t0"})
    assert sorted(item.name for item in (tmp_path / "t0").iterdir()) == ["artifact", "other"]
    assert files.used_bytes([]) == 23
    files.ended([], {"t0", "t1"})
    assert files.used_bytes([]) == 23
    files.ended([], {"t1"})
    assert [item.name for item in (tmp_path / "t0").iterdir()] == ["other"]
    assert files.used_bytes([]) == 3


def test_what_running_trials_hold_is_looked_up_each_time(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path, "all")
    _trial(tmp_path, "t0", artifact=20)
    files.ended(["t0"], ())
    _trial(tmp_path, "t1", checkpoint=100)
    assert files.used_bytes(["t1", "not begun"]) == 120
    _trial(tmp_path, "t1", artifact=5)
    assert files.used_bytes(["t1"]) == 125
    files.ended(["t1"], ())
    assert files.used_bytes([]) == 25


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    """Names come from the sweep itself, but a run folder may have been put together by hand."""
    _trial(tmp_path, "elsewhere", data=50)
    _trial(tmp_path, "elsewhere", checkpoint=50)
    (tmp_path / "t0").mkdir()
    os.symlink(tmp_path / "elsewhere" / "data", tmp_path / "t0" / "checkpoint")
    os.symlink(tmp_path / "elsewhere", tmp_path / "t1")
    TrialFiles(tmp_path, "front").ended(["t0", "t1"], ())
    for name in ("data", "checkpoint"):
        assert (tmp_path / "elsewhere" / name / "file").read_bytes() == bytes(50)


def test_a_trial_that_left_no_folder_holds_nothing(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path, "front")
    files.ended(["t0"], ())
    assert (files.used_bytes(["t0"]), list(tmp_path.iterdir())) == (0, [])


@pytest.mark.parametrize("name", ["trials", "trials/t0", "trials/t0/artifact", "trials/t0/checkpoint"])
def test_nothing_behind_a_link_of_the_sweeps_folder_is_removed(tmp_path: Path, name: str) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    _trial(run / "trials", "t0", checkpoint=10, artifact=10)
    (run / name).rename(outside)
    (run / name).symlink_to(outside)
    before = sorted(path.relative_to(outside) for path in outside.rglob("*"))
    assert before
    TrialFiles(run / "trials", "front").ended(["t0"], ())
    assert sorted(path.relative_to(outside) for path in outside.rglob("*")) == before
