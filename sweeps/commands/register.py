"""`export --register`: an exported model as a version in MLflow's registry. What is registered: `served.py`.

MLflow gets the files of the artifact, a signature and an example. The code that loads them is this package, of the same
version: nothing is pickled.
"""

import re
import secrets
import shlex
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core.errors import ConfigError, DataError
from sweeps.commands.served import EXAMPLE, signature
from sweeps.progress.mlflow_runs import run_of
from sweeps.progress.mlflow_store import EXPERIMENT, STORES, default_tracking_uri, open_store
from sweeps.progress.shell_command import shell_command
from sweeps.run_folder import journal
from sweeps.run_folder.masking import masked_about, masked_address
from sweeps.run_folder.model_id import ModelId

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from sweeps.progress.mlflow_store import Store

LOADER = "qa_sweeps.mlflow_model"
NAME = re.compile(r"[^/:\s][^/:\n]*")
LONGEST_NAME = 256  # characters; MLflow's limit


@dataclass(frozen=True)
class Registry:
    """An open registry, and the name under which a model goes into it."""

    name: str
    store: "Store"


def open_registry(name: str, run_dir: Path, tracking_uri: str | None) -> Registry:
    """Open the registry, before anything is copied for it.

    Args:
        name: of the registered model, new or known.
        run_dir: folder of the sweep.
        tracking_uri: an MLflow server or database; None: the store beside the sweep's folder.

    Raises:
        ConfigError: the name is not allowed, or the registry cannot be used.
    """
    if NAME.fullmatch(name) is None or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"--register: found {name!r}; allowed: a name of at most {LONGEST_NAME} characters without '/' and ':'"
        )
    uri = tracking_uri or default_tracking_uri(run_dir)
    try:
        store = open_store(uri, run_dir.resolve().parent)
        store.client.search_registered_models(max_results=1)
    except Exception as error:
        reason = masked_about(uri, (str(error).strip() or type(error).__name__).splitlines()[0])
        raise ConfigError(
            f"--register: MLflow cannot use {masked_address(uri)!r}: {reason} (allowed: --tracking-uri with {STORES}, "
            "or none for the store beside the sweep)"
        ) from error
    return Registry(name, store)


def register(registry: Registry, folder: Path, *, run_dir: Path, model: ModelId) -> list[str]:
    """Put an exported folder into the registry as a new version; returns lines that say where it is.

    The version belongs to the model's own run where the sweep was mirrored there, else to a new run.

    Args:
        registry: from `open_registry`.
        folder: the export.
        run_dir: folder of the sweep.
        model: trial, and stored form, that was exported.
    """
    client = registry.store.client
    run_id = _run_of(registry.store, run_dir, model)
    place = f"models/{registry.name}-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model"
        save(folder, path)
        client.log_artifacts(run_id, str(path), place)
    _make(client, registry.name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{place}"
    made = client.create_model_version(
        registry.name, source, run_id, description=f"{model} of {run_dir.name}", await_creation_for=0
    )
    uri = masked_address(registry.store.tracking_uri)
    command = shell_command(
        "mlflow", "models", "serve", "-m", f"models:/{registry.name}/{made.version}", "--env-manager", "local"
    )
    return [
        f"registered: {registry.name}, version {made.version}, in {uri}",
        f"to serve it: MLFLOW_TRACKING_URI={shlex.quote(uri)} {command}",
    ]


def save(folder: Path, path: Path) -> None:
    """Write an export as a model of MLflow: its files, signature, example and the name of the module that loads it."""
    import pandas
    from mlflow import pyfunc

    pyfunc.save_model(
        path=str(path),
        loader_module=LOADER,
        data_path=str(folder),
        signature=signature(),
        input_example=pandas.DataFrame([EXAMPLE]),
        pip_requirements=[f"{name}=={version(name)}" for name in ("qa-sweeps", "mlflow")],
    )


def _run_of(store: "Store", run_dir: Path, model: ModelId) -> str:
    experiment = store.experiment_id(EXPERIMENT)
    try:
        parent = journal.read(run_dir).tracking.get("parent_run_id")
    except DataError:  # `export` does without a journal
        parent = None
    found = None if parent is None else run_of(store.client, experiment, str(parent), model)
    if found is not None:
        return found
    run = store.client.create_run(experiment, run_name=f"export {model} of {run_dir.name}")
    store.client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _make(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name, description="Answers {question, context} with text, score, start and end."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
