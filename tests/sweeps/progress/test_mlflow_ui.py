"""A tracked sweep as a user sees it: MLflow's own pages in a headless browser."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.front.front import compute_front
from sweeps.front.plots import write_png
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.report.answer_book import AnswerBook
from sweeps.report.page import write_page
from sweeps.report.snapshot import Snapshot
from sweeps.report.story import story
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import Objective
from tests.browser import chromium

pytestmark = pytest.mark.slow

START_SECONDS = 90
PAGE_MS = 60_000
TRIALS = {"t0000": (61.5, 12.5), "t0001": (41.0, 6.25), "t0002": (30.0, 9.0)}  # the last is beaten
FORMS = [
    {
        "label": "int8",
        "settings": {"methods.quantize.bits": 8},
        "status": "ok",
        "objectives": {"em_percent": 49.0, "memory_mb": 5.0},
    },
    {"label": "int4", "settings": {"methods.quantize.bits": 4}, "status": "skipped", "reason": "too large"},
]
POINTS = {
    **TRIALS,
    "t0003 int8": (49.0, 5.0),
}  # a training with stored forms is a point for each, and none itself


def record(trial_id: str, em_percent: float, memory_mb: float) -> Record:
    return Record(
        trial_id=trial_id,
        status="ok",
        reason=None,
        seed=1,
        assignment={},
        config={"model": {"family": "bert", "checkpoint": "micro"}, "methods": {"lora": {"rank": 8}}},
        examples_seen=400,
        budget_examples=400,
        curve=(
            {"examples_seen": 100, "selection_em_percent": em_percent / 2, "train_seconds": 3.0},
            {"examples_seen": 400, "selection_em_percent": em_percent, "train_seconds": 9.0},
        ),
        device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
        finished_at="2026-01-01T00:00:09+00:00",
        seconds=9.0,
        objectives={"em_percent": em_percent, "memory_mb": memory_mb},
        quality={"em_percent": em_percent},
        cost={"inference_peak_bytes": memory_mb * 1e6},
        data={"evaluation": {"data_hash": "abc"}},
    )


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """A finished sweep of three trials, two of them on the front."""
    folder = tmp_path_factory.mktemp("ui") / "runs" / "sweep-1"
    folder.mkdir(parents=True)
    records = [record(trial_id, *values) for trial_id, values in TRIALS.items()]
    objectives = [
        Objective(name="em_percent", goal="max", reference=0),
        Objective(name="memory_mb", goal="min", reference=32),
    ]
    front = compute_front(records, objectives)
    write_png(front, folder / "front.png")
    snapshot = Snapshot(folder, {"name": "quickstart"}, records, front)
    write_page(story(snapshot, AnswerBook(folder)), folder / "report.html")
    tracker = Tracker.start(
        {"name": "quickstart", "seed": 0, "objectives": [item.model_dump() for item in objectives]},
        run_folder=folder,
        tracking_uri=None,
        experiment="qa-sweeps",
        notify=pytest.fail,
    )
    for item in records:
        tracker.trial_ended(vars(item))
    tracker.trial_ended(vars(record("t0003", 50.0, 20.0)) | {"forms": FORMS})
    tracker.front_changed(front.rows()[:2], front.hypervolume, spent_examples=900)
    files = [folder / "front.png", folder / "report.html"]
    tracker.log_front(files, front.hypervolume, [point.id for point in front.front], spent_examples=900)
    tracker.finish("finished")
    return tracker


@pytest.fixture(scope="module")
def server(tracked: Tracker) -> Iterator[str]:
    """The address that `qa-sweep ui` serves, on a folder of sweeps that was moved since they ran."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runs = Path(tracked.tracking_uri.removeprefix("sqlite:///")).parent
    moved = runs.rename(runs.with_name("moved"))  # the artifacts are found all the same
    command = [sys.executable, "-m", "sweeps.cli", "ui", str(moved), "--port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = moved / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, process, log)
            yield address
        finally:
            os.killpg(process.pid, 15)  # the server and its workers, which it started
            process.wait(timeout=30)


def wait_for(address: str, process: subprocess.Popen[Any], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise AssertionError(f"no answer within {START_SECONDS} s: {log.read_text()}")


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of headless Chromium."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PAGE_MS)
        yield page


def screenshot(page: Any, tmp_path: Path, name: str) -> None:
    folder = Path(os.environ.get("QA_SWEEPS_SCREENSHOT") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"mlflow-{name}.png")
    assert (folder / f"mlflow-{name}.png").stat().st_size > 10_000


def test_the_runs_page_shows_the_sweep_with_its_trials_nested(
    tracked: Tracker, server: str, page: Any, tmp_path: Path
) -> None:
    page.goto(f"{server}/{tracked.runs_page}")
    page.get_by_text("quickstart", exact=True).first.wait_for()
    for trial_id in TRIALS:
        assert page.get_by_text(trial_id, exact=True).count() == 0
    page.locator(".ag-row button").first.click()  # unfolds the sweep
    for trial_id in TRIALS:
        page.get_by_text(trial_id, exact=True).first.wait_for()
    screenshot(page, tmp_path, "runs")


def test_the_parent_run_shows_the_plot_of_the_front(
    tracked: Tracker, server: str, page: Any, tmp_path: Path
) -> None:
    assert tracked.runs_page is not None
    runs, _, kind = tracked.runs_page.partition("?")
    page.goto(f"{server}/{runs}/{tracked.parent_run_id}/artifacts/front/front.png?{kind}")
    page.get_by_text("report.html").first.wait_for()
    plot = page.locator("img[src^='blob:']").first
    plot.wait_for()
    assert plot.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [1600, 1000]
    screenshot(page, tmp_path, "front")


def test_the_printed_link_opens_a_scatter_with_each_model_once(
    tracked: Tracker, server: str, page: Any, tmp_path: Path
) -> None:
    page.goto(f"{server}/{tracked.scatter_page}")
    plot = page.locator(".js-plotly-plot").first
    plot.locator(".scatterlayer .point").first.wait_for()
    drawn = plot.evaluate(
        "plot => plot.data.filter(trace => trace.x).flatMap(trace => trace.x.map((x, i) => [trace.y[i], x]))"
    )
    assert sorted(map(tuple, drawn)) == sorted(POINTS.values())
    titles = plot.evaluate("plot => [plot.layout.xaxis.title, plot.layout.yaxis.title].map(t => t.text || t)")
    assert titles == ["memory_mb", "em_percent"]
    assert plot.evaluate("plot => plot.getBoundingClientRect().width") > 400  # not a third of the row
    screenshot(page, tmp_path, "scatter")


def test_the_parent_and_a_form_tell_what_they_are(
    tracked: Tracker, server: str, page: Any, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    from sweeps.progress.mlflow_store import tracking_uri_in

    assert tracked.runs_page is not None
    runs, _, kind = tracked.runs_page.partition("?")
    page.goto(f"{server}/{runs}/{tracked.parent_run_id}?{kind}")
    page.get_by_text("What was asked").first.wait_for()
    page.get_by_text("Best values on it").first.wait_for()
    screenshot(page, tmp_path, "parent")
    moved = Path(tracked.tracking_uri.removeprefix("sqlite:///")).parent.with_name("moved")
    client = MlflowClient(tracking_uri=tracking_uri_in(moved))
    experiment = runs.split("/")[2]
    (form,) = client.search_runs([experiment], "tags.`qa.form` = 'int8'")
    page.goto(f"{server}/{runs}/{form.info.run_id}?{kind}")
    for word in ("family", "methods", "bits", "em_percent"):
        page.get_by_text(word, exact=True).first.wait_for()
    screenshot(page, tmp_path, "form")
