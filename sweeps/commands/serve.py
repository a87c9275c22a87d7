"""`serve`: an exported model behind a port of this machine, with MLflow's scoring server. The model: `served.py`."""

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core.errors import ConfigError
from sweeps.commands.predict import load_artifact
from sweeps.commands.served import EXAMPLE, AnsweringModel, signature

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")  # by which a request may call the server


def serve(folder: Path, *, port: int, device: str) -> int:
    """Answer `POST /invocations` on the loopback until the process is asked to end.

    Args:
        folder: an export, or the artifact of a trial.
        port: to listen on; 0: the system chooses.
        device: auto, cpu or cuda.

    Raises:
        ConfigError: the port is taken or not allowed, or there is no such device.
        ArtifactError: the folder is no model, or was altered.
    """
    with _listening(port) as door:
        from qa_core.hardware import choose_device

        choose_device(device)
        app = _app(AnsweringModel(load_artifact(folder), device=device))
        address = f"http://{LOOPBACK}:{door.getsockname()[1]}"
        rows = json.dumps({"dataframe_records": [EXAMPLE]})
        print(f"serving {folder} at {address}/invocations; Ctrl-C ends it. For example:")
        print(f"  curl {address}/invocations -H 'Content-Type: application/json' -d '{rows}'", flush=True)
        import uvicorn

        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        server.run(sockets=[door])
    return 0


def _listening(port: int) -> socket.socket:
    """Return an open port, taken before a model is loaded for it."""
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((LOOPBACK, port))
        door.listen()
    except (OSError, OverflowError) as error:
        door.close()
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        raise ConfigError(f"--port: found {port}: {reason}; allowed: a free port, or 0 for any") from error
    return door


def _app(model: AnsweringModel) -> "FastAPI":
    """Return MLflow's application around a model; it answers only requests that call it by a name of the loopback."""
    from sweeps.progress.mlflow_store import prepare_mlflow

    prepare_mlflow()
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel, scoring_server
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = scoring_server.init(PyFuncModel(Model(signature=signature()), model))
    # A page in a browser can reach the loopback under a name of its own.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(NAMES))
    return app
