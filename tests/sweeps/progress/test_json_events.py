"""Events as JSON: one object in each line, all of them described in docs/events.md."""

import ast
import io
import json
import re
import time
from pathlib import Path
from typing import Any

from sweeps.progress import json_events
from sweeps.progress.json_events import JsonEvents
from sweeps.run_folder.layout import RunFolder

PAGE = Path(__file__).resolve().parents[3] / "docs" / "events.md"


def told(folder: Path) -> list[dict[str, Any]]:
    output = io.StringIO()
    events = JsonEvents(output, seconds=0.05)
    events.section("data", ["train: a.csv: 12 questions"])
    events.section("notes", [])
    events.warning("the ceiling is low")
    events.start("quick", 3, folder, ended=1, minutes=10)
    events.note("mlflow at https://me:secret@host")
    events.trial_started("t0001", "bert full")
    place = RunFolder(folder).trial("t0001")
    place.path.mkdir(parents=True)
    values = {"examples_seen": 8, "budget_examples": 64, "loss": None, "examples_per_second": 4.0}
    place.progress.write_text(json.dumps(values))
    deadline = time.monotonic() + 30
    while '"examples_per_second": 4.0' not in output.getvalue() and time.monotonic() < deadline:
        time.sleep(0.02)
    events.trial_reported("t0001", {"examples_seen": 32, "selection_em_percent": 12.5})
    events.trial_paused("t0001", 32, "too few results")
    form = {
        "label": "int8",
        "status": "ok",
        "reason": None,
        "objectives": {"memory_mb": 2.0},
        "cost": {"a": 1},
    }
    record = {"trial_id": "t0001", "status": "ok", "objectives": {"em_percent": 50.0}, "seconds": 3.0}
    events.trial_ended({**record, "reason": None, "examples_seen": 64, "config": {}, "forms": [form]})
    events.front_changed([{"trial_id": "t0001", "em_percent": 50.0, "on_front": True, "form": None}], 0.5)
    events.finish({"ok": 1})
    events.result(None, unfinished=0, paused={}, files=[folder / "front.csv"])
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_each_event_is_an_object_in_a_line(tmp_path: Path) -> None:
    found = told(tmp_path)
    by_name = {item["event"]: item for item in found}
    assert [name for name in by_name if name != "progress"] == [
        "section",
        "warning",
        "sweep_started",
        "note",
        "trial_started",
        "rung",
        "trial_paused",
        "trial_ended",
        "front",
        "sweep_ended",
        "result",
    ]
    assert [item["title"] for item in found if item["event"] == "section"] == ["data"]
    assert "secret" not in by_name["note"]["text"]
    progress = [item for item in found if item["event"] == "progress" and item["trials"].get("t0001")][-1]
    assert progress["trials"]["t0001"]["examples_seen"] == 8
    assert progress["ended"] == 1
    assert 0 < progress["seconds_left"] <= 600
    assert by_name["trial_ended"]["forms"][0] == {
        "label": "int8",
        "status": "ok",
        "reason": None,
        "objectives": {"memory_mb": 2.0},
    }
    assert by_name["front"]["points"] == [{"trial_id": "t0001", "em_percent": 50.0, "on_front": True}]
    assert by_name["sweep_ended"]["counts"] == {"ok": 1}
    assert by_name["result"]["files"] == [str(tmp_path / "front.csv")]
    assert all(isinstance(item["time"], float) for item in found)


def test_the_page_describes_each_event_and_all_of_its_fields(tmp_path: Path) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", PAGE.read_text(), flags=re.M))
    written = [
        node.args[0].value
        for node in ast.walk(ast.parse(Path(json_events.__file__).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._write"
    ]
    assert sorted(rows) == sorted(written)
    for item in told(tmp_path):
        fields = set(item) - {"event", "time"}
        named = set(re.findall(r"`(\w+)`", rows[item["event"]]))
        assert fields <= named, item["event"]
