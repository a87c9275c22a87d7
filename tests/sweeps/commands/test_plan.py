"""`plan` and `validate`: what a sweep would do and need, found out without a sweep."""

from pathlib import Path
from typing import Any

import pytest

from sweeps import cli
from tests.sweeps.from_scratch import FROM_SCRATCH, SMALL


def test_the_plan_lists_legal_and_dropped_combinations_and_rungs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *SMALL, "--set", "space.model.family.choice=[bert, lstm]"]) == 0
    shown = capsys.readouterr().out
    assert "model.family=bert, methods=lora" in shown
    assert "model.family=lstm, methods=lora: method 'lora' needs linear_layers" in shown
    assert "rungs at examples: 2400, 7200, 21600" in shown


def plan_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Run `plan` on the quickstart's LSTMs, or on what the arguments say; returns the lines that it prints."""
    code = cli.main(["plan", *SMALL, *arguments])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= 100
    return lines


def row_of(lines: list[str], *words: str) -> list[str]:
    """Return what follows the words in the one line that begins with them."""
    (found,) = [line.split() for line in lines if line.split()[: len(words)] == [*words]]
    return found[len(words) :]


def test_the_plan_predicts_memory_by_family_methods_and_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = plan_of(capsys, "--max-memory-mb", "99")
    small, large = (row_of(lines, "lstm", "full", size) for size in ("micro", "tiny"))
    assert small[-1] == large[-1] == "none"
    low, dash, high = small[:3]  # without attention, and with it
    assert dash == "-"
    assert 0 < float(low) < float(high) < float(large[0])
    assert float(high) < float(small[3]), "eight windows need more than one"
    some = plan_of(capsys, "--max-memory-mb", str((float(low) + float(high)) / 2))
    assert row_of(some, "lstm", "full", "micro")[-1] == "some"
    assert row_of(some, "lstm", "full", "tiny")[-1] == "all"
    assert lines[-1].startswith("hours: not estimated; --calibrate")


def test_a_checkpoint_that_is_not_there_is_said_once_and_nothing_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "of a long name that leaves no room in a table of a hundred columns")
    bert = ["--config", str(FROM_SCRATCH), "--set", "space=[]", "--set", "recipe.model.family=bert"]
    for command in ("plan", "validate"):
        assert cli.main([command, *bert, "--set", f"recipe.model.checkpoint={absent}"]) == 2
        shown = capsys.readouterr()
        assert shown.err.count("no such file or folder") == 1
        assert shown.out == ""


def test_a_plan_of_a_grid_shows_its_own_proposals(capsys: pytest.CaptureFixture[str]) -> None:
    rates = "[{set: train.learning_rate, choice: [0.004, 0.002, 0.001]}]"
    options = [
        "--set",
        f"space={rates}",
        "--set",
        "recipe.model.family=lstm",
        "--set",
        "searcher={name: grid}",
    ]
    lines = plan_of(capsys, *options, "--set", "recipe.model.checkpoint=micro")
    start = lines.index("the first proposals:")
    assert lines[start + 1 : start + 4] == [f"  train.learning_rate={rate}" for rate in (0.004, 0.002, 0.001)]


def test_a_price_in_the_file_does_not_end_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    lines = plan_of(capsys, "--set", "budget.price_per_hour=2.5")
    assert lines[-1].startswith("hours and money: not estimated; --calibrate")


def test_hours_and_money_follow_from_timed_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qa_core import calibration

    def timed(config: Any, **options: Any) -> calibration.Timing:
        return calibration.Timing({"micro": 1.0, "tiny": 2.0}[config.model.checkpoint], 0.0)

    monkeypatch.setattr(calibration, "timed_recipe", timed)
    sizes = ["--set", "budget.examples=7200", "--trials", "8", "--concurrent", "1"]
    lines = plan_of(capsys, "--calibrate", "--price-per-hour", "2", *sizes)
    assert row_of(lines, "lstm", "full", "micro")[-2:] == ["2.0", "h"]
    assert row_of(lines, "lstm", "full", "tiny")[-2:] == ["4.0", "h"]
    assert "training and evaluation of the whole sweep on one machine like this, 1 trial at a time:" in lines
    most = row_of(lines, "at", "most,", "every", "trial", "to", "the", "full", "budget:")
    assert float(most[0]) == pytest.approx(8 * 3.0, rel=0.05)  # half of the recipes are of each size
    assert float(most[2]) == pytest.approx(2 * float(most[0]), rel=0.01)
    least = row_of(lines, "at", "least,", "halving", "at", "each", "rung:")
    assert float(least[0]) == pytest.approx(float(most[0]) * (2400 + 4800 / 3) / 7200, rel=0.02)


def test_answers_at_rungs_and_at_the_end_are_in_the_hours_and_progress_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qa_core import calibration
    from qa_core.data import prepare

    monkeypatch.setattr(calibration, "timed_recipe", lambda config, **options: calibration.Timing(1.0, 3.0))
    monkeypatch.setattr(prepare, "scored_questions", lambda data, **options: (100, 600))
    code = cli.main(["plan", *SMALL, "--calibrate", "--set", "budget.examples=3600", "--concurrent", "1"])
    shown = capsys.readouterr()
    assert code == 0
    rungs = 1  # at 2,400 examples
    found = row_of(shown.out.splitlines(), "lstm", "full", "micro")[-2:]
    assert found == [f"{(3600 * 1.0 + 3.0 * (rungs * 100 + 600)) / 3600:.1f}", "h"]
    assert "timing 1 of 2: lstm full micro" in shown.err


def test_a_row_that_cannot_be_timed_says_why_and_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qa_core import calibration

    def timed(config: Any, **options: Any) -> calibration.Timing:
        if config.model.checkpoint == "tiny":
            raise RuntimeError("not enough memory\nand a traceback")
        return calibration.Timing(1.0, 0.1)

    monkeypatch.setattr(calibration, "timed_recipe", timed)
    lines = plan_of(capsys, "--calibrate")
    assert row_of(lines, "lstm", "full", "tiny")[-1] == "?"
    assert "  lstm full tiny: not enough memory" in lines
    assert any(line.startswith("  at most") for line in lines)


def test_validate_reads_the_data_and_names_what_is_wrong_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["validate", *SMALL]) == 0
    assert "train: sample:" in capsys.readouterr().out
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert cli.main(["validate", *SMALL, "--data", str(bad), "--eval-data", "sample"]) == 2
    assert str(bad) in capsys.readouterr().err
    assert cli.main(["validate", *SMALL, "--set", f"recipe.data.cross_domain=[{bad}]"]) == 2
    assert str(bad) in capsys.readouterr().err
    assert cli.main(["validate", *SMALL, "--set", "recipe.data.cross_domain=[sample]"]) == 0
    assert capsys.readouterr().out.count("dev: sample: 630 questions") == 1  # told once, for both uses
    assert cli.main(["validate", *SMALL, "--data", str(bad)]) == 2
    assert str(bad) in capsys.readouterr().err


FORMS = ["--set", "forms.quantize={bits: [32, 8, 4], embedding_bits: [32, 8]}"]


def test_the_plan_counts_stored_forms_and_their_disk_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    alone = row_of(plan_of(capsys), "lstm", "full", "micro")
    lines = plan_of(capsys, *FORMS)
    text = " ".join(" ".join(lines).split())
    assert "lstm full micro: 6 (" in text
    assert "MB on disk): float32, float32+e8, int8, int8+e8, nf4, nf4+e8" in text
    low, _, high = row_of(lines, "lstm", "full", "micro")[:3]
    assert float(low) < float(alone[0])  # the smallest form
    assert high == alone[2]  # the twin is listed
    assert "stored forms of each training:" not in plan_of(capsys)


def test_scoring_and_storing_count_for_each_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qa_core import calibration
    from qa_core.data import prepare

    timing = calibration.Timing(1.0, 3.0, storing_seconds=360.0)
    monkeypatch.setattr(calibration, "timed_recipe", lambda config, **options: timing)
    monkeypatch.setattr(prepare, "scored_questions", lambda data, **options: (100, 600))
    options = ["--calibrate", "--set", "budget.examples=3600", "--concurrent", "1"]
    for forms, times in ([], 1), (FORMS, 6), (["--set", "forms.quantize.bits=[8]"], 2):  # and the twin
        found = row_of(plan_of(capsys, *options, *forms), "lstm", "full", "micro")[-2:]
        seconds = 3600 * 1.0 + 3.0 * (100 + times * 600) + times * 360.0
        assert found == [f"{seconds / 3600:.1f}", "h"]


def test_a_searched_quantisation_is_hinted_to_be_a_stored_form(capsys: pytest.CaptureFixture[str]) -> None:
    hint = "methods quantize is searched, which trains a network for each choice; under forms"
    assert hint not in " ".join(plan_of(capsys, *FORMS))
    lines = plan_of(capsys, "--set", "space.methods.choice=[full, quantize]")
    assert hint in " ".join(" ".join(lines).split())


def test_a_scheduler_that_looks_at_one_of_two_objectives_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--set", "scheduler.name=asha", "--set", "scheduler.options={grace_examples: 2400, eta: 3}"]
    assert cli.main(["validate", *SMALL, *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "scheduler asha stops trials by em_percent alone; memory_mb: measured and on the front" in shown
    assert cli.main(["validate", *SMALL]) == 0
    assert "asha stops trials by" not in capsys.readouterr().out
