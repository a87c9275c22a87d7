"""What an earlier version wrote is read by this one: artifacts of each kind, and the folder of an interrupted sweep.

`make.py` says what the fixtures hold and how they were written. Each test works on a copy.
"""

import csv
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from qa_core import run
from qa_core.config import RunConfig
from qa_core.data.squad import read_squad
from qa_core.schema import Progress, as_json
from qa_core.scoring.answer_file import ANSWERS_FILE
from qa_core.values import from_dict
from sweeps import cli
from sweeps.commands.predict import answer, load_artifact
from sweeps.commands.results import read_front
from sweeps.front import confirm as confirmation
from sweeps.run_folder import journal, records
from sweeps.spec.load import stored_spec
from tests.compatibility.make import ARCHIVE, EVALUATION, EXPECTED, FOLDER, asked_questions
from tests.sweeps.whole import Sweep

SAVED: dict[str, Any] = json.loads(EXPECTED.read_text())
# Nats. Sums in float32 differ between processors by about 1e-5 of a score; where inputs are rounded to 8 bits, as in
# int8-dynamic, all rounding together moves the scores of these networks by 0.005.
TOLERANCE = 0.005
ABSOLUTE_PATH = re.compile(r"(?<=[\"\s:=('])/[A-Za-z][\w.-]*(?:/[\w.-]+)+")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked fixtures; only read."""
    folder = tmp_path_factory.mktemp("saved")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def workplace(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of run and data as the working folder: paths in the settings of the sweep are relative to it."""
    folder = tmp_path / "work"
    shutil.copytree(saved, folder, ignore=shutil.ignore_patterns("artifacts"))
    monkeypatch.chdir(folder)
    return folder


def test_the_archive_holds_what_is_expected_and_nothing_of_the_machine(saved: Path) -> None:
    found = sorted(item.name for item in (saved / "artifacts").iterdir())
    assert found == sorted(SAVED["answers"])
    assert len(found) == 36
    suffixes = {item.suffix for item in saved.rglob("*") if item.is_file()}
    assert suffixes <= {".json", ".jsonl", ".safetensors", ".parquet", ".csv", ".txt", ".lock", ""}
    texts = [item.read_text() for pattern in ("*.json", "*.jsonl") for item in saved.rglob(pattern)]
    paths = {path for text in texts for path in ABSOLUTE_PATH.findall(text)}
    assert {path for path in paths if path != FOLDER and not path.startswith(f"{FOLDER}/")} == set()


@pytest.mark.parametrize("name", sorted(SAVED["answers"]))
def test_an_artifact_answers_as_it_did(name: str, saved: Path) -> None:
    loaded = load_artifact(saved / "artifacts" / name)
    expected = SAVED["answers"][name]
    found = answer(loaded, read_squad(asked_questions(), "asked"), device="cpu")
    assert [item.question_id for item in found] == [item["question"] for item in expected]
    assert [item.text for item in found] == [item["text"] for item in expected]
    for attribute in ("score", "null_odds"):
        values = [item[attribute] for item in expected]
        assert [getattr(item, attribute) for item in found] == pytest.approx(values, abs=TOLERANCE)


def test_the_front_is_the_same(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["front", "run", "--csv", "again.csv"]) == 0
    shown = capsys.readouterr().out
    assert f"Front: {len(SAVED['front'])} of 2 finished trials" in shown
    with open("again.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["trial_id"] in SAVED["front"]]
    assert len(rows) == len(SAVED["front"]) > 0
    for row in rows:
        for name, value in SAVED["front"][row["trial_id"]].items():
            assert float(row[name]) == pytest.approx(value, rel=1e-9)


def test_an_exported_model_gives_the_stored_answers(workplace: Path) -> None:
    from pyarrow import parquet

    (trial,) = SAVED["front"]
    assert cli.main(["export", "run", "--max-memory-mb", "1", "--to", "model"]) == 0
    assert cli.main(["predict", "model", "--input", EVALUATION, "--output", "answers.json"]) == 0
    table = parquet.read_table(Path("run", "trials", trial, ANSWERS_FILE))
    stored = dict(zip(table["question_id"].to_pylist(), table["answer"].to_pylist(), strict=True))
    assert json.loads(Path("answers.json").read_text()) == stored
    assert len(stored) == 60


def test_a_damaged_artifact_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (trial,) = SAVED["front"]
    weights = Path("run", "trials", trial, "artifact", "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert cli.main(["export", "run", "--max-memory-mb", "1", "--to", "model"]) == 2
    assert "model.safetensors" in capsys.readouterr().err
    assert not Path("model").exists()


def test_the_interrupted_trial_resumes_from_its_checkpoint(workplace: Path, tmp_path: Path) -> None:
    (trial,) = [trial for trial in journal.read(Path("run")).trials if trial.record is None]
    folder = Path("run", "trials", trial.trial_id)
    config = from_dict(RunConfig, trial.recipe)
    reports: list[Progress] = []
    result = run.run(config, reports.append, folder=folder, cache_dir=tmp_path / "cache")
    assert trial.curve
    # The last rung is reported again; its clock shows that it was not trained again.
    again = as_json(reports[0])  # with the fields that came later, of which its checkpoint knows nothing
    assert [{name: again.pop(name) for name in trial.curve[0]}] == trial.curve
    assert set(again.values()) == {None}
    assert result.curve[-1].examples_seen == config.train.budget_examples


def test_a_confirming_sweep_is_planned(workplace: Path) -> None:
    found = records.load(Path("run", "records.jsonl")).records
    spec, front = stored_spec(Path("run")), read_front(Path("run"))
    planned = confirmation.plan(spec, front, found, Path("run", "confirm"), seeds=2)
    assert planned.budget.trials == 2 * len(SAVED["front"])
    past = journal.read(Path("run", "confirm")).trials
    assert {item.notes["confirms"] for item in past} == SAVED["front"].keys()


@pytest.mark.long
def test_the_interrupted_sweep_is_resumed(workplace: Path, cache_dir: Path) -> None:
    """Ray is started once: a minute or two on two busy cores."""
    file = Path("run", "records.jsonl")
    before = file.read_bytes()
    assert [trial.trial_id for trial in journal.read(Path("run")).trials if trial.record is None] == ["t0006"]
    output = Sweep(Path("run"), [], cache_dir).finish()
    assert file.read_bytes().startswith(before), output
    # A trial that pauses while another may still come has its record after that one.
    loaded = sorted(records.load(file).records, key=lambda record: record.trial_id)
    assert [item.trial_id for item in loaded] == [f"t{index:04d}" for index in range(8)]
    assert (loaded[6].starts, loaded[6].status in ("ok", "stopped")) == (2, True), loaded[6]
