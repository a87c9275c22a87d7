"""The command line: options and their settings, exit codes, and commands on real small inputs.

`run`, `plan` and `validate` have files of their own in `commands/`.
"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps import cli
from sweeps.commands import options
from sweeps.run_folder.records import Record, append
from sweeps.spec.objectives import Objective
from sweeps.spec.sections import SweepSpec
from tests.sweeps.forms import stored, with_forms, without

PROJECT = Path(__file__).resolve().parents[2]
FROM_SCRATCH = PROJECT / "tests" / "sweeps" / "from_scratch.yaml"
SMALL = [
    "--config",
    str(FROM_SCRATCH),
    "--set",
    "space.model.family.choice=[lstm]",
]  # fewer recipes to predict
OBJECTIVES = [
    Objective(name="em_percent", goal="max", reference=0),
    Objective(name="memory_mb", goal="min", reference=100),
]


def record(trial_id: str, em_percent: float, memory_mb: float, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "status": "ok",
        "reason": None,
        "seed": 1,
        "assignment": {},
        "config": {"model": {"family": "bert", "checkpoint": "micro"}, "methods": {}},
        "examples_seen": 10,
        "budget_examples": 10,
        "curve": (),
        "device": "cpu: x",
        "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:00:09+00:00",
        "seconds": 9.0,
        "objectives": {"em_percent": em_percent, "memory_mb": memory_mb},
        "quality": {"em_percent": em_percent},
        "cost": {"inference_peak_bytes": memory_mb * 1e6},
        "data": {"evaluation": {"data_hash": "abc"}},
        "artifact": f"trials/{trial_id}/artifact",
    }
    return Record(**(values | changes))


RECORDS = [record("t0", 40.0, 20.0), record("t1", 10.0, 5.0), record("t2", 30.0, 25.0)]


# Options and exit codes


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


def test_configs_lists_each_configuration_with_its_scales(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["configs"]) == 0
    output = capsys.readouterr().out
    assert {f"{path.stem}:" for path in options.configs_folder().glob("*.yaml")} <= set(output.splitlines())
    assert "scales: study_rates, study_final, smoke (--scale NAME)" in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= 80


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


# front and export


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for item in [*RECORDS, record("t3", 0.0, 1.0, status="stopped", reason="asha", objectives=None)]:
        append(folder / "records.jsonl", item)
    objectives = [item.model_dump() for item in OBJECTIVES]
    (folder / "spec.json").write_text(json.dumps({"name": "quick", "objectives": objectives}))
    return folder


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


@pytest.fixture(scope="module")
def artifact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained micro BERT as an artifact."""
    from tests.untrained import write_untrained_bert

    folder = tmp_path_factory.mktemp("artifact") / "artifact"
    lengths = {"max_length": 96, "stride": 16, "max_question_length": 24}
    return write_untrained_bert(folder, "sample", data=lengths, vocab_size=500)


def place_artifact(artifact_folder: Path, run_dir: Path, trial_id: str) -> Path:
    import shutil

    return Path(shutil.copytree(artifact_folder, run_dir / "trials" / trial_id / "artifact"))


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


@pytest.fixture
def run_with_forms(run_dir: Path, artifact_folder: Path) -> Path:
    """A sweep whose trial t0 is stored as int8, as float32 and, in vain, as nf4; t1 and t2 have no forms."""
    from qa_core.artifact import artifact

    nf4 = without("nf4", "failed", "RuntimeError: no kernel")
    forms = with_forms(RECORDS[0], stored("int8", 39.0, 6.0), stored("float32", 40.0, 20.0), nf4)
    path = run_dir / "records.jsonl"
    path.unlink()
    for item in (forms, *RECORDS[1:], with_forms(record("t4", 50.0, 30.0), nf4)):
        append(path, item)
    place_artifact(artifact_folder, run_dir, "t0")
    small = place_artifact(artifact_folder, run_dir, "t0/forms/int8")
    artifact.set_null_threshold(small, 0.5)  # tells the two apart
    return run_dir


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


def test_the_folder_of_a_form_answers_and_is_scored_like_any_artifact(
    run_with_forms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = run_with_forms / "trials" / "t0"
    (trial / "forms" / "int8").rename(trial / "forms" / "int8+e8")
    small, large = trial / "forms" / "int8+e8" / "artifact", trial / "artifact"
    ask = ["--question", "Who built it?", "--context", "The tower of Velm was built by Orla Finch."]
    assert cli.main(["predict", str(small), *ask]) == 0
    capsys.readouterr()
    data = squad_file(tmp_path / "data.json", 3)
    assert cli.main(["evaluate", str(small), str(data), "--against", str(large), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["artifact"], found["against"]["artifact"]) == (str(small), str(large))


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


# evaluate, predict and score


def test_predict_answers_with_a_piece_of_the_context(
    artifact_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = "The tower of Velm was built by Orla Finch in the year 1204, of red stone."
    arguments = ["predict", str(artifact_folder), "--question", "Who built it?", "--context", context]
    assert cli.main(arguments) == 0
    shown = re.fullmatch(r"(.+) \(score -?[\d.]+, characters (\d+) to (\d+)\)\n", capsys.readouterr().out)
    assert shown
    assert context[int(shown[2]) : int(shown[3])] == shown[1]


def squad_file(path: Path, count: int) -> Path:
    context = "The tower of Velm was built by Orla Finch in the year 1204, of red stone."
    answer = {"text": "Orla Finch", "answer_start": context.index("Orla")}
    questions = [
        {"id": f"q{index}", "question": f"Who built it, version {index}?", "answers": [answer]}
        for index in range(count)
    ]
    paragraphs = [{"context": context, "qas": questions}]
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "Velm", "paragraphs": paragraphs}]}))
    return path


def test_predictions_of_a_file_score_as_evaluate_says(
    artifact_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = squad_file(tmp_path / "data.json", 3), tmp_path / "new" / "predictions.json"
    arguments = ["predict", str(artifact_folder), "--input", str(data), "--output", str(output)]
    assert cli.main(arguments) == 0
    assert f"{output}: 3 answers" in capsys.readouterr().out
    assert sorted(json.loads(output.read_text())) == ["q0", "q1", "q2"]
    assert cli.main(arguments) == 2
    assert f"{output}: exists already" in capsys.readouterr().err
    assert cli.main([*arguments, "--force"]) == 0
    capsys.readouterr()
    assert cli.main(["score", str(data), str(output)]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert cli.main(["evaluate", str(artifact_folder), str(data), "--json"]) == 0
    quality = json.loads(capsys.readouterr().out)
    assert quality["questions"] == scores["total"] == 3
    assert (quality["em_percent"], quality["f1_percent"]) == pytest.approx((scores["exact"], scores["f1"]))
    assert len(quality["data_hash"]) == 16


def test_score_prints_the_keys_of_the_version_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, predictions = squad_file(tmp_path / "data.json", 4), tmp_path / "predictions.json"
    predictions.write_text(json.dumps({"q0": "the Orla Finch!", "q1": "Finch", "q2": "nobody"}))
    assert cli.main(["score", str(data), str(predictions)]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["exact"], scores["total"], scores["HasAns_total"]) == (25.0, 4, 4)
    assert scores["f1"] == pytest.approx(100 * (1 + 2 / 3) / 4)
    assert scores["missing_predictions"] == 1
    assert cli.main(["score", str(data), str(predictions), "--official", "v1.1"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"exact_match", "f1"}
    assert cli.main(["score", str(data), str(predictions), "--strict"]) == 2
    assert "'q3'" in capsys.readouterr().err


def test_settings_shows_a_part_or_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["settings", "train.batch"]) == 0
    assert capsys.readouterr().out == (
        "train.batch_size\n"
        "    Windows in one optimiser step.\n"
        "    type: a whole number; default: 16; allowed: 1 or more; unit: windows\n"
    )
    assert cli.main(["settings", "train.bach_size"]) == 2
    assert "did you mean 'train.batch_size'?" in capsys.readouterr().err
    assert cli.main(["settings", "train.", "--markdown"]) == 2
    assert "--markdown: found with the prefix 'train.'" in capsys.readouterr().err


def test_doctor_reports_what_a_sweep_depends_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for start in (
        "system:",
        "cpu:",
        "package: torch",
        "gpu:",
        "kernels: mamba_ssm",
        "threads:",
        "space: runs",
    ):
        assert f"\n{start}" in f"\n{shown}"
    assert "listens beyond the loopback" in shown or "listeners: no server" in shown


def test_doctor_warns_of_a_server_that_other_machines_can_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import socket, sys; s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(); print(s.getsockname()[1], flush=True); sys.stdin.read()"  # noqa: E501
    command = [sys.executable, "-c", code, "raylet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        assert cli.main(["doctor"]) == 0
        assert server.stdin is not None
        server.stdin.close()
    warnings = [line for line in capsys.readouterr().out.splitlines() if "beyond the loopback" in line]
    assert any(port in line and str(server.pid) in line for line in warnings)
