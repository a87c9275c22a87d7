"""What is removed of a trial that ended, and what the folders of all trials hold."""

import os
from pathlib import Path

import pytest

from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.trial_files import TrialFiles


def _trial(folder: Path, trial_id: str, **sizes: int) -> None:
    for name, size in sizes.items():
        (folder / trial_id / name).mkdir(parents=True)
        (folder / trial_id / name / "file").write_bytes(bytes(size))


def test_a_trial_keeps_its_artifact_until_it_is_no_longer_chosen(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path, "front")
    _trial(tmp_path, "t0", checkpoint=100, artifact=20, other=3)
    files.ended(["t0"], {ModelId("t0")})
    assert sorted(item.name for item in (tmp_path / "t0").iterdir()) == ["artifact", "other"]
    assert files.used_bytes([]) == 23
    files.ended([], {ModelId("t0"), ModelId("t1")})
    assert files.used_bytes([]) == 23
    files.ended([], {ModelId("t1")})
    assert [item.name for item in (tmp_path / "t0").iterdir()] == ["other"]
    assert files.used_bytes([]) == 3


def _form(folder: Path, trial_id: str, label: str, size: int) -> None:
    _trial(folder / trial_id / "forms", label, artifact=size)
    (folder / trial_id / "forms" / label / "answers.parquet").write_bytes(bytes(1))


def test_of_a_trial_with_forms_those_that_are_beaten_go_and_the_twin_stays_with_the_last(
    tmp_path: Path,
) -> None:
    files = TrialFiles(tmp_path, "front")
    _trial(tmp_path, "t0", checkpoint=100, artifact=50)
    for label, size in (("int8", 20), ("int8+e8", 10), ("nf4", 5)):
        _form(tmp_path, "t0", label, size)
    _trial(tmp_path, "t0/forms/nf4", **{".artifact.17.tmp": 7})  # of a killed worker
    (tmp_path / "t0" / "forms" / "twin.json").write_bytes(bytes(4))

    def there() -> list[str]:
        return sorted(str(item.relative_to(tmp_path / "t0")) for item in tmp_path.rglob("*artifact*"))

    files.ended(["t0"], {ModelId("t0", "int8"), ModelId("t0", "int8+e8")})
    assert there() == ["artifact", "forms/int8+e8/artifact", "forms/int8/artifact"]
    assert files.used_bytes([]) == 50 + 20 + 10 + 3 + 4
    files.ended([], {ModelId("t0", "int8+e8"), ModelId("t1")})
    assert there() == ["artifact", "forms/int8+e8/artifact"]
    assert files.used_bytes([]) == 50 + 10 + 3 + 4
    files.ended([], {ModelId("t1", "int8")})
    assert there() == []
    assert files.used_bytes([]) == 3 + 4
    assert len(list(tmp_path.rglob("answers.parquet"))) == 3


def test_the_twin_that_is_a_point_of_its_own_stays_while_it_is_chosen(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path, "front")
    _trial(tmp_path, "t0", artifact=50)
    _form(tmp_path, "t0", "int8", 20)
    files.ended(["t0"], {ModelId("t0", "float32")})
    assert files.used_bytes([]) == 50 + 1
    all_kept = TrialFiles(tmp_path, "all")
    _form(tmp_path, "t1", "int8", 20)
    all_kept.ended(["t1"], ())
    assert all_kept.used_bytes(["t0"]) == 50 + 1 + 20 + 1


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


@pytest.mark.parametrize(
    "name",
    [
        "trials",
        "trials/t0",
        "trials/t0/artifact",
        "trials/t0/checkpoint",
        "trials/t0/forms",
        "trials/t0/forms/int8",
        "trials/t0/forms/int8/artifact",
    ],
)
def test_nothing_behind_a_link_of_the_sweeps_folder_is_removed(tmp_path: Path, name: str) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    _trial(run / "trials", "t0", checkpoint=10, artifact=10)
    _form(run / "trials", "t0", "int8", 10)
    (run / name).rename(outside)
    (run / name).symlink_to(outside)
    before = sorted(path.relative_to(outside) for path in outside.rglob("*"))
    assert before
    TrialFiles(run / "trials", "front").ended(["t0"], ())
    assert sorted(path.relative_to(outside) for path in outside.rglob("*")) == before
