"""What a sweep prints: plain lines, or a bar on a terminal; errors grouped; the front when it changes."""

import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sweeps.progress.console import SweepConsole, error_signature
from sweeps.progress.status import Training
from sweeps.run_folder.layout import RunFolder

PROGRESS = {
    "examples_seen": 2000,
    "budget_examples": 18000,
    "train_loss": 2.31449,
    "selection_em_percent": 23.46,
    "selection_f1_percent": 30.0,
    "memory_mb": 12.54,
    "train_seconds": 4.0,
}
FRONT = [
    {"trial_id": "t2", "em_percent": 61.25, "memory_mb": 20.0, "on_front": True},
    {"trial_id": "t1", "em_percent": 41.0, "memory_mb": 3.14, "on_front": True},
    {"trial_id": "t0", "em_percent": 5.0, "memory_mb": 30.0, "on_front": False},
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ok(trial_id: str) -> dict[str, Any]:
    objectives = {"em_percent": 61.25, "memory_mb": 12.5}
    return {
        "trial_id": trial_id,
        "status": "ok",
        "quality": {"em_percent": 61.25, "f1_percent": 70.0},
        "objectives": objectives,
        "seconds": 83.2,
    }


def ended(trial_id: str, status: str, reason: str) -> dict[str, Any]:
    return {"trial_id": trial_id, "status": status, "reason": reason, "quality": None, "seconds": 1.0}


def test_every_event_is_one_plain_line_where_there_is_no_terminal() -> None:
    output = io.StringIO()
    console = SweepConsole(output)
    console.start("quick", 3, Path("runs/quick"))
    console.trial_started("t0000", "bert full")
    console.trial_reported("t0000", PROGRESS)
    console.trial_ended(ok("t0000"))
    console.front_changed(FRONT, 0.5)
    console.trial_started("t0001", "t5 lora")
    console.trial_ended(ended("t0001", "stopped", "stopped by scheduler 'asha' at 2000 examples"))
    console.finish({"ok": 1, "stopped": 1})
    lines = output.getvalue().splitlines()
    assert lines[:-1] == [
        "sweep  quick: 3 trials into runs/quick",
        "t0000  started   bert full",
        "t0000  rung      2000/18000 examples, loss 2.314, selection EM 23.5, 12.5 MB",
        "t0000  finished  EM 61.2, F1 70.0, at 12.5 MB, 1 min 23 s  [bert full]",
        "       front     EM 41.0 at 3.1 MB, 61.2 at 20.0 MB  (hypervolume 0.5)",
        "t0001  started   t5 lora",
        "t0001  stopped   stopped by scheduler 'asha' at 2000 examples  [t5 lora]",
    ]
    assert lines[-1].startswith("sweep  1 finished, 1 stopped in ")
    assert "\x1b" not in output.getvalue()


def test_a_trial_with_forms_says_how_many_and_each_that_failed(tmp_path: Path) -> None:
    failed = {"status": "failed", "reason": "RuntimeError: no kernel for 12 rows", "objectives": None}
    forms = [
        {"label": "nf4", **failed},
        {
            "label": "int8",
            "status": "ok",
            "reason": None,
            "objectives": {"memory_mb": 3.14, "em_percent": 60.0},
        },
        {
            "label": "float32",
            "status": "ok",
            "reason": None,
            "objectives": {"memory_mb": 12.5, "em_percent": 61.0},
        },
        {"label": "int8+e8", "status": "skipped", "reason": "over budget", "objectives": None},
    ]
    outcome = tmp_path / "trials" / "t0000" / "forms" / "nf4" / "outcome.json"
    outcome.parent.mkdir(parents=True)
    outcome.write_text("{}")
    output = io.StringIO()
    console = SweepConsole(output)
    console.start("quick", 2, tmp_path)
    console.trial_ended({**ok("t0000"), "seconds": 9.5, "forms": forms})
    console.trial_ended({**ok("t0001"), "forms": forms[:1]})
    console.finish({"ok": 2})
    lines = output.getvalue().splitlines()
    assert lines[1:5] == [
        "t0000  finished  EM 61.2, F1 70.0, at 12.5 MB as trained; 2 forms from 3.1 MB, 1 skipped, 1 failed, 9.5 s",
        "t0000  form      nf4 failed: RuntimeError: no kernel for 12 rows",
        "t0001  finished  EM 61.2, F1 70.0, at 12.5 MB as trained; 0 forms, 1 failed, 1 min 23 s",
        "t0001  form      nf4 failed: as t0000 nf4",
    ]
    assert lines[-2:] == [
        "       error     2x RuntimeError: no kernel for N rows",
        f"                 trials t0000 nf4, t0001 nf4; open {outcome}",
    ]


def test_a_front_without_memory_names_its_models() -> None:
    output = io.StringIO()
    points = [{"trial_id": "t0", "form": "int8"}, {"trial_id": "t1", "form": None}]
    SweepConsole(output).front_changed(points, 1.0)
    assert "t0 int8, t1  (hypervolume 1)" in output.getvalue()


def test_the_front_is_shown_again_only_when_it_reads_differently() -> None:
    output = io.StringIO()
    console = SweepConsole(output)
    console.front_changed(FRONT, 0.5)
    console.front_changed(list(reversed(FRONT)), 0.5)
    console.front_changed(FRONT[:1], 0.4)
    console.front_changed([], 0.0)
    assert [line.split("EM")[1] for line in output.getvalue().splitlines()] == [
        " 41.0 at 3.1 MB, 61.2 at 20.0 MB  (hypervolume 0.5)",
        " 61.2 at 20.0 MB  (hypervolume 0.4)",
    ]


def test_a_long_front_is_shown_by_its_ends() -> None:
    output = io.StringIO()
    points = [{"em_percent": 10.0 + index, "memory_mb": 1.0 + index} for index in range(11)]
    SweepConsole(output).front_changed(points, 1.0)
    text = output.getvalue()
    assert "10.0 at 1.0 MB" in text
    assert "20.0 at 11.0 MB" in text
    assert "... 3 more ..." in text
    assert text.count("at") == 8


def test_equal_errors_are_told_once_and_grouped_with_the_file_to_open(tmp_path: Path) -> None:
    output = io.StringIO()
    outcome = tmp_path / "trials" / "t0001" / "outcome.json"
    outcome.parent.mkdir(parents=True)
    outcome.write_text("{}")
    console = SweepConsole(output)
    console.start("quick", 4, tmp_path)
    console.trial_ended(ended("t0000", "oom", "OutOfMemoryError: tried 20.5 MiB"))
    console.trial_ended(ended("t0001", "failed", "DataError: /a/b.json:12: wrong offset 7"))
    console.trial_ended(ended("t0002", "failed", "DataError: /a/c.json:99: wrong offset 123"))
    console.finish({"failed": 2, "oom": 1})
    lines = output.getvalue().splitlines()
    assert lines[2:4] == [
        "t0001  failed    DataError: /a/b.json:12: wrong offset 7",
        "t0002  failed    as t0001",
    ]
    assert lines[-4:] == [
        "       error     2x DataError: PATH:N: wrong offset N",
        f"                 trials t0001, t0002; open {outcome}",
        "       error     1x OutOfMemoryError: tried N MiB",
        f"                 trials t0000; open {tmp_path / 'records.jsonl'}",
    ]


def test_a_reason_of_many_lines_stays_on_one_line() -> None:
    output = io.StringIO()
    SweepConsole(output).trial_ended(ended("t0", "failed", "RuntimeError: a\n  b\n" + "x" * 500))
    (line,) = output.getvalue().splitlines()
    assert line.startswith("t0     failed    RuntimeError: a b xxx")
    assert line.endswith("...")
    assert len(line) < 200


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ValueError: size 12 at 0x7fa", "ValueError: size 9 at 0x1b2", True),
        ("DataError: /tmp/a/t0001/x: bad", "DataError: /var/t0002/y: bad", True),
        ("ValueError: use float32", "ValueError: use float16", False),
        ("ValueError: bad head", "TypeError: bad head", False),
        ("ConfigError: a/b is unknown", "ConfigError: a/c is unknown", False),
    ],
)
def test_errors_that_differ_only_in_numbers_and_paths_have_one_signature(
    one: str, other: str, same: bool
) -> None:
    assert (error_signature(one) == error_signature(other)) is same


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    output = Terminal()
    console = SweepConsole(output)
    console.start("quick", 2, Path("runs/quick"))
    console.trial_started("t0000", "bert [full]")
    console.trial_ended(ok("t0000"))
    console.finish({"ok": 1})
    console.close()
    text = output.getvalue()
    assert "1/2" in text
    assert "1 running" in text
    assert "bert [full]" in text  # brackets are text, not markup
    assert "\x1b[?25h" in text  # the cursor is back
    assert "sweep  1 finished in " in text.rstrip().splitlines()[-1]


def test_an_event_is_broken_between_words_on_a_terminal_and_a_note_stays_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    output = Terminal()
    console = SweepConsole(output)
    console.start("quick", 2, Path("runs/quick"))
    console.trial_started(
        "t0000", "bert static_prune+distill lr=0.00134 sample-micro length=128 batch=16 teacher=x"
    )
    command = f"resume with: qa-sweep run --resume {'a/long/folder/' * 6}quick"
    console.note(command)
    console.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.getvalue()).replace("\r", "\n").splitlines()
    at = shown.index("t0000  started   bert static_prune+distill lr=0.00134 sample-micro length=128")
    assert shown[at + 1] == " " * 17 + "batch=16 teacher=x"
    assert f"       note      {command}" in shown


def test_a_rung_at_which_nothing_was_trained_has_no_loss() -> None:
    output = io.StringIO()
    SweepConsole(output).trial_reported("t0000", {**PROGRESS, "train_loss": None})
    assert output.getvalue().split("rung", 1)[1].split() == (
        ["2000/18000", "examples,", "selection", "EM", "23.5,", "12.5", "MB"]
    )


def test_a_trial_that_pauses_gives_up_its_place_and_says_why() -> None:
    output = io.StringIO()
    console = SweepConsole(output)
    console.trial_started("t0000", "bert full")
    console.trial_paused("t0000", 600, "at the score of no answer")
    console.trial_started("t0000", "bert full")
    console.trial_ended(ok("t0000"))
    console.finish({"ok": 1, "paused": 2})
    lines = output.getvalue().splitlines()
    assert lines[1] == "t0000  paused    at 600 examples: at the score of no answer  [bert full]"
    assert lines[-1].startswith("sweep  1 finished, 2 paused in ")


def run_two(console: SweepConsole, folder: Path) -> None:
    """Show a sweep of which one trial trains, another prepares and a third has ended."""
    label = "distilbert lora lr=0.00213 rank=16 ...mers/all-MiniLM-L6-v2 batch=16 targets=all_linear"
    console.start("quick", 9, folder, minutes=30)
    console.trial_started("t0000", "bert full tiny lr=0.001")
    console.trial_ended(ok("t0000"))
    point = {
        **FRONT[0],
        "trial_id": "t0000",
        "form": "int8+e8",
        "family": "distilbert",
        "methods": "lora",
        "checkpoint": "sentence-transformers/all-MiniLM-L6-v2",
        "data.max_length": 256,
        "methods.lora.rank": 8,
        "train.learning_rate": 0.0021311,
        "methods.quantize.bits": 8,
    }
    console.front_changed([point], 0.5)
    console.trial_started("t0001", label)
    console.trial_started("t0002", label)
    place = RunFolder(folder).trial("t0001")
    place.path.mkdir(parents=True)
    place.progress.write_text(json.dumps(asdict(Training(12_345, 21_600, 2.31449, 412.4))))


def test_what_runs_is_shown_below_the_lines_of_a_terminal_within_its_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (80, 120):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(width))
        output = Terminal()
        console = SweepConsole(output)
        run_two(console, tmp_path / str(width))
        console._advance()
        console.close()
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.getvalue()).replace("\r", "\n").splitlines()
        front = [line for line in shown if "int8+e8" in line][-1]
        first, second = ([line for line in shown if line.startswith(name)][-1] for name in ("t0001", "t0002"))
        assert all(len(line) <= width for line in (front, first, second))
        assert front.rstrip().startswith(
            "       61.2    20.0  t0000 int8+e8  distilbert lora lr=0.00213 rank=8 bits=8"
        )
        assert first.startswith(
            "t0001   12345/21600   412  2.314     22.4 s  distilbert lora lr=0.00213 rank=16"
        )
        assert second.startswith(f"t0002  {'preparing':>36}  distilbert lora lr=0.00213 rank=16")
        sweep = [line for line in shown if line.startswith("sweep  1/9 trials, 2 running, ")][-1]
        assert sweep.rstrip().endswith("about 5 min 02 s left")  # (6 x 83.2 s + 83.2 s + 22.4 s) / 2
        if width == 120:
            assert "...mers/all-MiniLM-L6-v2 length=256" in front  # of a path, the end


def test_where_there_is_no_terminal_each_running_trial_has_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.StringIO()
    console = SweepConsole(output)
    run_two(console, tmp_path)
    before = output.getvalue()
    console._status_lines()
    assert output.getvalue() == before  # not yet
    monkeypatch.setattr("sweeps.progress.console.STATUS_SECONDS", 0.0)
    console._status_lines()
    console.close()
    lines = output.getvalue().removeprefix(before).splitlines()
    assert lines[:2] == [
        "t0001  running   12345/21600 examples, 412/s, loss 2.314, 22.4 s left",
        "t0002  running   preparing",
    ]
    assert lines[2].startswith("sweep  1/9 trials, 2 running, ")
    assert "\x1b" not in output.getvalue()


def test_a_quiet_console_shows_what_fails_and_how_it_ends(tmp_path: Path) -> None:
    output, warnings = io.StringIO(), io.StringIO()
    console = SweepConsole(output, is_quiet=True, warnings=warnings)
    console.section("data", ["train: a.csv: 12 questions"])
    console.warning("the ceiling is low")
    run_two(console, tmp_path)
    console.trial_reported("t0001", PROGRESS)
    console.trial_ended(ended("t0001", "failed", "ValueError: bad"))
    console.note("budget.time_minutes: 1 min are over; running trials write checkpoints")
    console.finish({"ok": 1, "failed": 1})
    begun, failed, note, finished, *_ = output.getvalue().splitlines()
    assert begun.startswith("sweep  quick: 9 trials into ")
    assert failed.startswith("t0001  failed    ValueError: bad")
    assert note.startswith("       note      budget.time_minutes")
    assert finished.startswith("sweep  1 failed, 1 finished in ")
    assert "rung" not in output.getvalue()
    assert "front" not in output.getvalue()
    assert "12 questions" not in output.getvalue()
    assert warnings.getvalue() == "warning: the ceiling is low\n"


def test_the_stream_of_a_notebook_is_written_to_as_it_is() -> None:
    class Cell(io.StringIO):
        def fileno(self) -> int:  # of the terminal in which the notebook's server was started
            return 1

    cell = Cell()
    SweepConsole(cell).note("here")
    assert "here" in cell.getvalue()


def test_a_warning_is_broken_between_words_on_a_terminal_and_is_one_line_elsewhere():
    text = f"train: /a/{'long/' * 20}name.json.gz: exact match cannot pass 96.6 with {'a tokenizer, ' * 8}at last"
    terminal, pipe = Terminal(), io.StringIO()
    for warnings in (terminal, pipe):
        SweepConsole(io.StringIO(), warnings=warnings).warning(text)
    lines = terminal.getvalue().splitlines()
    assert " ".join(line.strip() for line in lines) == f"warning: {text}"
    assert max(len(line) for line in lines if "/long/" not in line) <= 80
    assert len(lines) > 3
    assert pipe.getvalue() == f"warning: {text}\n"
