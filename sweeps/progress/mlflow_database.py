"""The runs of a sweep as a resumed one needs them, read from the tables of MLflow's database in three queries.

MLflow's own search returns each run with all of its parameters, numbers and tags: a minute or more for 10,000 runs.
Servers, which show no tables, are searched (`mlflow_runs.py`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.progress.mlflow_store import database_url, with_driver

PARENT_TAG = "mlflow.parentRunId"
FINAL_METRIC = "em_percent"  # which a run has that holds the final numbers of a model


@dataclass(frozen=True)
class StoredRun:
    """What is known of a run.

    Attributes:
        run_id: MLflow's.
        status: as MLflow calls it.
        started_ms: since 1970.
        tags: at least those that were asked for, as far as it has them.
        has_finals: whether it has the final numbers of a model.
    """

    run_id: str
    status: str
    started_ms: int
    tags: Mapping[str, str]
    has_finals: bool

    @classmethod
    def of(cls, run: Any) -> "StoredRun":
        """Return what is known of a run that MLflow's client returned."""
        info, data = run.info, run.data
        return cls(info.run_id, info.status, info.start_time, data.tags, FINAL_METRIC in data.metrics)


def stored_runs(
    tracking_uri: str, parent: str, *, sweep_tag: str, tags: Collection[str]
) -> list[StoredRun] | None:
    """Return the runs of a sweep that are not deleted, but for its own.

    Args:
        tracking_uri: of a store.
        parent: id of the sweep's own run.
        sweep_tag: the tag of a run that holds that id; what is nested below the sweep's run is its, too.
        tags: names of those that are read.

    Returns:
        None where the store is no database, or one that could not be read so: search it then.
    """
    if database_url(tracking_uri) is None:
        return None
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    tag, metric = (
        sa.table(name, *map(sa.column, ("key", "value", "run_uuid"))) for name in ("tags", "latest_metrics")
    )
    run = sa.table("runs", *map(sa.column, ("run_uuid", "status", "start_time", "lifecycle_stage")))
    is_here = tag.c.key.in_((sweep_tag, PARENT_TAG)) & (tag.c.value == parent)
    own = sa.select(tag.c.run_uuid).where(is_here)
    runs = sa.select(run.c.run_uuid, run.c.status, run.c.start_time).where(
        run.c.run_uuid.in_(own), run.c.lifecycle_stage == "active"
    )
    texts = sa.select(tag).where(tag.c.run_uuid.in_(own), tag.c.key.in_(list(tags)))
    finals = sa.select(metric.c.run_uuid).where(metric.c.run_uuid.in_(own), metric.c.key == FINAL_METRIC)
    try:
        engine = sa.create_engine(with_driver(tracking_uri), poolclass=NullPool)
        with engine.connect() as base:
            found = base.execute(runs).all()
            has_finals = set(base.execute(finals).scalars())
            tags_of: dict[str, dict[str, str]] = {run_id: {} for run_id, _, _ in found}
            for key, value, run_id in base.execute(texts):
                if run_id in tags_of:
                    tags_of[run_id][key] = value
    except SQLAlchemyError:  # other tables than those of the MLflow that this was written for
        return None
    return [
        StoredRun(run_id, status, started, tags_of[run_id], run_id in has_finals)
        for run_id, status, started in found
    ]
