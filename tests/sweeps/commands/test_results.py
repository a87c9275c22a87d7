"""`front`: the points that nothing beats, and folders that it cannot read."""

from pathlib import Path

import pytest

from sweeps import cli


def test_front_shows_the_points_that_nothing_beats_and_writes_them(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = tmp_path / "new" / "f.csv"
    assert cli.main(["front", str(run_dir), "--csv", str(csv)]) == 0
    shown = capsys.readouterr().out
    assert "t0" in shown
    assert "t1" in shown
    assert "t2" not in shown
    assert csv.read_text().splitlines()[1].startswith("t0,,40.0,20.0,")


def test_front_of_a_folder_without_a_readable_spec_is_refused(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"error: {run_dir / 'spec.json'}: objectives"
    cannot = f"{place} of the sweep cannot be read: "
    for text, expected in (
        ('{"objectives": [{"name": "em"}]}', f"{cannot}goal: missing, and it has no default"),
        ('{"objectives": [{"name": "em", "goal": "max"}]}', f"{cannot}unknown objective 'em'"),
        (
            '{"objectives": [{"name": "em_percent", "goal": "up"}]}',
            f"{cannot}goal: found 'up'; allowed: min or max",
        ),
        ("{}", f"{place}: found none; allowed: "),
        ("{", f"{cannot}cannot be read: "),
    ):
        (run_dir / "spec.json").write_text(text)
        assert cli.main(["front", str(run_dir)]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith(expected)
        assert len(shown.splitlines()) == 1


def test_front_before_the_first_trial_has_ended_says_so(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "records.jsonl").unlink()
    assert cli.main(["front", str(run_dir)]) == 2
    assert (
        "records.jsonl: cannot be read: there is none, as before the first trial" in capsys.readouterr().err
    )
