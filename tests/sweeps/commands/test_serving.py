"""A model in someone's hands: MLflow's registry, its pyfunc model, and two servers that answer over the loopback."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

from qa_core.artifact import artifact
from qa_core.values import to_dict as to_values
from sweeps import cli
from sweeps.commands import register, serve
from sweeps.commands.predict import load_artifact
from sweeps.commands.served import AnsweringModel
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_store import default_tracking_uri
from sweeps.run_folder.journal import Journal
from sweeps.run_folder.records import append, to_dict
from tests.sweeps.finished import OBJECTIVES, record
from tests.untrained import write_untrained_bert

ROWS = [
    {"question": "Who built the tower?", "context": "The tower was built by the guild of masons in 1812."},
    {"question": "When?", "context": "It was painted in March. " * 40},
]
ANSWER_SECONDS = 60


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, small_squad: Path) -> Path:
    """An untrained micro BERT without a threshold, whose every answer is a span."""
    data = {"train": str(small_squad), "max_length": 64, "stride": 16, "max_question_length": 24}
    return write_untrained_bert(tmp_path_factory.mktemp("artifact") / "a", small_squad, data=data)


def predicted(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what `predict` says of the rows, under the names of a served answer."""
    found = []
    capsys.readouterr()
    for row in ROWS:
        given = ["--question", row["question"], "--context", row["context"], "--format", "json"]
        assert cli.main(["predict", str(folder), *given]) == 0
        (answer,) = json.loads(capsys.readouterr().out)
        found.append({"text": answer["answer"], **{name: answer[name] for name in ("score", "start", "end")}})
    return found


def assert_same(found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> None:
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        assert list(one) == ["text", "score", "start", "end"]
        # Another batch: sums in another order.
        assert one == {**other, "score": pytest.approx(other["score"], abs=1e-4)}


def test_a_saved_model_holds_no_pickle_and_answers_rows_as_predict_does(
    shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    register.save(shipped, tmp_path / "model")
    files = {path.relative_to(tmp_path / "model").as_posix() for path in (tmp_path / "model").rglob("*")}
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]
    assert {f"data/a/{path.name}" for path in shipped.iterdir()} <= files
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert loaded.metadata.flavors["python_function"]["loader_module"] == "qa_sweeps.mlflow_model"
    assert loaded.metadata.get_input_schema().input_names() == ["question", "context"]
    assert loaded.metadata.get_output_schema().input_names() == ["text", "score", "start", "end"]
    assert list(loaded.input_example.columns) == ["question", "context"]
    answers = loaded.predict(pandas.DataFrame(ROWS, index=[7, 3]))
    assert list(answers.index) == [7, 3]
    expected = predicted(shipped, capsys)
    assert_same(answers.to_dict(orient="records"), expected)
    assert all(
        row["context"][item["start"] : item["end"]] == item["text"]
        for row, item in zip(ROWS, expected, strict=True)
    )
    requirements = (tmp_path / "model" / "requirements.txt").read_text()
    assert requirements.startswith("qa-sweeps==")


def test_no_answer_is_null_and_no_rows_are_no_answers(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.commands import served

    silent = load_artifact(shipped)
    model = AnsweringModel(silent, device="cpu")
    assert model.predict(pandas.DataFrame(ROWS[:0], columns=["question", "context"])).empty
    genuine = served.rank

    def unsure(*arguments: Any, **options: Any) -> Any:
        return [replace(item, candidates=()) for item in genuine(*arguments, **options)]

    monkeypatch.setattr(served, "rank", unsure)
    (found,) = model.predict(pandas.DataFrame(ROWS[:1])).to_dict(orient="records")
    assert (found["text"], found["start"], found["end"]) == (None, None, None)
    assert isinstance(found["score"], float)


def posted(
    app: Any, body: bytes, *, host: str = "127.0.0.1", kind: str = "application/json"
) -> tuple[int, bytes]:
    """Return status and body of one POST to an application, without a port."""
    import asyncio

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/invocations",
        "raw_path": b"/invocations",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", host.encode()), (b"content-type", kind.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_the_server_answers_json_and_csv_names_what_is_wrong_and_refuses_foreign_names(
    shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = serve._app(AnsweringModel(load_artifact(shipped), device="cpu"))
    expected = predicted(shipped, capsys)
    status, body = posted(app, json.dumps({"dataframe_records": ROWS}).encode())
    assert status == 200
    assert_same(json.loads(body)["predictions"], expected)
    table = pandas.DataFrame(ROWS).to_csv(index=False).encode()
    status, body = posted(app, table, kind="text/csv")
    assert status == 200
    assert_same(json.loads(body)["predictions"], expected)
    status, body = posted(app, json.dumps({"dataframe_records": [{"question": "Who?"}]}).encode())
    assert (status, b"context" in body) == (400, True)
    blank = [ROWS[0], {"question": "Who?", "context": " "}]
    status, body = posted(app, json.dumps({"dataframe_records": blank}).encode())
    assert (status, b"context 1: found" in body) == (400, True)
    status, _ = posted(app, json.dumps({"dataframe_records": ROWS}).encode(), host="evil.example")
    assert status == 400


def test_a_port_that_is_taken_is_refused_before_the_model_is_loaded(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "load_artifact", lambda folder: pytest.fail("it was loaded"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["serve", str(shipped), "--port", str(port)]) == 2
    assert f"--port: found {port}: Address already in use; allowed: a free port" in capsys.readouterr().err
    assert cli.main(["serve", str(shipped), "--port", "70000"]) == 2
    assert "--port: found 70000: no such port" in capsys.readouterr().err


@pytest.fixture
def run_dir(tmp_path: Path, shipped: Path) -> Path:
    """A sweep of one trial that was mirrored beside its folder."""
    import shutil

    folder = tmp_path / "runs" / "quick-1"
    folder.mkdir(parents=True)
    item = record("t0000", 40.0, 12.0, config=to_values(artifact.load(shipped).config))
    tracker = Tracker.start(
        {"name": "quick"}, run_folder=folder, tracking_uri=None, experiment="qa-sweeps", notify=pytest.fail
    )
    tracker.trial_ended(to_dict(item))
    tracker.finish("finished")
    journal = Journal(folder)
    assert tracker.parent_run_id is not None
    journal.tracked(tracker.tracking_uri, tracker.parent_run_id)
    journal.proposed("t0000", assignment={}, notes={}, recipe={})
    append(folder / "records.jsonl", item)
    shutil.copytree(shipped, folder / "trials" / "t0000" / "artifact")
    objectives = [item.model_dump() for item in OBJECTIVES]
    (folder / "spec.json").write_text(json.dumps({"name": "quick", "objectives": objectives}))
    return folder


def test_an_export_becomes_a_version_of_a_registered_model_that_follows_its_folder(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow
    from mlflow import MlflowClient

    for number in (1, 2):
        to = tmp_path / f"model-{number}"
        assert (
            cli.main(["export", str(run_dir), "--trial", "t0000", "--to", str(to), "--register", "guide"])
            == 0
        )
        shown = capsys.readouterr().out
        assert f"registered: guide, version {number}, in {default_tracking_uri(run_dir)}" in shown
    moved = tmp_path / "elsewhere"
    run_dir.parent.rename(moved)
    assert (
        cli.main(
            [
                "export",
                str(moved / "quick-1"),
                "--trial",
                "t0000",
                "--to",
                str(tmp_path / "m3"),
                "--register",
                "guide",
            ]
        )
        == 0
    )
    uri = default_tracking_uri(moved / "quick-1")
    client = MlflowClient(uri, uri)
    versions = client.search_model_versions("name = 'guide'")
    assert sorted(int(item.version) for item in versions) == [1, 2, 3]
    (run_id,) = {item.run_id for item in versions}
    assert client.get_run(run_id).info.run_name == "t0000"
    mlflow.set_tracking_uri(uri)
    try:
        answers = mlflow.pyfunc.load_model("models:/guide/1").predict(pandas.DataFrame(ROWS))
    finally:
        mlflow.set_tracking_uri(None)
    assert_same(answers.to_dict(orient="records"), predicted(tmp_path / "model-1", capsys))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--register", "a/b"], "--register: found 'a/b'; allowed: a name of at most 256 characters"),
        (
            ["--register", "a", "--tracking-uri", "nonsense://x"],
            "--register: MLflow cannot use 'nonsense://x'",
        ),
        (["--tracking-uri", "sqlite:///x.db"], "--tracking-uri: found without --register"),
    ],
)
def test_a_registry_that_cannot_be_used_is_refused_before_anything_is_copied(
    options: list[str], said: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "model"
    assert cli.main(["export", str(run_dir), "--trial", "t0000", "--to", str(to), *options]) == 2
    assert said in capsys.readouterr().err
    assert not to.exists()


@contextmanager
def running(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the server and what it started
        process.wait(timeout=30)


def asked(address: str, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return the answers of a server as soon as it gives them."""
    body = json.dumps({"dataframe_records": ROWS}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stdout and process.stdout.read()
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                found: list[dict[str, Any]] = json.loads(answer.read())["predictions"]
                return found
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    raise AssertionError(f"no answer within {ANSWER_SECONDS} s")


@pytest.mark.long
def test_qa_sweep_serve_answers_over_the_loopback(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "sweeps.cli", "serve", str(shipped), "--port", "0"]
    with running(command) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"at (http://127\.0\.0\.1:\d+)/invocations", first)
        assert found, first + process.stdout.read()
        assert_same(asked(found.group(1), process), predicted(shipped, capsys))
        example = shlex.split(process.stdout.readline())
        assert json.loads(example[-1])["dataframe_records"][0].keys() == {"question", "context"}


@pytest.mark.long
def test_mlflow_serves_a_registered_model_over_the_loopback(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "model"
    assert cli.main(["export", str(run_dir), "--trial", "t0000", "--to", str(to), "--register", "guide"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("to serve it: ")]
    (uri, _, *command) = shlex.split(line.removeprefix("to serve it: "))
    assert command[0:2] == ["models", "serve"] or command[1:3] == ["models", "serve"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", *command[command.index("models") :], "--port", str(port)]
    path = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by its name
    )
    with running(command, PATH=path, MLFLOW_TRACKING_URI=uri.partition("=")[2]) as process:
        assert_same(asked(f"http://127.0.0.1:{port}", process), predicted(to, capsys))
