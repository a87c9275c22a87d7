"""Runs as MLflow's stores take them: in few calls, within the limits of names and texts, secrets masked.

Not every store checks these limits; a database cuts nothing and refuses what is too long for a column. Which runs there
are: `mlflow_runs.py`.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.progress.flatten import numbers, storable, texts
from sweeps.run_folder.masking import masked_text, masked_values

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

LONGEST_TAG = 5000  # characters
LONGEST_RUN_NAME = 250  # characters; MLflow's limits
TEXTS_PER_BATCH, METRICS_PER_BATCH = 100, 800  # parameters or tags; of all together MLflow takes 1000


class RunWriter:
    """Writes runs of one experiment. Every method may raise, and may be called again after it did."""

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id

    def created(self, name: str, tags: Mapping[str, str], started_ms: int | None = None) -> Any:
        """Return a new run; without a time it starts now."""
        all_tags = {key: told(text, LONGEST_TAG) for key, text in tags.items()}
        run_name = told(name, LONGEST_RUN_NAME)
        return self._client.create_run(self._experiment_id, started_ms, all_tags, run_name=run_name)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Sequence["Metric"] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log in as few calls as MLflow's limits allow; metrics that are there already are not doubled."""
        from mlflow.entities import Param, RunTag

        all_params = [Param(name, text) for name, text in texts(masked_values(params or {})).items()]
        all_tags = [RunTag(name, told(text, LONGEST_TAG)) for name, text in (tags or {}).items()]
        batches = max(
            math.ceil(len(all_params) / TEXTS_PER_BATCH),
            math.ceil(len(metrics) / METRICS_PER_BATCH),
            math.ceil(len(all_tags) / TEXTS_PER_BATCH),
        )
        for index in range(batches):
            few, many = (slice(index * n, (index + 1) * n) for n in (TEXTS_PER_BATCH, METRICS_PER_BATCH))
            self._client.log_batch(run_id, metrics=metrics[many], params=all_params[few], tags=all_tags[few])

    def tag(self, run_id: str, name: str, text: str) -> None:
        """Put a tag on a run, over one of that name."""
        self._client.set_tag(run_id, name, told(text, LONGEST_TAG))


def metrics_of(values: Mapping[str, Any], *, step: int, at_ms: int | None = None) -> list["Metric"]:
    """Return the finite numbers of a nested mapping as metrics; without a time those of now."""
    from mlflow.entities import Metric

    moment = int(time.time() * 1000) if at_ms is None else at_ms
    return [Metric(name, value, moment, step) for name, value in numbers(values).items()]


def told(text: str, longest: int) -> str:
    """Return text as MLflow gets it: secrets masked, fit for every database, cut."""
    return storable(masked_text(text), longest)
