"""What must not get out: secrets into files, MLflow or the console, names out of the report, servers unannounced."""

import base64
import hashlib
import io
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import ConfigError
from sweeps import cli
from sweeps import report as report_package
from sweeps.commands import run
from sweeps.commands.run import Target, open_doors
from sweeps.front.front import compute_front
from sweeps.progress.console import SweepConsole
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_pages import description
from sweeps.progress.mlflow_runs import SweepRuns
from sweeps.report.answer_book import AnswerBook
from sweeps.report.page import page
from sweeps.report.snapshot import Snapshot
from sweeps.report.story import ShownExample, story
from sweeps.run_folder import journal, records
from sweeps.run_folder.journal import Journal, Past
from sweeps.run_folder.layout import ERROR_FILE, JOURNAL_FILE, OUTCOME_FILE
from sweeps.spec.load import load_spec
from sweeps.spec.objectives import Objective
from sweeps.trials import worker
from sweeps.trials.task import TrialTask, as_values, read_outcome
from tests.malformed.cases import OUT, TINY_SWEEP, write_good
from tests.sweeps.report.made import SPEC, made_records
from tests.sweeps.run_folder.test_records import record

SECRET, PASSWORD = "hf_abcdefghijklmnop", "swordfish"
ERROR = f"401 for {SECRET} at https://me:{PASSWORD}@host/x"


def check_clean(text: str) -> None:
    assert SECRET not in text
    assert PASSWORD not in text
    assert "***" in text


# Secrets


def test_records_and_journal_hold_no_secret(tmp_path: Path) -> None:
    failed = record("t0000", status="failed", reason=ERROR, traceback=f"Traceback\n{ERROR}", objectives=None)
    records.append(tmp_path / "records.jsonl", failed)
    check_clean((tmp_path / "records.jsonl").read_text())
    found = records.load(tmp_path / "records.jsonl").records[0]
    assert found.reason == "401 for *** at https://***@host/x"
    log = Journal(tmp_path)
    log.tracked(f"postgresql://me:{PASSWORD}@host/mlflow", "run1")
    log.tracked(f"postgresql://me:a {PASSWORD}@host/mlflow", "run1")
    log.proposed("t0000", assignment={"a": SECRET}, notes={}, recipe={"b": [ERROR]})
    check_clean((tmp_path / JOURNAL_FILE).read_text())


def test_the_notes_of_a_failed_trial_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError(ERROR)

    monkeypatch.setattr(worker, "execute", fail)
    task = TrialTask("t0000", {}, str(tmp_path), str(tmp_path / "cache"), 1)
    with pytest.raises(RuntimeError):
        worker.run_trial(as_values(task))
    check_clean((tmp_path / OUTCOME_FILE).read_text())
    assert "RuntimeError: 401 for ***" in str(read_outcome(tmp_path))


def test_the_console_and_errors_of_the_command_line_show_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = io.StringIO()
    console = SweepConsole(output)
    console.trial_ended({"trial_id": "t0000", "status": "failed", "reason": ERROR})
    console.note(ERROR)
    console.finish({"failed": 1})
    check_clean(output.getvalue())
    assert cli.main(["predict", str(tmp_path / SECRET), "--question", "a", "--context", "b"]) == 2
    check_clean(capsys.readouterr().err)
    assert cli.main(["run", f"--tokn={SECRET}"]) == 2
    assert SECRET not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("train: train.json", f"train: {SECRET}"), "tiny.yaml:11: recipe.data.train"),
        (("train: train.json", f"train: 'https://me:{PASSWORD}@host/a.json'"), "recipe.data.train"),
        (("options: {grace_examples", f"options: {{{SECRET}: 1, grace_examples"), "scheduler.options"),
        (("[full, quantize]", f"[full, {SECRET}]"), "space[0].choice[1]"),
    ],
)
def test_a_sweep_file_that_holds_a_secret_is_refused_without_showing_it(
    change: tuple[str, str], place: str, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_SWEEP.replace(*change))
    assert path.read_text() != TINY_SWEEP
    with pytest.raises(ConfigError, match="looks like a token or password") as refusal:
        load_spec(path)
    assert place in str(refusal.value)
    assert SECRET not in str(refusal.value)
    assert PASSWORD not in str(refusal.value)


def test_a_setting_typed_with_a_secret_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_good(tmp_path)
    arguments = ["run", "--config", "tiny.yaml", "--set", f"recipe.model.checkpoint={SECRET}", "--out", OUT]
    assert cli.main(arguments) == 2
    check_clean(capsys.readouterr().err)
    assert not (tmp_path / OUT).exists()


class FakeClient:
    """Keeps what MLflow would be told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def create_run(self, *arguments: Any, **named: Any) -> Any:
        self.told += [arguments, *named.items()]
        info = type("Info", (), {"run_id": "r1", "start_time": 0, "status": "RUNNING"})()
        return type("Run", (), {"info": info, "data": type("Data", (), {"tags": {}, "metrics": {}})()})()

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        self.told += [(item.key, item.value) for item in (*metrics, *params, *tags)]

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        self.told.append((name, value))

    def set_experiment_tag(self, experiment_id: str, name: str, value: str) -> None:
        self.told.append((name, value))

    def log_inputs(self, run_id: str, datasets: Any) -> None:
        self.told += [(item.dataset.name, item.dataset.source) for item in datasets]

    def set_terminated(self, *arguments: Any, **named: Any) -> None:
        pass


def test_mlflow_is_told_no_secret_in_parameters_and_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["qa-sweep", "run", ERROR])
    client = FakeClient()
    runs = SweepRuns(client, "1", "")  # type: ignore[arg-type]
    runs.open_parent({"name": "quick", "recipe": {"a": ERROR}}, None)
    failed = {
        "status": "failed",
        "reason": ERROR,
        "config": {"model": {"checkpoint": SECRET}, "data": {"train": ERROR}},
        "data": {"train": {"data_hash": "abc"}},
        "device": ERROR,
    }
    runs.log_record("t0000", failed)
    runs.describe(description({"recipe": {"data": {"train": ERROR}}}, Path("runs/a"), ()))
    check_clean(json.dumps(client.told))
    assert ("reason", "401 for *** at https://***@host/x") in client.told


def test_errors_of_mlflow_are_noted_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError(ERROR)

    monkeypatch.setattr(SweepRuns, "open", fail)
    notes: list[str] = []
    arguments: dict[str, Any] = {"run_folder": tmp_path, "experiment": "qa", "notify": notes.append}
    tracker = Tracker.start({}, tracking_uri=None, **arguments)
    tracker.finish("failed")
    check_clean((tmp_path / ERROR_FILE).read_text())
    check_clean("".join(notes))
    with pytest.raises(ConfigError) as refusal:
        Tracker.start({}, tracking_uri=f"http://me:{PASSWORD}@host", **arguments)
    check_clean(str(refusal.value))


def test_a_tracking_address_whose_password_is_not_stored_must_be_given_again(tmp_path: Path) -> None:
    address = f"http://me:{PASSWORD}@127.0.0.1:5000"
    Journal(tmp_path).tracked(address, "parent1")
    past = journal.read(tmp_path)
    assert past.tracking["tracking_uri"] == "http://***@127.0.0.1:5000"
    same = run._tracking(Target(tmp_path, None, address, False), past)
    assert same == {"tracking_uri": address, "parent_run_id": "parent1"}
    other = run._tracking(Target(tmp_path, None, "http://127.0.0.1:1", False), past)
    assert other == {"tracking_uri": "http://127.0.0.1:1"}
    with pytest.raises(ConfigError, match=r"--tracking-uri: .* \(a password is not stored\)"):
        run._tracking(Target(tmp_path, None, None, False), past)
    assert run._tracking(Target(tmp_path, None, None, False), Past()) == {"tracking_uri": None}


# Servers


@pytest.mark.parametrize(
    ("address", "tracking_uri", "dashboard", "words"),
    [
        (None, None, False, ()),
        (None, "sqlite:///x.db", False, ()),
        (None, "http://127.0.0.1:5000", False, ()),
        (None, "http://localhost:5000", False, ()),
        ("10.0.0.7:6379", None, False, ("--address 10.0.0.7:6379", "run code")),
        (None, None, True, ("--dashboard", "loopback")),
        (None, "http://tracking.example:5000", False, ("--tracking-uri", "unencrypted", "tracking.example")),
        (None, "https://me:x@tracking.example", False, ("--tracking-uri", "sent to tracking.example")),
        (None, "postgresql://me:x@base.example/db", False, ("sent to base.example", "sslmode=verify-full")),
        (None, "postgresql:///db?host=base.example", False, ("sent to base.example",)),
        (None, "postgresql://me:x@localhost/db", False, ()),
        (None, "postgresql:///db?host=/run/postgresql", False, ()),
        (None, "http://[broken", False, ()),  # MLflow refuses it
    ],
)
def test_each_server_that_others_may_reach_is_warned_of(
    address: str | None, tracking_uri: str | None, dashboard: bool, words: tuple[str, ...]
) -> None:
    warnings = open_doors(Target(Path("x"), address, tracking_uri, dashboard))
    assert len(warnings) == bool(words)
    assert [word for word in words if word not in "".join(warnings)] == []


def test_a_ray_that_is_told_to_leave_the_loopback_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    (warning,) = open_doors(Target(Path("x"), None, None, False))
    assert "listens beyond the loopback" in warning
    assert open_doors(Target(Path("x"), "10.0.0.7:6379", None, False)) != [warning]


def test_warnings_are_shown_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_good(tmp_path)
    arguments = ["run", "--config", "tiny.yaml", "--data", "gone.json", "--dashboard", "--out", OUT]
    assert cli.main(arguments) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: --dashboard: ")
    assert error.startswith("error: gone.json: ")


# The report


NAMES = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '<a href="javascript:alert(1)">x</a>',
    "<!--",
    "]]>",
    "\\u003cscript\\u003ealert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u2028alert(1)",
    "%{x} ${x} {{x}}",
]


class Elements(HTMLParser):
    """Lists every element with its attributes, and keeps the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, sorted(name for name, _ in attributes)))


def report(name: str) -> str:
    """Return the report of a sweep in which everything that others name has this name."""
    objectives = (
        Objective(name="em_percent", goal="max", reference=0),
        Objective(name="memory_mb", goal="min", reference=99),
    )
    records = [
        replace(
            item,
            reason=item.reason and name,
            config={
                **item.config,
                "model": {"family": name, "checkpoint": name, "head": name},
                "methods": {name: {name: name}},
            },
            assignment={name: name},
            provenance={"command": name, "git": {"commit": name}, "packages": {"torch": name}},
        )
        for item in made_records(12)
    ]
    result = replace(compute_front(records, objectives), left_out={name: 2}, baselines={name: 1.0})
    spec = {**SPEC, "name": name, "space": [{"set": name, "choice": [name], "when": {name: [name]}}]}
    examples = [ShownExample(name, (name,), {name: name})]
    snapshot = Snapshot(Path(name.replace("/", "")), spec, records, result)
    return page(story(snapshot, AnswerBook(Path("nowhere")), examples=examples))


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_config_or_of_data_changes_what_the_report_consists_of(name: str) -> None:
    plain, nasty = report("plain"), report(name)
    assert Elements(nasty).found == Elements(plain).found
    begin, end = '<script type="application/json" id="story">', "</script>"
    data = nasty[nasty.index(begin) + len(begin) :].partition(end)[0]
    assert not set("<>&") & set(data)
    assert json.loads(data)["name"] == name
    assert nasty.replace(data, "") == plain.replace(
        plain[plain.index(begin) + len(begin) :].partition(end)[0], ""
    )


def test_the_scripts_of_the_report_never_read_text_as_markup() -> None:
    assets = Path(report_package.__file__).with_name("assets")
    scripts = {path.name: path.read_text(encoding="utf-8") for path in assets.glob("*.js")}
    assert len(scripts) == 5
    for name, script in scripts.items():
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
        ):
            assert way not in script, name


def test_only_the_script_and_the_style_of_the_report_itself_may_run_in_it() -> None:
    text = report("plain")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; ")
    for element, kind in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", text)
