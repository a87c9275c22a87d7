"""What a large sweep costs in MLflow: how long it takes to write, how large the store is, how fast its pages are.

    python -m benchmarks.mirror                        # 1,700 trials of 6 stored forms each, into SQLite
    python -m benchmarks.mirror --postgres             # the same into a PostgreSQL server, which is started for it
    python -m benchmarks.mirror --trials 100 --copies 17

With `--copies`, the trials that were written are copied within the database, which takes less time than to write them;
the store has then the rows of so many times the trials.

Nothing is trained: records are made up, in the size of real ones. The tracker is told of each event as by a sweep's
driver. Pages are asked for through MLflow's server (`qa-sweep ui`), as MLflow's own pages ask. Of the processor, what
writes is counted in this process alone: SQLite works in it, PostgreSQL in its own, where it does not wait for the disk.
"""

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_store import EXPERIMENT, default_tracking_uri, sqlite_file, with_driver

OBJECTIVES = [
    {"name": "em_percent", "goal": "max", "reference": 0.0},
    {"name": "memory_mb", "goal": "min", "reference": 500.0},
]
RUNGS = (400, 1600, 6400)  # examples
FRONT = 40  # models
PAGE = 100  # runs that MLflow's pages ask for at once
REPEATS = 5
START_SECONDS = 120
TABLES = (
    "runs",
    "tags",
    "params",
    "metrics",
    "latest_metrics",
)  # of MLflow: what it has of a run; runs first


def progress(examples: int, em_percent: float) -> dict[str, Any]:
    return {
        "examples_seen": examples,
        "budget_examples": RUNGS[-1],
        "train_loss": 3.0 - em_percent / 50,
        "selection_em_percent": em_percent,
        "selection_f1_percent": em_percent + 5,
        "memory_mb": 120.0,
        "train_seconds": examples / 100,
    }


def values_of(em_percent: float, memory_mb: float) -> dict[str, Any]:
    """Return the final sections of a record or a form."""
    quality = {f"quality_{index}": em_percent + index for index in range(16)}
    cost = {f"cost_{index}": memory_mb * (index + 1) for index in range(14)}
    return {
        "quality": {"em_percent": em_percent, **quality},
        "cost": {"inference_peak_bytes": memory_mb * 1e6, **cost},
        "objectives": {"em_percent": em_percent, "memory_mb": memory_mb},
    }


def record(index: int, forms: int, draw: random.Random) -> dict[str, Any]:
    em, memory = draw.uniform(20, 90), draw.uniform(20, 400)
    settings = {f"option_{number}": draw.random() for number in range(60)}  # a recipe has about as many
    config = {
        "model": {"family": draw.choice(["bert", "t5", "lstm"]), "checkpoint": "sample"},
        "methods": {"lora": {"rank": draw.choice([4, 8, 16])}},
        "train": {"learning_rate": draw.uniform(1e-4, 1e-2), **settings},
        "seed": index,
    }
    stored = [
        {
            "label": f"int{bits}",
            "settings": {"methods.quantize.bits": bits},
            "status": "ok",
            "artifact": f"trials/t{index:04d}/forms/int{bits}/artifact",
            "against_twin": {"em_difference_percent": -1.0, "low": -2.0, "high": 0.0},
            **values_of(em - 1.0 / bits, memory * bits / 32),
        }
        for bits in range(3, 3 + forms)
    ]
    return {
        "trial_id": f"t{index:04d}",
        "status": "ok",
        "config": config,
        "curve": [progress(examples, em * examples / RUNGS[-1]) for examples in RUNGS],
        "data": {"train": {"data_hash": "a" * 40}, "evaluation": {"data_hash": "b" * 40}},
        "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:01:17+00:00",
        "seconds": 77.0,
        "device": "cpu",
        "forms": stored,
        **values_of(em, memory),
    }


def write(folder: Path, tracking_uri: str | None, trials: int, forms: int) -> Tracker:
    """Mirror a sweep; the front changes with every hundredth trial."""
    draw = random.Random(0)
    tracker = Tracker.start(
        {"name": "large", "objectives": OBJECTIVES},
        run_folder=folder,
        tracking_uri=tracking_uri,
        experiment=EXPERIMENT,
        notify=print,
    )
    points: list[dict[str, Any]] = []
    for index in range(trials):
        item = record(index, forms, draw)
        trial_id = str(item["trial_id"])
        tracker.trial_started(trial_id)
        for report in item["curve"]:
            tracker.trial_reported(trial_id, report)
        tracker.trial_ended(item)
        points += [
            {
                "trial_id": trial_id,
                "form": form["label"],
                "family": "bert",
                "methods": "lora",
                **form["objectives"],
            }
            for form in item["forms"]
        ]
        if index % 100 == 99 or index == trials - 1:
            front = sorted(points, key=lambda point: -float(point["em_percent"]))[:FRONT]
            tracker.front_changed(front, 1.0, spent_examples=(index + 1) * RUNGS[-1])
    tracker.finish("finished")
    if tracker.failures:
        raise SystemExit(f"{tracker.failures} calls failed: nothing here is a result")
    return tracker


def multiply(tracking_uri: str, parent: str, copies: int) -> None:
    """Let the store hold so many times the runs of a sweep, as if they had been written; the front stays as it is."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(with_driver(tracking_uri))
    columns = {
        name: [item["name"] for item in sqlalchemy.inspect(engine).get_columns(name)] for name in TABLES
    }
    with engine.begin() as base:
        base.execute(
            sqlalchemy.text(
                "CREATE TEMPORARY TABLE originals AS SELECT run_uuid FROM runs WHERE run_uuid <> :parent"
            ),
            {"parent": parent},
        )
        for copy in range(1, copies):
            moved = {
                "run_uuid": f"substr(run_uuid, 1, 29) || 'z{copy:02x}'",
                "name": f"name || '-{copy}'",
            }
            value = (
                f"CASE WHEN key = 'qa.trial_id' THEN value || '-{copy}' WHEN key = 'mlflow.parentRunId' "
                f"AND value <> '{parent}' THEN substr(value, 1, 29) || 'z{copy:02x}' ELSE value END"
            )
            for name in TABLES:
                changed = {**moved, "value": value} if name == "tags" else moved
                taken = ", ".join(changed.get(column, column) for column in columns[name])
                rows = "WHERE run_uuid IN (SELECT run_uuid FROM originals)"
                rows += " AND key <> 'on_front'" if name == "tags" else ""
                base.execute(
                    sqlalchemy.text(
                        f"INSERT INTO {name} ({', '.join(columns[name])}) SELECT {taken} FROM {name} {rows}"
                    )
                )
    with engine.begin() as base:
        base.execute(sqlalchemy.text("ANALYZE"))
    engine.dispose()


@contextmanager
def server(folder: Path, tracking_uri: str | None) -> Iterator[str]:
    """Yield the address of the API behind MLflow's pages."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sweeps.cli", "ui", str(folder), "--port", str(port)]
    command += [] if tracking_uri is None else ["--tracking-uri", tracking_uri]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow"
        finally:
            os.killpg(process.pid, 15)  # the server and its worker, which are a session of their own
            process.wait(timeout=30)


def asked(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def pages(api: str, tracker: Tracker) -> None:
    """Ask for what MLflow's pages show, and print how long each answer takes and what it has."""
    assert tracker.runs_page is not None
    assert tracker.scatter_page is not None
    experiment = tracker.runs_page.split("/")[2]
    key = f"mlflow.sharedViewState.{tracker.scatter_page.rpartition('=')[2]}"
    tags = asked(f"{api}/experiments/get?experiment_id={experiment}")["experiment"]["tags"]
    view = json.loads(next(tag["value"] for tag in tags if tag["key"] == key))
    order = f"{view['orderByKey']} {'ASC' if view['orderByAsc'] else 'DESC'}"

    def search(query: str | None, order_by: str, most: int = PAGE) -> list[Any]:
        body = {
            "experiment_ids": [experiment],
            "max_results": most,
            "order_by": [order_by],
            "filter": query or "",
        }
        return list(asked(f"{api}/runs/search", body).get("runs", []))

    def newest() -> list[Any]:
        """The runs, and those that the page adds: what they are nested below."""
        found = search(None, "attributes.start_time DESC")
        parents = {
            tag["value"] for run in found for tag in run["data"]["tags"] if tag["key"] == "mlflow.parentRunId"
        }
        missing = parents - {run["info"]["run_id"] for run in found}
        words = ",".join(f"'{run_id}'" for run_id in missing)
        return found + (search(f"run_id IN ({words})", "attributes.start_time DESC") if missing else [])

    on_front = f"tags.on_front = 'true' and tags.`qa.sweep_run_id` = '{tracker.parent_run_id}'"
    form = search(on_front, order, 1)[0]["info"]["run_id"]
    history = f"{api}/metrics/get-history?run_id={tracker.parent_run_id}&metric_key=hypervolume"
    timed("runs of the experiment, first page", newest)
    timed("models on the front", lambda: search(on_front, order))
    timed("page of a stored form", lambda: [asked(f"{api}/runs/get?run_id={form}")])
    timed("curve of the hypervolume", lambda: asked(history)["metrics"])
    timed("scatter, first page", lambda: search(view["searchFilter"], order))
    timed("all models at once", lambda: search(view["searchFilter"], order, 50_000), repeats=1)


def timed(what: str, call: Callable[[], list[Any]], *, repeats: int = REPEATS) -> None:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = call()
        seconds.append(time.perf_counter() - began)
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    print(f"{what:36} {len(found):6} items  {middle:8.2f} s  ({low:.2f} to {high:.2f})", flush=True)


def measure(
    folder: Path, tracking_uri: str | None, size: Callable[[], int], *, trials: int, forms: int, copies: int
) -> None:
    folder.mkdir(parents=True)
    began, cpu = time.perf_counter(), time.process_time()
    tracker = write(folder, tracking_uri, trials, forms)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"{trials} trials of {forms} forms: written in {wall:.0f} s, of the processor {cpu:.0f} s")
    print(
        f"for a trial with its forms {1000 * wall / trials:.0f} ms, of the processor {1000 * cpu / trials:.0f} ms"
    )
    assert tracker.parent_run_id is not None
    if copies > 1:
        multiply(tracker.tracking_uri, tracker.parent_run_id, copies)
    print(f"{trials * copies} trials of {forms} forms: {size() / 1e6:.0f} MB", flush=True)
    began = time.perf_counter()
    Tracker.start(
        {},
        run_folder=folder,
        tracking_uri=tracking_uri,
        experiment=EXPERIMENT,
        parent_run_id=tracker.parent_run_id,
        notify=print,
    )
    print(f"found again by a resumed sweep in {time.perf_counter() - began:.1f} s", flush=True)
    with server(folder.parent, tracking_uri) as api:
        pages(api, tracker)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1700)
    parser.add_argument("--forms", type=int, default=6, help="of each trial")
    parser.add_argument("--copies", type=int, default=1, help="of these trials, made within the database")
    parser.add_argument("--postgres", action="store_true", help="in place of SQLite")
    given = parser.parse_args()
    numbers = {"trials": given.trials, "forms": given.forms, "copies": given.copies}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mirror-"))) / "runs" / "large"
        if not given.postgres:
            file = sqlite_file(default_tracking_uri(folder))
            assert file is not None
            measure(folder, None, lambda: file.stat().st_size, **numbers)
            return
        from tests.sweeps.progress.postgres import running

        base = stack.enter_context(running())
        base.query("postgres", "CREATE DATABASE large")

        def size() -> int:
            return int(base.query("postgres", "SELECT pg_database_size('large')")[0][0])

        measure(folder, base.address("large"), size, **numbers)


if __name__ == "__main__":
    main()
