"""The command line: options and their settings, help, exit codes and refusals."""

import subprocess
import sys
from typing import Any

import pytest

from sweeps import cli
from sweeps.commands import options
from sweeps.spec.sections import SweepSpec


def test_version_short_help_and_completion(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "qa-sweep 0.1.0\n"
    assert cli.main(["run", "-h"]) == 0
    assert "--json-events" in capsys.readouterr().out
    monkeypatch.setenv("_QA_SWEEP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "qa-sweep va")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        cli.main([])
    assert capsys.readouterr().out.split() == ["validate"]


def test_quiet_and_json_events_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--quiet", "--json-events"]) == 2
    assert "--quiet: found with --json-events; allowed: one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["--trials", "7"], "budget.trials", 7),
        (["--max-memory-mb", "12.5"], "budget.max_memory_mb", 12.5),
        (["--price-per-hour", "0.5"], "budget.price_per_hour", 0.5),
        (["--concurrent", "1"], "budget.concurrent", 1),
        (["--seed", "9"], "seed", 9),
        (["--data", "a b: c#d.json"], "recipe.data.train", "a b: c#d.json"),
        (["--data", "7"], "recipe.data.train", "7"),
        (["--eval-data", "dev.json"], "recipe.data.evaluation", "dev.json"),
        (["--columns", "question=q: a, id=#"], "recipe.data.columns", {"question": "q: a", "id": "#"}),
        (["--set", "recipe.data.columns={answer: gold}"], "recipe.data.columns", {"answer": "gold"}),
        (["--set", "budget.examples=9000", "--set", "name=other"], "name", "other"),
        (["--set", "budget.trials=3", "--trials", "7"], "budget.trials", 7),
    ],
)
def test_an_option_is_an_override_of_the_setting_that_it_names(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], path: str, value: object
) -> None:
    from sweeps.commands import plan

    seen: list[SweepSpec] = []
    monkeypatch.setattr(plan, "plan", lambda spec, calibrate: seen.append(spec) or 0)
    assert cli.main(["plan", *arguments]) == 0
    found: Any = seen[0].as_dict()
    for part in path.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_every_option_of_the_spec_stands_on_run_plan_and_validate(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"--config", "--set", *(f"--{name.replace('_', '-')}" for name in options.SETTINGS)}
    assert len(names) == 12
    for command in ("run", "plan", "validate"):
        assert cli.main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert [name for name in sorted(names) if name not in shown] == []


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert "..." not in shown.partition("Commands:")[2]  # no sentence is cut
    assert max(map(len, shown.splitlines())) <= 80
    for name in (
        "run",
        "validate",
        "plan",
        "data",
        "front",
        "export",
        "evaluate",
        "predict",
        "score",
        "doctor",
    ):
        assert f"\n  {name} " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["plan", "--config", "quickstrt"],
            "error: --config: unknown configuration 'quickstrt'; did you mean",
        ),
        (["plan", "--config", "absent.yaml"], "error: absent.yaml: cannot be read"),
        (["plan", "--set", "budget.trails=3"], "did you mean 'trials'?"),
        (["plan", "--trials", "0"], "budget.trials"),
        (["plan", "--trials", "many"], "error: --trials: found 'many'; allowed: a whole number"),
        (["plan", "--trials", "+5"], "with --resume +N for N more"),
        (["run", "--resume", "absent"], "error: absent/spec.json: settings of the sweep cannot be read"),
        (["run", "--resume", "absent", "--seed", "4"], "error: --seed: not with --resume"),
        (["run", "--resume", "absent", "--set", "seed=4"], "error: --set: not with --resume"),
        (["run", "--resume", "absent", "--eval-data", "x"], "error: --eval-data: not with --resume"),
        (["run", "--calibrate"], "error: --calibrate: found without --dry-run"),
        (
            ["plan", "--columns", "quest=q"],
            "error: --columns: unknown field 'quest'; did you mean 'question'?",
        ),
        (["data", "absent.csv"], "error: absent.csv: found no such file"),
        (["data"], "error: Missing argument 'DATA'"),
        (["plan", "--nonsense"], "error: No such option: --nonsense"),
        (["nonsense"], "error: No such command 'nonsense'"),
        (["export", "x"], "error: Missing option"),
        (["front", "absent"], "error: absent/records.jsonl: cannot be read"),
        (["predict", "absent"], "error: predict: expected --question with --context"),
        (["predict", "absent", "--question", "q"], "expected --question with --context"),
        (["predict", "absent", "--input", "./x.json"], "error: ./x.json: found no such file"),
        (["predict", "absent", "--input", "x", "--n-best", "0"], "--n-best: found 0; allowed: 1 or more"),
        (
            ["predict", "absent", "--input", "x", "--format", "xml"],
            "--format: found 'xml'; allowed: text, json",
        ),
        (
            ["predict", "absent", "--input", "x", "--format", "squad", "--n-best", "2"],
            "--n-best: found 2 with the format squad",
        ),
        (["predict", "absent", "--input", "x", "--question", "q"], "--input beside --question"),
        (["evaluate", "absent", "sample"], "error: absent: not an artifact"),
        (["evaluate", "absent"], "error: evaluate: expected DATA, or --probes, or both"),
        (["evaluate", "absent", "--probes", "--against", "x"], "error: --against: found 'x' without DATA"),
        (["evaluate", "absent", "--probes", "--semantic", "x"], "error: --semantic: found 'x' without DATA"),
        (["evaluate", "absent", "--probes"], "error: absent: not an artifact"),
        (["score", "absent.json", "absent.json"], "error: absent.json"),
        (["score", "a", "b", "--official", "v3"], "error: Invalid value for '--official'"),
    ],
)
def test_bad_input_is_one_message_on_stderr_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.startswith("error: ")
    assert output.out == ""


def test_help_comes_within_a_second_and_without_heavy_imports() -> None:
    code = (
        "import sys, time\n"
        "from sweeps.cli import main; main(['--help'])\n"
        "heavy = {'ray', 'torch', 'mlflow', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "print(time.process_time(), heavy)"
    )
    best = 9.0
    for _ in range(
        3
    ):  # CPU time, since the machine may be busy; even so the fastest of three says what it costs
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds, heavy = done.stdout.splitlines()[-1].split(" ", 1)
        assert heavy == "set()"
        best = min(best, float(seconds))
    assert best < 1.0
