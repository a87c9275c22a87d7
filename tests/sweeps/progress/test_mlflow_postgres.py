"""The mirror in a real PostgreSQL database: what it does with SQLite, its pages, and a password that nobody sees."""

import itertools
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from qa_core.errors import ConfigError
from sweeps.commands import register
from sweeps.commands.run import Target, _resume_command, _tracking, next_commands, open_doors
from sweeps.front.front import compute_front
from sweeps.progress import mlflow_mirror
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_store import EXPERIMENT, client_of
from sweeps.run_folder import journal
from sweeps.run_folder.journal import Journal
from sweeps.run_folder.model_id import ModelId
from sweeps.spec.objectives import Objective
from tests.sweeps.progress.mirrored import OBJECTIVES, SPEC, STORED, children, record
from tests.sweeps.progress.postgres import PARTS, PASSWORD, Server, running

# The contract: each of these runs here on a database of its own.
from tests.sweeps.progress.test_mlflow_forms import (  # noqa: F401
    test_a_form_that_failed_and_was_made_again_is_mirrored_again,
    test_a_form_that_was_skipped_has_no_run_and_is_named_on_its_trials,
    test_a_trial_whose_forms_were_not_all_mirrored_is_mirrored_again,
    test_each_form_is_a_run_below_its_trial_and_has_the_final_numbers_alone,
    test_forms_that_were_made_later_join_a_mirrored_trial_whose_own_run_stands_for_its_twin,
    test_the_benchmark_writes_a_run_for_each_trial_and_form_and_tags_its_front,
    test_the_front_is_tagged_by_form_and_a_resumed_sweep_doubles_no_run,
)
from tests.sweeps.progress.test_mlflow_mirror import (  # noqa: F401
    test_a_finished_trial_becomes_a_nested_run_with_parameters_curve_and_final_numbers,
    test_live_reports_and_a_repeated_record_double_nothing,
    test_more_parameters_and_metrics_than_one_batch_takes_are_all_kept,
    test_texts_and_numbers_that_a_database_may_refuse_arrive,
    test_the_front_is_on_the_parent_and_its_tag_on_exactly_its_trials,
    test_the_run_of_a_paused_trial_is_closed_and_opened_again_with_it,
)
from tests.sweeps.progress.test_mlflow_pages import (  # noqa: F401
    test_the_experiment_opens_on_training_and_has_a_view_of_each_sweeps_models_alone,
    test_the_parent_names_each_set_of_data_once,
    test_the_parent_tells_what_was_asked_and_its_front_while_the_sweep_runs,
)
from tests.sweeps.progress.test_mlflow_resume import (  # noqa: F401
    test_a_resumed_sweep_goes_on_with_its_parent_and_finds_its_children,
    test_a_resumed_sweep_reads_a_database_s_tables_and_knows_what_a_search_finds,
    test_a_resumed_sweep_reads_of_a_server_the_runs_of_trials_and_of_the_front_alone_and_knows_all_others,
)

pytestmark = pytest.mark.long

EMPTY = "empty"  # a database with MLflow's tables: making them takes seconds
START_SECONDS = 90
NAMES = (f"base{index}" for index in itertools.count())
POINTS = {"t0 float32": (40.0, 12.75), "t0 int8": (39.5, 3.0), "t1": (40.0, 12.75)}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        server.query("postgres", f"CREATE DATABASE {EMPTY}")
        client_of(server.address(EMPTY))
        yield server


@pytest.fixture
def base(server: Server) -> Iterator[str]:
    """The name of a new database."""
    name = next(NAMES)
    server.copy(EMPTY, name)
    yield name
    server.query("postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def run_folder(tmp_path: Path, server: Server, base: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sweep whose own store is the database."""
    folder = tmp_path / "runs" / "quick-1"
    folder.mkdir(parents=True)
    monkeypatch.setattr(mlflow_mirror, "default_tracking_uri", lambda folder: server.address(base))
    monkeypatch.setattr(mlflow_mirror, "SLOW_SECONDS", 600.0)  # a busy machine is no fault
    return folder


@pytest.fixture
def client(server: Server, base: str) -> Any:
    return client_of(server.address(base))


def started(folder: Path, address: str, notes: list[str], **changes: Any) -> Tracker:
    spec = {**SPEC, "objectives": OBJECTIVES}
    arguments: dict[str, Any] = {"experiment": EXPERIMENT, "notify": notes.append}
    return Tracker.start(spec, run_folder=folder, tracking_uri=address, **(arguments | changes))


def test_the_contract_is_that_of_the_embedded_store() -> None:
    assert len([name for name in globals() if name.startswith("test_")]) == 19 + 5


def test_a_server_that_restarts_goes_unnoticed_and_one_that_is_gone_is_made_good(
    run_folder: Path, server: Server, base: str, client: Any
) -> None:
    notes: list[str] = []
    tracker = started(run_folder, server.address(base), notes)
    tracker.trial_ended(record("t0"))
    server.stop()
    server.start()
    tracker.trial_ended(record("t1"))
    assert (tracker.failures, notes) == (0, [])
    server.stop()
    tracker.trial_ended(record("t2"))
    assert tracker.failures == 1
    assert notes[0].startswith(
        "MLflow: trial_ended failed, the sweep continues without it: connection to server at"
    )
    server.start()
    tracker.finish("finished")
    assert sorted(children(client, tracker)) == ["t0", "t1", "t2"]
    assert "1 call failed; no trial missing there" in notes[1]


def test_the_password_is_in_nothing_that_is_printed_stored_or_mirrored(
    tmp_path: Path,
    run_folder: Path,
    server: Server,
    base: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address, notes = server.address(base), ["***"]
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.argv", ["/bin/qa-sweep", "run", f"--tracking-uri={address}", address])
    tracker = started(run_folder, address, notes)
    assert tracker.parent_run_id is not None
    Journal(run_folder).tracked(tracker.tracking_uri, tracker.parent_run_id)
    tracker.trial_ended(record("t0", "failed", reason=f"cannot reach {address.replace(' ', '%20')}"))
    plot = run_folder / "front.csv"
    plot.write_text("points")
    tracker.log_front([plot], 0.5, [ModelId("t0")], spent_examples=1)
    server.stop()
    tracker.trial_ended(record("t1"))
    tracker.finish("finished")
    assert tracker.failures > 1
    server.start()
    again = started(run_folder, address, notes, parent_run_id=tracker.parent_run_id)
    again.finish("finished")
    target = Target(run_folder, None, address, False)
    notes += [
        *open_doors(target),
        _resume_command(target),
        *next_commands(
            compute_front([], [Objective(**item, reference=1.0) for item in OBJECTIVES]), run_folder, again
        ),
    ]
    assert _tracking(target, journal.read(run_folder))["parent_run_id"] == again.parent_run_id
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(register, "save", lambda folder, path: path.mkdir())
    registry = register.open_registry("m", run_folder, address)
    notes += register.register(registry, tmp_path / "model", run_dir=run_folder, model=ModelId("t0"))
    port = server.port
    for wrong in (
        server.address(base, password=f"{PASSWORD}x"),
        server.address("nowhere"),
        address.replace(f":{port}/", ":1/"),
        address.replace(f":{port}/", ":none/"),
        f"postgresql://me:walrus@otter@127.0.0.1:{port}/{base}",  # not quoted
        f"postgresql://me:walrus/otter#@127.0.0.1:{port}/{base}",
        f"postgresql://127.0.0.1:{port}/{base}?user=me&password=walrus otter",
        f"postgresql://127.0.0.1:{port}/{base}?user=me&passwort=walrus",  # no name that libpq knows
        f"postgres://me:walrus@127.0.0.1:{port}/{base}",  # no name that SQLAlchemy knows
        "postgresql://me:walrus@[broken/",
    ):
        with pytest.raises(ConfigError, match="tracking-uri: MLflow cannot use") as refusal:
            started(run_folder, wrong, notes)
        notes.append(str(refusal.value))
    printed = capfd.readouterr()
    stored = {str(path): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path(path).name for path in stored} >= {"journal.jsonl", "tracking-errors.txt", "front.csv"}
    tables = [
        name for (name,) in server.query(base, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    assert {"runs", "tags", "params"} <= set(tables)
    for table in tables:
        stored[table] = "\n".join(text for (text,) in server.query(base, f'SELECT t::text FROM "{table}" t'))
    assert "qa-sweep run '--tracking-uri=postgresql://***@127.0.0.1" in stored["tags"].replace("''", "'")
    told = {"out": printed.out, "err": printed.err, "notes": "\n".join(notes), **stored}
    shown = {name: part for name, text in told.items() for part in PARTS if part in text}
    assert shown == {}
    assert list(here.iterdir()) == []  # the artifacts are beside the sweep's folder
    assert [path.read_text() for path in (run_folder.parent / "mlartifacts").rglob("front.csv")] == ["points"]


def test_a_password_from_the_environment_needs_none_in_the_address(
    run_folder: Path, server: Server, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    address = f"postgresql://mirror@127.0.0.1:{server.port}/{base}"
    notes: list[str] = []
    tracker = started(run_folder, address, notes)
    assert tracker.parent_run_id is not None
    Journal(run_folder).tracked(address, tracker.parent_run_id)
    assert journal.read(run_folder).tracking["tracking_uri"] == address  # it can be typed again
    assert f"--tracking-uri {address}" in _resume_command(Target(run_folder, None, address, False))


def test_the_pages_of_a_database_show_each_model_once_and_keep_its_password(
    tmp_path: Path, run_folder: Path, server: Server, base: str
) -> None:
    address, notes = server.address(base), list[str]()
    tracker = started(run_folder, address, notes)
    tracker.trial_ended(record("t0", forms=STORED))
    tracker.trial_ended(record("t1"))
    tracker.trial_ended(record("t2", "failed"))
    plot = run_folder / "front.csv"
    plot.write_text("points")
    tracker.log_front([plot], 0.5, [ModelId("t1")], spent_examples=1)
    tracker.finish("finished")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # As `postgresql` alone: the driver is found for the server too.
    command = [sys.executable, "-m", "sweeps.cli", "ui", "--tracking-uri", address, "--port", str(port)]
    log = tmp_path / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) > 1
        assert [
            word for member in family for word in member.cmdline() for part in PARTS if part in word
        ] == []
        api = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow"
        experiment = experiment_of(tracker)
        tags = asked(f"{api}/experiments/get?experiment_id={experiment}")["experiment"]["tags"]
        assert tracker.scatter_page is not None
        key = f"mlflow.sharedViewState.{tracker.scatter_page.rpartition('=')[2]}"
        view = json.loads(next(tag["value"] for tag in tags if tag["key"] == key))
        (chart,) = view["compareRunCharts"]
        query = {
            "experiment_ids": [experiment],
            "filter": view["searchFilter"],
            "order_by": [f"{view['orderByKey']} DESC"],
            "max_results": 100,
        }
        runs = asked(f"{api}/runs/search", query)["runs"]
        assert {run["info"]["run_name"]: point_of(run, chart) for run in runs} == POINTS
        assert len(runs) == len(POINTS)
        found = f"http://127.0.0.1:{port}/get-artifact?path=front/front.csv&run_uuid={tracker.parent_run_id}"
        with urllib.request.urlopen(found, timeout=30) as answer:
            assert answer.read() == b"points"
    finally:
        members = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(timeout=30)
        psutil.wait_procs(members, timeout=30)
    written = log.read_text()
    assert f"http://127.0.0.1:{port}/{tracker.runs_page}" in written
    assert [part for part in PARTS if part in written] == []


def experiment_of(tracker: Tracker) -> str:
    assert tracker.runs_page is not None
    return tracker.runs_page.split("/")[2]


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer within {START_SECONDS} s: {log.read_text()}")


def asked(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def point_of(run: dict[str, Any], chart: dict[str, Any]) -> tuple[float, float]:
    values = {item["key"]: item["value"] for item in run["data"]["metrics"]}
    return values[chart["yaxis"]["key"]], values[chart["xaxis"]["key"]]
