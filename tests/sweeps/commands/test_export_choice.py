"""`export`: which model is copied, by limit, trial or stored form, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from sweeps import cli
from sweeps.run_folder.records import append
from tests.sweeps.finished import place_artifact, record
from tests.sweeps.forms import stored, with_forms


def test_export_copies_the_best_model_under_the_budget(
    run_dir: Path, artifact_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qa_core.artifact import artifact

    place_artifact(artifact_folder, run_dir, "t0")
    small = place_artifact(artifact_folder, run_dir, "t1")
    artifact.set_null_threshold(small, 0.25)  # tells the two apart
    out = tmp_path / "out"
    assert cli.main(["export", str(run_dir), "--max-memory-mb", "19.9", "--to", str(out)]) == 0
    assert artifact.load(out).null_threshold == 0.25
    shown = capsys.readouterr().out
    assert "best em_percent with memory_mb <= 19.9 MB, of 1 that fit: trial t1" in shown
    assert f"{out}: bert full micro, em_percent 10.00, memory_mb 5.00" in shown
    larger = tmp_path / "larger"
    assert cli.main(["export", str(run_dir), "--max-memory-mb", "20", "--to", str(larger)]) == 0
    assert artifact.load(larger).null_threshold is None
    named = tmp_path / "named"
    assert cli.main(["export", str(run_dir), "--trial", "t1", "--to", str(named)]) == 0
    assert artifact.load(named).null_threshold == 0.25


def test_export_takes_the_best_that_is_still_there_and_says_which_was_better(
    run_dir: Path, artifact_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place_artifact(artifact_folder, run_dir, "t1")
    arguments = ["export", str(run_dir), "--max", "memory_mb=99", "--to", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "note: trial t0 is better (em_percent 40.00), and its artifact was removed" in shown
    assert "trial t1" in shown


def test_export_copies_the_stored_form_that_fits_or_that_is_named(
    run_with_forms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qa_core.artifact import artifact

    def exported(name: str, *rule: str) -> float | None:
        assert cli.main(["export", str(run_with_forms), *rule, "--to", str(tmp_path / name)]) == 0
        return artifact.load(tmp_path / name).null_threshold

    assert exported("fits", "--max-memory-mb", "19.9") == 0.5
    shown = capsys.readouterr().out
    assert "best em_percent with memory_mb <= 19.9 MB, of 2 that fit: trial t0 int8" in shown
    assert "bert full micro, em_percent 39.00, memory_mb 6.00" in shown
    assert (
        "form int8: methods.quantize.bits=8; EM against the network as trained: -1.50 (-3.25 to +0.25)"
        in shown
    )
    assert exported("named", "--trial", "t0", "--form", "int8") == 0.5
    assert "the form that was asked for: trial t0 int8" in capsys.readouterr().out
    assert exported("twin", "--trial", "t0", "--form", "float32") is None
    assert "form float32" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trial", "t0"], "--form: found none, and trial t0 has 2 stored forms; allowed: int8, float32"),
        (
            ["--trial", "t0", "--form", "int9"],
            "--form: unknown stored form of trial t0 'int9'; did you mean 'int8'?",
        ),
        (
            ["--trial", "t0", "--form", "nf4"],
            "--form: found 'nf4', which is no model: failed: RuntimeError: no kernel; allowed: int8, float32",
        ),
        (
            ["--trial", "t1", "--form", "int8"],
            "--form: unknown stored form of trial t1 'int8' (allowed: none)",
        ),
        (["--form", "int8", "--max", "memory_mb=9"], "--form: found 'int8' without --trial"),
        (
            ["--trial", "t4"],
            "--trial: found 't4', of which no stored form is a model: nf4 failed: RuntimeError",
        ),
        (["--trial", "t9"], "--trial: unknown finished trial 't9'"),
    ],
)
def test_export_names_what_is_wrong_with_a_form(
    options: list[str],
    words: str,
    run_with_forms: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["export", str(run_with_forms), "--to", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err


def test_the_one_stored_form_of_a_trial_needs_no_name(
    run_with_forms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(run_with_forms / "records.jsonl", with_forms(record("t5", 1.0, 30.0), stored("int8", 1.0, 5.5)))
    assert cli.main(["export", str(run_with_forms), "--to", str(tmp_path / "out"), "--trial", "t5"]) == 2
    assert "the artifact of trial t5 int8 is not there" in capsys.readouterr().err


def test_a_record_that_leads_a_form_out_of_the_sweep_is_refused(
    run_with_forms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = replace(stored("int8", 1.0, 1.0), artifact="../../elsewhere")
    append(run_with_forms / "records.jsonl", replace(record("t5", 1.0, 30.0), forms=(away,)))
    assert cli.main(["export", str(run_with_forms), "--to", str(tmp_path / "out"), "--trial", "t5"]) == 2
    assert (
        "trial t5 int8: artifact: found '../../elsewhere'; allowed: a folder of the"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "export: found neither a limit nor a trial"),
        (["--max", "memory_mb=9", "--trial", "t0"], "export: found limits and a trial"),
        (["--max", "memry_mb=9"], "--max: unknown field 'memry_mb'; did you mean 'memory_mb'?"),
        (["--max", "em_percent=9"], "--max: unknown field 'em_percent'"),
        (["--max", "memory_mb"], "--max: found 'memory_mb'; allowed: FIELD=VALUE"),
        (["--max", "memory_mb=much"], "--max memory_mb: found 'much'; allowed: a number above 0, in MB"),
        (["--max-memory-mb", "-3"], "--max memory_mb: found '-3'; allowed: a number above 0"),
        (["--max-memory-mb", "9", "--max", "memory_mb=9"], "--max: memory_mb stands twice"),
        (["--trial", "t9"], "--trial: unknown finished trial 't9'"),
    ],
)
def test_export_names_what_is_wrong_with_a_limit(
    options: list[str], words: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(run_dir), "--to", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err


def test_export_refuses_a_budget_too_small_an_existing_target_and_an_altered_artifact(
    run_dir: Path, artifact_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["export", str(run_dir), "--to", str(out), "--max-memory-mb"]
    assert cli.main([*arguments, "4.9"]) == 2
    assert "--max: found memory_mb=4.9; none of 3 finished trials fits: the smallest memory_mb is 5 (t1)" in (
        capsys.readouterr().err
    )
    assert cli.main([*arguments, "50"]) == 2
    assert "the artifact of trial t0 is not there" in capsys.readouterr().err
    source = place_artifact(artifact_folder, run_dir, "t0")
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    assert cli.main([*arguments, "50"]) == 2
    assert "altered" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    assert cli.main([*arguments, "50"]) == 2
    assert f"{out}: exists already" in capsys.readouterr().err
