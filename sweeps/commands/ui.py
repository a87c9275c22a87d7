"""`ui`: MLflow's pages over the sweeps of a folder, on the loopback. The store: `sweeps/progress/mlflow_store.py`."""

import os
import sys
from pathlib import Path

from qa_core.errors import ConfigError, StorageError
from sweeps.progress.mlflow_pages import runs_page
from sweeps.progress.mlflow_store import STORE_FILE, experiment_in, reroot, tracking_uri_in

LOOPBACK = "127.0.0.1"
# One worker and no queue of jobs: two processes in place of thirteen.
ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def ui(folder: Path, *, port: int) -> int:
    """Become MLflow's server on the store of a folder, whose artifacts are found wherever the folder is now.

    Args:
        folder: with the folders of sweeps and `mlflow.db`.
        port: to listen on.

    Raises:
        StorageError: there is no store in the folder, or it cannot be used.
        ConfigError: the port is not allowed.
    """
    if not 0 < port < 65536:
        raise ConfigError(f"--port: found {port}; allowed: 1 to 65535")
    if not (folder / STORE_FILE).is_file() and (folder.parent / STORE_FILE).is_file():
        raise StorageError(
            f"{folder}: found no {STORE_FILE}; there is one in {folder.parent}: name that folder"
        )
    reroot(folder)
    experiment = experiment_in(folder)
    page = "" if experiment is None else runs_page(experiment)
    print(f"MLflow's pages: http://{LOOPBACK}:{port}/{page}  (Ctrl-C ends them)", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking_uri_in(folder)]
    command += ["--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    os.execve(command[0], command, {**os.environ, **ENVIRONMENT})
