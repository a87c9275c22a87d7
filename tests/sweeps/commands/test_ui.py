"""`qa-sweep ui`: MLflow's server on the store of a folder, wherever the folder was moved to."""

import os
from pathlib import Path

import pytest

from sweeps import cli
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_store import reroot, tracking_uri_in


def test_it_becomes_a_server_on_the_loopback_whose_link_opens_the_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "quick-1"
    folder.mkdir(parents=True)
    tracker = Tracker.start(
        {"name": "quick"},
        run_folder=folder,
        tracking_uri=None,
        experiment="qa-sweeps",
        notify=lambda text: None,
    )
    moved = folder.parent.rename(tmp_path / "moved")
    called: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        os, "execve", lambda path, command, environment: called.append((command, environment))
    )
    assert cli.main(["ui", str(moved), "--port", "5055"]) == 0
    assert f"http://127.0.0.1:5055/{tracker.runs_page}  (" in capsys.readouterr().out
    ((command, environment),) = called
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert environment["MLFLOW_BACKEND_STORE_URI"] == tracking_uri_in(moved)
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert reroot(moved) == 0  # it was done


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nowhere"], "mlflow.db: found no such file; a sweep in nowhere makes it"),
        (["inner"], "inner: found no mlflow.db; there is one in .: name that folder"),
        ([".", "--port", "0"], "--port: found 0; allowed: 1 to 65535"),
        (
            [".", "--tracking-uri", "http://h:5000"],
            "found 'http://h:5000'; allowed: sqlite:///FILE or postgresql://",
        ),
        (
            [".", "--tracking-uri", "sqlite:////proc/none/m.db"],
            "--tracking-uri: MLflow cannot use 'sqlite:////proc/",
        ),
    ],
    ids=["no-store", "a-sweep-itself", "port", "a-server", "no-database"],
)
def test_what_it_cannot_show_is_refused_by_name(
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "execve", lambda *arguments: pytest.fail("it was started"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    if options[0] != "nowhere":
        (tmp_path / "mlflow.db").touch()
    assert cli.main(["ui", *options]) == 2
    assert said in capsys.readouterr().err
