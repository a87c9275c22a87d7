"""A real sweep on an embedded Ray: every trial recorded once, statuses true, a failing trial ends nothing."""

import contextlib
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import ConfigError, StorageError
from sweeps.budget.memory import MemoryForecast
from sweeps.commands.run import write_front
from sweeps.front.front import choosable
from sweeps.nodes import preflight
from sweeps.nodes.ray_environment import RayTarget
from sweeps.progress.console import SweepConsole
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.run_folder import records
from sweeps.run_folder.layout import RECORDS_FILE
from sweeps.run_folder.model_id import ModelId
from sweeps.space.compile import compile_space
from sweeps.trials import ray_driver
from sweeps.trials.ray_driver import create_run_folder, run_sweep
from tests.sweeps.small_sweep import small_spec
from tests.sweeps.told import Told


def test_a_sweep_records_every_trial_once_and_a_failing_one_ends_nothing(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.chdir(small_squad.parent)  # relative paths must mean the same in a worker
    spec = small_spec(tmp_path, Path(small_squad.name))
    console, tracker = Told(), Told()
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=console, tracker=tracker)

    found = records.load(outcome.folder / RECORDS_FILE).records
    assert sorted(record.trial_id for record in found) == [f"t{index:04d}" for index in range(8)]
    assert sum(outcome.counts.values()) == 8
    by_methods = {record.trial_id: record for record in found}
    failed = [record for record in found if record.status == "failed"]
    assert len(failed) == outcome.counts["failed"] == 2
    for record in failed:
        assert "no_such_set" in record.reason
        assert "Traceback" in record.traceback
    for record in by_methods.values():
        if record.status == "ok":
            assert record.examples_seen == 120
            (abroad,) = record.cross_domain.values()  # here the evaluation set under another role
            assert abroad["quality"] == record.quality
            assert abroad["data_hash"] == record.data["evaluation"]["data_hash"]
            is_kept = (outcome.folder / record.artifact / "manifest.json").exists()
            assert is_kept == (ModelId(record.trial_id) in choosable(outcome.front))
            assert record.objectives["memory_mb"] == record.cost["inference_peak_bytes"] / 1e6
            assert record.provenance["left_over_bytes"] < 1_000_000
        if record.status == "stopped":
            assert 50 <= record.examples_seen < 120
            assert record.quality is None
    assert outcome.counts["ok"] >= 1
    assert {point.trial_id for point in outcome.front.points} == {
        record.trial_id for record in found if record.status == "ok"
    }
    assert len(tracker.named("trial_ended")) == len(console.named("trial_ended")) == 8
    assert json.loads((outcome.folder / "spec.json").read_text())["name"] == "small"
    (node,) = preflight.read(outcome.folder).nodes
    assert {record.provenance["node"] for record in found} == {node.node}
    assert {record.provenance["mixed_nodes"] for record in found} == {False}
    assert node.paths.keys() == {small_squad.name}
    assert not [args for args in console.named("note") if "pre-flight" in args[0]]
    assert console.listening
    assert console.listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    # Grid order and seeds are those of the spec, whatever Ray does first.
    seeds = {record.trial_id: record.seed for record in found}
    assert len(set(seeds.values())) == 8


@pytest.fixture(scope="module")
def mamba_checkpoint(small_squad: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random small Mamba and its tokenizer."""
    from qa_core import registry
    from qa_core.config import ModelConfig
    from qa_core.data.squad import load_table
    from qa_core.data.tokenizers import trained_tokenizer

    folder = tmp_path_factory.mktemp("mamba")
    table = load_table(str(small_squad), split="train")
    tokenizer = trained_tokenizer("bytes", table, vocab_size=300, cache_dir=folder / "cache")
    model = registry.family_class("mamba")(ModelConfig("mamba", "micro", head="generate")).build(tokenizer)
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_prompted_recipe_stands_on_the_front_of_the_trained_ones(
    small_squad, mamba_checkpoint, cache_dir, tmp_path, monkeypatch
):
    """It reports once, after 0 examples: the scheduler, the console, MLflow and the front must take that."""
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec = small_spec(
        tmp_path,
        small_squad,
        budget={"trials": 8, "examples": 64},
        scheduler={"name": "asha", "options": {"grace_examples": 32, "eta": 2}},
        recipe={
            "model": {"family": "mamba", "checkpoint": str(mamba_checkpoint)},
            "data": {
                "train": str(small_squad),
                "evaluation": str(small_squad),
                "evaluation_questions": 12,
                "selection_questions": 6,
                "max_length": 192,
                "stride": 8,
                "max_question_length": 24,
            },
            "train": {"precision": "float32", "batch_size": 8, "learning_rate": 0.003},
            "evaluation": {"precision": "float32", "latency_runs": 2, "max_new_tokens": 4},
            "methods": {"few_shot": {"shots": 1, "max_demonstration_tokens": 100}},
        },
        space=[{"set": "methods", "choice": ["few_shot", "full", "few_shot+lora"]}],
    )
    folder, output = tmp_path / "run", io.StringIO()
    create_run_folder(folder)
    console = SweepConsole(output)
    tracker = Tracker.start(
        spec.as_dict(), run_folder=folder, tracking_uri=None, experiment="t", notify=pytest.fail
    )
    outcome = run_sweep(spec, folder=folder, target=RayTarget(), console=console, tracker=tracker)
    console.finish(outcome.counts)
    write_front(outcome.front, folder)
    tracker.finish("finished")

    found = {
        "+".join(item.config["methods"]) or "full": item
        for item in records.load(folder / RECORDS_FILE).records
    }
    assert found.keys() == {"few_shot", "full"}
    prompted, trained = found["few_shot"], found["full"]
    assert (prompted.status, prompted.examples_seen, prompted.budget_examples) == ("ok", 0, 0)
    assert (trained.status, trained.examples_seen, trained.budget_examples) == ("ok", 64, 64)
    assert len(prompted.curve) == 1
    assert prompted.curve[0]["train_loss"] is None
    assert prompted.cost["train_peak_bytes"] is None
    assert prompted.cost["compute_path"] == trained.cost["compute_path"] == "project-scan"
    assert len(prompted.data["demonstrations"]["question_ids"]) == 1
    points = {point.trial_id for point in outcome.front.points}
    assert points == {prompted.trial_id, trained.trial_id}
    assert f"{prompted.trial_id}  finished" in output.getvalue()
    assert tracker.failures == 0


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    create_run_folder(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        create_run_folder(tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def _memory_spec(tmp_path, small_squad, limit):
    space = [
        {"set": "model.family", "choice": ["bert", "lstm"]},
        {"set": "train.learning_rate", "choice": [0.002, 0.004]},
    ]
    budget = {"trials": 8, "examples": 40, "max_memory_mb": limit}
    return small_spec(tmp_path, small_squad, space=space, budget=budget, scheduler={"name": "fifo"})


@pytest.mark.long
def test_a_recipe_that_is_predicted_to_need_too_much_never_starts(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    """BERT micro needs about 1.7 MB here, the BiLSTM about 1.5."""
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    forecast = MemoryForecast.of(_memory_spec(tmp_path, small_squad, 1000.0))
    space = compile_space(_memory_spec(tmp_path, small_squad, 1000.0))
    needed = {
        item["model.family"]: forecast.predict(space.to_run_config(item, seed=0)) for item in space.grid()
    }
    assert needed["lstm"] < needed["bert"]
    limit = (needed["lstm"] + needed["bert"]) / 2
    console = Told()
    spec = _memory_spec(tmp_path, small_squad, limit)
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=console, tracker=Told())
    found = records.load(outcome.folder / RECORDS_FILE).records
    assert [(item.config["model"]["family"], item.status) for item in found] == [("lstm", "ok")] * 2
    assert len(console.named("trial_started")) == 2
    assert any(
        "2 recipes came up that are predicted to need more" in args[0] for args in console.named("note")
    )
    for item in found:
        assert item.cost["predicted_inference_peak_bytes"] == item.cost["inference_peak_bytes"]

    with pytest.raises(ConfigError, match=r"budget\.max_memory_mb: found 0\.5; allowed: enough for a recipe"):
        run_sweep(
            _memory_spec(tmp_path, small_squad, 0.5),
            folder=tmp_path / "none",
            target=RayTarget(),
            console=Told(),
            tracker=Told(),
        )


@pytest.mark.long
def test_a_new_sweep_that_is_refused_before_its_first_trial_leaves_its_folder_free(
    small_squad, tmp_path, monkeypatch, cache_dir
):
    """Here for its disk, on one machine; folders that hold something else are not touched."""
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec = small_spec(tmp_path, small_squad)
    console, run = Told(), tmp_path / "run"
    monkeypatch.setattr("sweeps.nodes.preflight.LEAST_FREE_BYTES", 10**18)
    with pytest.raises(ConfigError) as caught:
        run_sweep(spec, folder=run, target=RayTarget(), console=console, tracker=Told())
    assert str(caught.value).count("GB of free disk; allowed: 1e+09 GB or more") == 2
    assert (console.named("trial_started"), run.exists()) == ([], False)

    (run / "trials").mkdir(parents=True)
    (run / "trials" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        run_sweep(spec, folder=run, target=RayTarget(), console=console, tracker=Told())
    assert (run / "trials" / "notes.txt").read_text() == "mine"


@pytest.mark.long
def test_a_sweep_with_stored_forms_trains_each_recipe_once_and_records_its_forms(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec = small_spec(
        tmp_path,
        small_squad,
        forms={"quantize": {"bits": [32, 8]}},
        space=[{"set": "model.family", "choice": ["bert", "lstm"]}],
        scheduler={"name": "fifo"},
        objectives=[
            {"name": "em_percent", "goal": "max", "reference": 0},
            {"name": "memory_mb", "goal": "min", "reference": 32},
            {"name": "latency_p50_ms", "goal": "min", "reference": 1000},  # so that none is skipped
        ],
    )
    console, tracker = Told(), Told()
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=console, tracker=tracker)
    found = records.load(outcome.folder / RECORDS_FILE).records
    assert outcome.counts == {"ok": 2}
    for record in found:
        int8, twin = record.forms
        assert (int8.label, twin.label, int8.status, twin.status) == ("int8", "float32", "ok", "ok")
        assert twin.objectives == record.objectives
        assert twin.artifact == record.artifact == f"trials/{record.trial_id}/artifact"
        assert int8.objectives["memory_mb"] < twin.objectives["memory_mb"]
        assert int8.against_twin["clusters"] == 12
        assert "quantize" not in record.config["methods"]


class _Slow:
    """A tracker whose store opens when it is told to."""

    def __init__(self) -> None:
        self.may_open, self.is_open = threading.Event(), False

    def open(self) -> None:
        assert self.may_open.wait(30)
        self.is_open = True


def test_a_mirror_opens_beside_other_work_and_is_open_before_it_is_finished() -> None:
    tracker: Any = _Slow()
    with ray_driver._opening(tracker, is_beside=True) as opened:
        assert not tracker.is_open
        tracker.may_open.set()
        opened()
        assert tracker.is_open

    refused: Any = _Slow()
    with contextlib.suppress(ConfigError), ray_driver._opening(refused, is_beside=True):
        threading.Timer(0.2, refused.may_open.set).start()
        raise ConfigError("no node can run a trial")
    assert refused.is_open  # nobody asked for it, and it is there to be withdrawn


def test_a_mirror_that_may_refuse_the_sweep_is_opened_before_anything_else() -> None:
    tracker: Any = _Slow()
    tracker.may_open.set()
    with ray_driver._opening(tracker, is_beside=False):
        assert tracker.is_open
