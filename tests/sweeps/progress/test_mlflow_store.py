"""Addresses of stores, and the experiment that sweeps share; artifacts of a folder that was moved."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qa_core.errors import ConfigError, StorageError
from sweeps.progress import mlflow_store
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_store import (
    Store,
    database_url,
    empty_store,
    open_store,
    reroot,
    sqlite_file,
    tracking_uri_in,
    with_driver,
)
from tests.sweeps.progress.mirrored import start

PLAIN = "postgresql://me:walrus@host/db"


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these drivers be installed and no others."""
    monkeypatch.setattr(mlflow_store, "find_spec", lambda name: object() if name in names else None)


@pytest.mark.parametrize(
    ("drivers", "address", "expected"),
    [
        (["psycopg2", "psycopg"], PLAIN, "postgresql+psycopg2://me:walrus@host/db"),
        (["psycopg"], PLAIN, "postgresql+psycopg://me:walrus@host/db"),
        (["psycopg2", "psycopg"], "postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
        (
            ["psycopg2"],
            "postgresql://a:b%2F%40@/db?host=/run",
            "postgresql+psycopg2://a:b%2F%40@/db?host=%2Frun",
        ),
        ([], "sqlite:////a b/mlflow.db", "sqlite:////a b/mlflow.db"),
        ([], "http://host:5000", "http://host:5000"),
        (
            [],
            "postgresql://me:walrus@host:port/db",
            "postgresql://me:walrus@host:port/db",
        ),  # MLflow refuses it
    ],
    ids=["both", "the-newer-one", "named", "socket", "sqlite", "server", "no-port"],
)
def test_a_database_is_spoken_to_through_a_driver_that_is_there(
    drivers: list[str], address: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, *drivers)
    assert with_driver(address) == expected


@pytest.mark.parametrize(
    ("address", "missing"),
    [(PLAIN, "psycopg2 or psycopg"), ("postgresql+pg8000://me:walrus@host/db", "pg8000")],
    ids=["any", "named"],
)
def test_a_missing_driver_is_named_with_the_extra_that_has_it(
    address: str, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed(monkeypatch)
    with pytest.raises(
        ConfigError, match=rf"found no package {missing}, .*pip install 'qa-sweeps\[postgres\]'"
    ) as e:
        Tracker.start({}, run_folder=tmp_path / "runs" / "a", tracking_uri=address, experiment="qa")
    assert "walrus" not in str(e.value)


def test_an_address_is_of_a_database_a_file_or_neither() -> None:
    assert database_url("http://host:5000") is None
    assert database_url("postgresql://host:port/db") is None
    assert database_url("nonsense") is None
    url = database_url(PLAIN)
    assert url is not None
    assert (url.host, url.get_backend_name(), sqlite_file(PLAIN)) == ("host", "postgresql", None)
    assert sqlite_file("sqlite:////a/b.db") == Path("/a/b.db")


class Experiments:
    """Stands for a client: an experiment that is made by somebody else between a look and its making."""

    def __init__(self) -> None:
        self.found: Any = None
        self.locations: list[str] = []

    def get_experiment_by_name(self, name: str) -> Any:
        return self.found

    def create_experiment(self, name: str, *, artifact_location: str) -> str:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS

        self.locations.append(artifact_location)
        self.found = SimpleNamespace(experiment_id="7", lifecycle_stage="active")
        raise MlflowException(f"{name} is there", error_code=RESOURCE_ALREADY_EXISTS)


def store_of(client: Experiments, tmp_path: Path, **changes: Any) -> Store:
    values = {"artifacts": "file:///a/mlartifacts", "longest_artifact_uri": 200, "lock": tmp_path / "lock"}
    return Store("postgresql://host/db", client, **(values | changes))  # type: ignore[arg-type]


def test_an_experiment_that_another_folders_sweep_makes_at_the_same_moment_is_taken(tmp_path: Path) -> None:
    client = Experiments()
    assert store_of(client, tmp_path).experiment_id("qa") == "7"
    assert client.locations == ["file:///a/mlartifacts"]


def test_a_folder_whose_artifacts_have_too_long_an_address_is_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    client = Experiments()
    fits = f"file:///{'x' * (200 - 8 - 43)}"  # MLflow adds the run's id, 32 characters, and "artifacts"
    assert store_of(client, tmp_path, artifacts=fits).experiment_id("qa") == "7"
    with pytest.raises(ConfigError, match="has 201 characters; allowed: 200 in this database"):
        store_of(Experiments(), tmp_path, artifacts=f"{fits}x").experiment_id("qa")
    without_limit = store_of(Experiments(), tmp_path, artifacts=f"{fits}x", longest_artifact_uri=None)
    assert without_limit.experiment_id("qa") == "7"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache %41"  # a quoted A in an address
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(folder))
    return folder


def tables(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as base:
        return {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_new_store_copies_tables_that_were_made_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = empty_store()
    assert [path.name for path in cache.glob("*.db*")] == [made.name]
    mlflow_store.prepare_mlflow()
    from mlflow.store.db import utils

    monkeypatch.setattr(utils, "_upgrade_db", lambda engine: pytest.fail("tables were made again"))
    for name in ("a", "b"):
        uri = mlflow_store.tracking_uri_in(tmp_path / name)
        store = open_store(uri, tmp_path / name)
        store.experiment_id("mine")
        found = {item.name: item.artifact_location for item in store.client.search_experiments()}
        assert found["mine"] == (tmp_path / name / "mlartifacts").as_uri()
        assert set(found) == {"Default", "mine"}
        assert tables(tmp_path / name / "mlflow.db") == tables(made)
    assert empty_store() == made


def test_a_damaged_empty_store_is_made_again_and_a_cache_that_takes_none_is_done_without(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    making: list[str] = []
    genuine = mlflow_store.client_of
    monkeypatch.setattr(mlflow_store, "client_of", lambda uri: making.append(uri) or genuine(uri))
    made = empty_store()
    whole = tables(made)
    made.write_bytes(made.read_bytes()[:100_000])
    assert tables(empty_store()) == whole
    assert len(making) == 2
    with closing(sqlite3.connect(made)) as base, base:
        base.execute("INSERT INTO experiments (experiment_id, name) VALUES (7, 'of somebody')")
    empty_store()
    assert len(making) == 3

    monkeypatch.setenv("QA_SWEEPS_CACHE", str(made))  # a file, in which nothing can be stored
    root = tmp_path / "runs"
    store = open_store(mlflow_store.tracking_uri_in(root), root)
    assert [item.name for item in store.client.search_experiments()] == ["Default"]
    assert tables(root / "mlflow.db") == whole


def test_a_folder_that_was_moved_or_copied_has_its_own_artifacts(run_folder: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.tracking._tracking_service import utils as tracking_service

    tracker = start(run_folder)
    plot = run_folder / "front.csv"
    plot.write_text("first")
    tracker.log_front([plot], 0.5, [], spent_examples=1)
    tracker.finish("finished")
    copied, moved = tmp_path / "copy of runs", tmp_path / "deep" / "moved"
    shutil.copytree(run_folder.parent, copied)
    moved.parent.mkdir()
    run_folder.parent.rename(moved)
    assert tracker.parent_run_id is not None
    for place in (copied, moved):
        assert reroot(place) == 4  # of two experiments with a run each: one came with the store
        assert reroot(place) == 0
        client = MlflowClient(tracking_uri=tracking_uri_in(place))
        (own,) = place.rglob("mlartifacts/**/front.csv")
        own.write_text(f"in {place.name}")
        found = Path(client.download_artifacts(tracker.parent_run_id, "front/front.csv"))
        assert found.read_text() == f"in {place.name}"
    # A sweep that goes on there, in another process, writes there.
    tracking_service._artifact_repos_cache.clear()
    again = start(moved / "quick-1", parent_run_id=tracker.parent_run_id)
    (moved / "quick-1" / "front.csv").write_text("second")
    again.log_front([moved / "quick-1" / "front.csv"], 0.5, [], spent_examples=2)
    assert (again.failures, run_folder.parent.exists()) == (0, False)
    assert [path.read_text() for path in moved.rglob("mlartifacts/**/front.csv")] == ["second"]


def test_artifacts_in_another_place_than_beside_the_store_stay_where_they_are(
    run_folder: Path, tmp_path: Path, client: Any
) -> None:
    client.create_experiment("elsewhere", artifact_location="s3://bucket/mlartifacts")
    client.create_experiment("other", artifact_location=(tmp_path / "own").as_uri())
    assert reroot(run_folder.parent) > 0  # those of the folder that the store was copied from
    kept = {client.get_experiment_by_name(name).artifact_location for name in ("elsewhere", "other")}
    assert kept == {"s3://bucket/mlartifacts", (tmp_path / "own").as_uri()}


def test_what_is_no_store_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"mlflow\.db: found no such file"):
        reroot(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"garbage " * 1000)
    with pytest.raises(StorageError, match="cannot be used as a store of MLflow: file is not a database"):
        reroot(tmp_path)
