"""A run folder with an embedded store of MLflow beside it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_store import default_tracking_uri


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that holds MLflow's tables: making them takes over a second."""
    run_folder = tmp_path_factory.mktemp("store") / "runs" / "any"
    Tracker.start({}, run_folder=run_folder, tracking_uri=None, experiment="unused")
    return run_folder.parent / "mlflow.db"


@pytest.fixture
def run_folder(tmp_path: Path, empty_store: Path) -> Path:
    folder = tmp_path / "runs" / "quick-1"
    folder.mkdir(parents=True)
    shutil.copy(empty_store, folder.parent)
    return folder


@pytest.fixture
def client(run_folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=default_tracking_uri(run_folder))
