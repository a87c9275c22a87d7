"""`ui`: MLflow's pages over the sweeps of a store, on the loopback. The store: `sweeps/progress/mlflow_store.py`."""

import os
import sys
from pathlib import Path

from qa_core.errors import ConfigError, StorageError
from sweeps.progress.mlflow_pages import runs_page
from sweeps.progress.mlflow_store import (
    STORE_FILE,
    database_url,
    experiment_at,
    experiment_in,
    reroot,
    tracking_uri_in,
    with_driver,
)
from sweeps.run_folder.masking import masked_about, masked_address

LOOPBACK = "127.0.0.1"
# One worker and no queue of jobs: two processes in place of thirteen.
ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def ui(folder: Path, *, port: int, tracking_uri: str | None = None) -> int:
    """Become MLflow's server on the store of a folder, whose artifacts are found wherever the folder is now.

    Args:
        folder: with the folders of sweeps and `mlflow.db`.
        port: to listen on.
        tracking_uri: a database in place of the folder's own store.

    Raises:
        StorageError: there is no store in the folder, or it cannot be used.
        ConfigError: the port is not allowed, or the database cannot be used.
    """
    if not 0 < port < 65536:
        raise ConfigError(f"--port: found {port}; allowed: 1 to 65535")
    if tracking_uri is None:
        experiment = _rerooted(folder)
    else:
        experiment = _in_database(tracking_uri)
    page = "" if experiment is None else runs_page(experiment)
    print(f"MLflow's pages: http://{LOOPBACK}:{port}/{page}  (Ctrl-C ends them)", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui"]
    command += ["--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    # The address is no argument: it may hold a password, and every user of the machine sees a command's arguments.
    store = {"MLFLOW_BACKEND_STORE_URI": with_driver(tracking_uri or tracking_uri_in(folder))}
    os.execve(command[0], command, {**os.environ, **ENVIRONMENT, **store})


def _rerooted(folder: Path) -> str | None:
    """Let the store of a folder name artifacts there; returns its experiment of sweeps."""
    if not (folder / STORE_FILE).is_file() and (folder.parent / STORE_FILE).is_file():
        raise StorageError(
            f"{folder}: found no {STORE_FILE}; there is one in {folder.parent}: name that folder"
        )
    reroot(folder)
    return experiment_in(folder)


def _in_database(tracking_uri: str) -> str | None:
    """Return the experiment of sweeps in a database that has been tried."""
    allowed = "allowed: sqlite:///FILE or postgresql://USER@HOST/DATABASE; a server has its pages at its own address"
    shown = masked_address(tracking_uri)
    if database_url(tracking_uri) is None:
        raise ConfigError(f"--tracking-uri: found {shown!r}; {allowed}")
    try:
        return experiment_at(tracking_uri)
    except Exception as error:
        reason = masked_about(tracking_uri, (str(error).strip() or type(error).__name__).splitlines()[0])
        raise ConfigError(f"--tracking-uri: MLflow cannot use {shown!r}: {reason} ({allowed})") from error
