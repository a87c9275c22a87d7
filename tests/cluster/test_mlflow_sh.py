"""`cluster/mlflow.sh` with a Python that only notes how it was called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "mlflow.sh"
# Stands for MLflow's server, and for the look whether it answers.
PYTHON = """#!/bin/bash
[[ $1 == -c ]] && { [[ -s $HOME/store ]]; exit; }
echo "$@" > "$HOME/arguments"
echo "$MLFLOW_BACKEND_STORE_URI" > "$HOME/store"
exec sleep 600
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is a script for Linux: it reads /proc")
@pytest.mark.parametrize("store", [None, "postgresql://me:walrus@host/db"], ids=["own", "a-database"])
def test_the_server_gets_its_store_where_no_other_user_sees_it(store: str | None, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").write_text(PYTHON)
    (home / "bin" / "python").chmod(0o755)
    environment = {**os.environ, "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", str(SCRIPT), "--shared", str(tmp_path)]
    given = [] if store is None else ["--store", store]
    try:
        done = subprocess.run(
            [*command, *given], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert "http://127.0.0.1:5000" in done.stdout
        arguments = (home / "arguments").read_text()
        assert arguments.startswith("-m mlflow server --host 127.0.0.1 --port 5000 --workers 1 ")
        assert "walrus" not in arguments + done.stdout + done.stderr
        expected = store or f"sqlite:///{tmp_path}/mlflow/mlflow.db"
        assert (home / "store").read_text().strip() == expected
    finally:
        pid = int((home / ".qa-sweeps-mlflow" / "pid").read_text())
        os.killpg(pid, 9)
