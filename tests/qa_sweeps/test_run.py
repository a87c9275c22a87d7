"""Sweeps from Python: tables go in, a front, exports and answers come out; refusals are exceptions."""

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest

import qa_sweeps
from qa_core.data.squad import load_table
from qa_sweeps import given, running
from tests.sweeps.whole import tiny_recipes


def tiny(squad: Path, **budget: Any) -> dict[str, Any]:
    """Return a sweep whose trials take a second."""
    settings = tiny_recipes(squad, batch_size=8)
    return {
        "name": "tiny",
        **settings,
        "searcher": {"name": "random"},
        "scheduler": {"name": "fifo"},
        "budget": {"trials": 2, "examples": 64, "concurrent": 1, **budget},
        "space": [
            {"set": "model.family", "choice": ["bert", "lstm"]},
            {"set": "train.learning_rate", "log_uniform": [1e-3, 4e-3]},
        ],
    }


def frame_of(squad: Path) -> pandas.DataFrame:
    table = load_table(str(squad), split="train")
    rows = [
        {"q": item.question, "passage": item.context, "gold": item.answers[0].text if item.answers else None}
        for item in table.examples()
    ]
    return pandas.DataFrame(rows)


COLUMNS = {"question": "q", "context": "passage", "answer": "gold"}


@pytest.fixture
def here(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.long
def test_a_frame_becomes_a_front_and_a_model_beside_a_ray_and_an_event_loop_that_run_already(
    small_squad: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    settings = tiny(small_squad)
    settings["recipe"]["data"].pop("evaluation")
    # A Ray of its own: without an address it joins any that runs on this machine, such as another test's.
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:

        async def in_a_loop() -> qa_sweeps.Sweep:
            return qa_sweeps.run(settings, train=frame_of(small_squad), columns=COLUMNS, folder="run")

        sweep = asyncio.run(in_a_loop())
        assert ray.get(ray.remote(lambda: 7).remote()) == 7  # this process's own Ray goes on
    finally:
        ray.shutdown()
    output = capsys.readouterr().out
    assert "t0001  finished" in output
    assert sweep.counts == {"ok": 2}
    assert sweep.ended_by is None

    front, table = sweep.front(), sweep.table()
    assert len(table) == 2
    assert 1 <= len(front) <= 2
    assert {"trial_id", "em_percent", "memory_mb", "train.learning_rate"} <= set(front.columns)
    assert set(front["trial_id"]) == set(table[table["on_front"]]["trial_id"])

    (data,) = (here / "run" / "data").iterdir()
    record = json.loads((here / "run" / "records.jsonl").read_text().splitlines()[0])
    assert record["config"]["data"]["train"] == str(data)
    assert data.stem == f"train-{load_table(str(data), split='train').data_hash[:16]}"

    plot = sweep.plot()
    assert plot.path == sweep.folder / "report.html"
    assert plot._repr_html_().startswith("<iframe srcdoc=")

    export = sweep.export(max_memory_mb=1000, to="model")
    assert export.trial in set(front["trial_id"])
    assert str(export).startswith("best em_percent with memory_mb <= 1000 MB")
    reader = qa_sweeps.load(export)
    context = "The door of Tower 1 is teal. It was built in 1800 by the guild."
    answers = reader.answers(["When was it built?", "What colour is the door?"], context, candidates=3)
    assert len(answers) == 2
    for answer in answers:
        assert len(answer.candidates) <= 3
        for candidate in answer.candidates:
            assert context[candidate.start : candidate.end] == candidate.text
        assert answer.is_answered == (answer.text is not None)
        if answer.is_answered:
            assert (answer.text, answer.score) == (answer.candidates[0].text, answer.candidates[0].score)
        else:
            assert (answer.start, answer.score) == (None, answer.no_answer_score)
    alone = reader.answer("When was it built?", context, candidates=3)
    assert [item.text for item in alone.candidates] == [item.text for item in answers[0].candidates]


@pytest.mark.slow
def test_an_interrupt_ends_a_sweep_in_order_and_resume_goes_on(small_squad: Path, here: Path) -> None:
    settings = tiny(small_squad, trials=2, examples=2048)

    def interrupt_once_it_trains() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(here.glob("run/trials/*/progress.json")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_once_it_trains, daemon=True).start()
    sweep = qa_sweeps.run(settings, folder="run", quiet=True)
    assert sweep.ended_by == "interrupted"
    again = qa_sweeps.resume(sweep, quiet=True)
    assert again.ended_by is None
    assert again.counts == {"ok": 2}


def test_refusals_are_the_exceptions_of_the_command_line(small_squad: Path, here: Path) -> None:
    settings = tiny(small_squad)
    with pytest.raises(qa_sweeps.ConfigError, match=r"settings: budget\.trails: unknown setting 'trails'"):
        qa_sweeps.run({**settings, "budget": {"trails": 2, "examples": 64}})
    with pytest.raises(qa_sweeps.ConfigError, match="--config: unknown configuration 'quikstart'"):
        qa_sweeps.run("quikstart")
    with pytest.raises(qa_sweeps.DataError, match="train: found columns x; missing: context"):
        qa_sweeps.run(settings, train=pandas.DataFrame({"x": ["a"]}), folder="run")
    with pytest.raises(qa_sweeps.ConfigError, match="columns: found together with train as a table"):
        qa_sweeps.run(settings, train=frame_of(small_squad), evaluation="a.csv", columns=COLUMNS)
    with pytest.raises(qa_sweeps.ConfigError, match=r"settings: .* is not JSON serializable"):
        qa_sweeps.run(settings, settings={"seed": object()})
    (here / "empty").mkdir()
    with pytest.raises(qa_sweeps.DataError, match="empty: no sweep had begun in it"):
        qa_sweeps.run(settings, start_from="empty", folder="run")
    (here / "taken").mkdir()
    (here / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(qa_sweeps.StorageError, match="taken: exists already"):
        qa_sweeps.run(settings, folder="taken")
    with pytest.raises(qa_sweeps.DataError, match="no sweep had begun in it"):
        qa_sweeps.open(here)
    with pytest.raises(qa_sweeps.ArtifactError):
        qa_sweeps.load(here)
    assert not (here / "run").exists()


@pytest.mark.long
def test_what_the_child_refuses_is_raised_here_and_leaves_no_folder(small_squad: Path, here: Path) -> None:
    settings = tiny(small_squad, max_memory_mb=0.001)
    with pytest.raises(qa_sweeps.ConfigError, match=r"budget.max_memory_mb: found 0.001; allowed: at least"):
        qa_sweeps.run(settings, train=frame_of(small_squad), columns=COLUMNS, folder="run")
    assert not (here / "run").exists()


# In the place of the child's code: it refuses, and says what it was started with and what is in its temporary folder.
TELLING = """
import json, pathlib, sys
from qa_sweeps.child import files
request = json.loads(sys.stdin.readline())
result = pathlib.Path(request["result"])
there = [path.read_text() for path in result.parent.iterdir()]
told = f"{request['tracking_uri']} {request['values']['name']} seen: {sys.argv[2:]} {there}"
files.write_json(result, {"error": "ConfigError", "message": told})
"""


def test_a_password_in_the_address_of_a_store_reaches_the_child_and_no_file_and_no_argument(
    small_squad: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "START", TELLING)
    long = {**tiny(small_squad), "name": "n" * 100_000}  # more than a pipe holds
    with pytest.raises(qa_sweeps.ConfigError) as told:
        qa_sweeps.run(long, folder="run", tracking_uri="postgresql://me:walrus@host/db")
    assert str(told.value) == f"postgresql://me:walrus@host/db {long['name']} seen: [] []"


def test_a_child_that_dies_before_it_reads_is_told_of(
    small_squad: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "START", "raise SystemExit(9)")
    with pytest.raises(qa_sweeps.QaError, match="the process of the sweep ended with code 9 and no word"):
        qa_sweeps.run({**tiny(small_squad), "name": "n" * 100_000}, folder="run")


def test_tables_of_each_kind_are_written_with_one_hash_and_noted(small_squad: Path, tmp_path: Path) -> None:
    frame = frame_of(small_squad)
    kinds = [frame, pyarrow.Table.from_pandas(frame), frame.to_dict("records")]
    paths = set()
    for kind in kinds:
        settings, notes = given.settings_of(
            kind, None, COLUMNS, folder=tmp_path / "run", skip_bad_examples=False
        )
        paths.add(settings["recipe.data.train"])
        assert notes[0].startswith("train: 60 questions, data hash ")
    (path,) = paths
    assert load_table(path, split="train").data_hash.startswith(Path(path).stem.removeprefix("train-"))
    (tmp_path / "run" / "mine.txt").write_text("kept")
    given.withdraw(tmp_path / "run")
    assert sorted(item.name for item in (tmp_path / "run").iterdir()) == ["mine.txt"]


def test_sources_by_name_are_settings(tmp_path: Path) -> None:
    settings, notes = given.settings_of(
        Path("a.csv"), "sample", COLUMNS, folder=tmp_path, skip_bad_examples=False
    )
    assert settings == {
        "recipe.data.train": "a.csv",
        "recipe.data.evaluation": "sample",
        "recipe.data.columns": COLUMNS,
    }
    assert notes == []
