"""A real sweep on an embedded Ray: every trial recorded once, statuses true, a failing trial ends nothing."""

import contextlib
import io
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import psutil
import pytest
import ray
import yaml

from qa_core.errors import ConfigError, StorageError
from sweeps.budget.gpu_shares import HEADROOM, PROCESS_BYTES
from sweeps.budget.memory import MemoryForecast
from sweeps.commands.run import write_front
from sweeps.front.front import choosable
from sweeps.nodes import preflight, survey
from sweeps.nodes.ray_environment import RayTarget
from sweeps.nodes.report import Gpu, NodeReport
from sweeps.progress.console import SweepConsole
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.run_folder import records
from sweeps.run_folder.layout import RECORDS_FILE
from sweeps.run_folder.model_id import ModelId
from sweeps.space.compile import compile_space
from sweeps.spec.load import load_spec
from sweeps.trials import ray_adapters, ray_driver
from sweeps.trials.ray_adapters import Events, Room
from sweeps.trials.ray_driver import (
    _gpu_shares,
    concurrent_trials,
    create_run_folder,
    resources_of,
    run_sweep,
)
from tests.sweeps import strange_trials


class _Told:
    """Stands in for console and tracker: keeps every call, and where Ray's processes listen meanwhile."""

    parent_run_id = None

    is_closed = False

    def __init__(self) -> None:
        self.lock = contextlib.nullcontext()
        self.calls: list[tuple[str, tuple]] = []
        self.listening: set[str] = set()

    def trial_reported(self, *args) -> None:
        self.calls.append(("trial_reported", args))
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found = [item for item in process.net_connections() if item.status == psutil.CONN_LISTEN]
                self.listening |= {item.laddr.ip for item in found}

    def __getattr__(self, name: str):
        return lambda *args, **kwargs: self.calls.append((name, args))

    def named(self, name: str) -> list[tuple]:
        return [args for called, args in self.calls if called == name]


def _spec(tmp_path: Path, small_squad: Path, **changes):
    values = {
        "name": "small",
        "objectives": [
            {"name": "em_percent", "goal": "max", "reference": 0},
            {"name": "memory_mb", "goal": "min", "reference": 32},
        ],
        "searcher": {"name": "grid"},
        "scheduler": {"name": "asha", "options": {"grace_examples": 50, "eta": 2}},
        "budget": {"trials": 20, "examples": 120},
        "recipe": {
            "model": {"vocab_size": 300, "checkpoint": "micro"},
            "data": {
                "train": str(small_squad),
                "evaluation": str(small_squad),
                "cross_domain": [str(small_squad)],
                "max_length": 64,
                "stride": 8,
                "max_question_length": 24,
            },
            "train": {"precision": "float32", "batch_size": 8},
            "evaluation": {"precision": "float32", "latency_runs": 2},
        },
        "space": [
            {"set": "model.family", "choice": ["bert", "lstm"]},
            {"set": "methods", "choice": ["full", "lora"]},
            {
                "set": "methods.lora.targets",
                "choice": ["attention", "no_such_set"],
                "when": {"methods": "lora"},
            },
            {"set": "train.learning_rate", "choice": [0.002, 0.004]},
        ],
        **changes,
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_spec(path)


def test_a_sweep_records_every_trial_once_and_a_failing_one_ends_nothing(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.chdir(small_squad.parent)  # relative paths must mean the same in a worker
    spec = _spec(tmp_path, Path(small_squad.name))
    console, tracker = _Told(), _Told()
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
    spec = _spec(
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


class _Killer(_Told):
    """Kills Ray's workers at the first reports, as the loss of a machine does."""

    def __init__(self, kills: int) -> None:
        super().__init__()
        self.kills = kills

    def trial_reported(self, *args) -> None:
        self.calls.append(("trial_reported", args))
        if len(self.named("trial_reported")) > self.kills:
            return
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("ray::Impl"):  # what runs trials; Ray has agents too
                    process.kill()


@pytest.mark.long
def test_a_trial_goes_on_from_its_checkpoint_after_its_worker_died_and_one_that_raises_does_not(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    """The report of a rung comes after its checkpoint: what was reported is never trained again."""
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec = _spec(
        tmp_path,
        small_squad,
        scheduler={"name": "fifo", "options": {"at": [40, 80]}},
        budget={"trials": 2, "examples": 120, "concurrent": 1},
        space=[
            {"set": "model.family", "choice": ["bert"]},
            {"set": "methods", "choice": ["lora"]},
            {"set": "methods.lora.targets", "choice": ["attention", "no_such_set"]},
        ],
    )
    console = _Killer(kills=2)
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=console, tracker=_Told())
    found = {item.trial_id: item for item in records.load(outcome.folder / RECORDS_FILE).records}
    assert {name: (item.status, item.starts) for name, item in found.items()} == {
        "t0000": ("ok", 3),
        "t0001": ("failed", 1),
    }
    points = [args[1]["examples_seen"] for args in console.named("trial_reported")]
    assert points == [point["examples_seen"] for point in found["t0000"].curve[:-1]]
    assert len(points) == len(set(points)) == 2
    assert "no_such_set" in found["t0001"].reason
    assert len({item.provenance["node"] for item in found.values()}) == 1
    assert len(found["t0000"].provenance["node"]) == 12


@pytest.mark.long
def test_a_trial_that_hangs_is_ended_and_goes_on_from_its_checkpoint(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.setattr(ray_driver, "run_trial", strange_trials.hangs_once)
    spec = _spec(
        tmp_path,
        small_squad,
        scheduler={"name": "fifo", "options": {"at": [40, 80]}},
        budget={"trials": 1, "examples": 120, "hang_minutes": 1.0},
        space=[{"set": "model.family", "choice": ["bert"]}],
    )
    console = _Told()
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=console, tracker=_Told())
    (record,) = records.load(outcome.folder / RECORDS_FILE).records
    assert (record.status, record.starts, record.examples_seen) == ("ok", 2, 120)
    points = [args[1]["examples_seen"] for args in console.named("trial_reported")]
    assert points == [point["examples_seen"] for point in record.curve[:-1]]
    (note,) = [args[0] for args in console.named("note") if "hang_minutes" in args[0]]
    assert note.startswith("t0000: it did nothing for more than 1 min (budget.hang_minutes) at ")
    assert note.endswith("(1 of 3 times); it resumes")


@pytest.mark.slow  # held without Ray below, where the resources of a cluster are said
def test_resources_that_no_machine_offers_are_refused_at_once(small_squad, tmp_path, monkeypatch, cache_dir):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec = _spec(tmp_path, small_squad, resources={"gpus_per_trial": 64})
    with pytest.raises(ConfigError, match=r"resources\.gpus_per_trial: found 64"):
        run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=_Told(), tracker=_Told())


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
    return _spec(tmp_path, small_squad, space=space, budget=budget, scheduler={"name": "fifo"})


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
    console = _Told()
    spec = _memory_spec(tmp_path, small_squad, limit)
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=console, tracker=_Told())
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
            console=_Told(),
            tracker=_Told(),
        )


@pytest.mark.parametrize(
    ("note", "told", "details"),
    [
        (
            "The actor died unexpectedly before finishing this task.\n\tpid: 7\nThe actor is dead because its worker "
            "process has died. Worker exit type: SYSTEM_ERROR\n",
            "lost",
            {"is_own": True},
        ),
        (
            "The actor 4105 is unavailable: RPC error: Socket closed rpc_code: 14.\n",
            "lost",
            {"is_own": False},
        ),
        (
            'ray::ImplicitFunc.train() (pid=7)\n  File "trial.py", line 3, in run_trial\nStorageError: held\n',
            "ended",
            {},
        ),
    ],
)
def test_a_worker_that_died_is_told_from_a_trial_that_raised_and_from_a_lost_node(
    note: str, told: str, details: dict[str, bool], tmp_path: Path
) -> None:
    (tmp_path / "error.txt").write_text(f"Failure # 1 (occurred at noon)\n{note}")
    trial = SimpleNamespace(
        error_file=str(tmp_path / "error.txt"), config={"trial_id": "t3"}, last_result=None
    )
    driver = MagicMock(is_closed=False, lock=contextlib.nullcontext())
    Events(driver).on_trial_error(1, [], trial)
    ((name, args, found),) = driver.mock_calls
    assert (name, args[0], found) == (told, "t3", details)
    assert note in args[-1]


def test_the_refusal_of_a_node_is_told_from_a_trial_that_raised(tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text(
        'Failure # 1 (occurred at noon)\nray::ImplicitFunc.train() (pid=7)\n  File "trial.py", line 3, in run_trial\n'
        "sweeps.nodes.preflight.NodeRefused: node ab joined this sweep\n  and sees no data\n"
    )
    trial = SimpleNamespace(
        error_file=str(tmp_path / "error.txt"), config={"trial_id": "t3"}, last_result=None
    )
    driver = _Told()
    Events(driver).on_trial_error(1, [], trial)
    assert driver.calls == [("refuse", ("node ab joined this sweep\n  and sees no data",))]


@pytest.mark.long
def test_a_new_sweep_that_is_refused_before_its_first_trial_leaves_its_folder_free(
    small_squad, tmp_path, monkeypatch, cache_dir
):
    """Here for its disk, on one machine; folders that hold something else are not touched."""
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec = _spec(tmp_path, small_squad)
    console, run = _Told(), tmp_path / "run"
    monkeypatch.setattr("sweeps.nodes.preflight.LEAST_FREE_BYTES", 10**18)
    with pytest.raises(ConfigError) as caught:
        run_sweep(spec, folder=run, target=RayTarget(), console=console, tracker=_Told())
    assert str(caught.value).count("GB of free disk; allowed: 1e+09 GB or more") == 2
    assert (console.named("trial_started"), run.exists()) == ([], False)

    (run / "trials").mkdir(parents=True)
    (run / "trials" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        run_sweep(spec, folder=run, target=RayTarget(), console=console, tracker=_Told())
    assert (run / "trials" / "notes.txt").read_text() == "mine"


def test_on_a_cluster_the_named_number_of_trials_runs_whatever_nodes_are_there(
    small_squad, tmp_path, monkeypatch
):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    budget, wanted = {"trials": 20, "examples": 120}, {"gpus_per_trial": 1}
    named = _spec(tmp_path, small_squad, budget={**budget, "concurrent": 8}, resources=wanted)
    assert concurrent_trials(named, is_cluster=True) == 8
    with pytest.raises(ConfigError, match=r"found 1\.0; allowed: at most 0, all that there is$"):
        concurrent_trials(named)
    unnamed = _spec(tmp_path, small_squad, budget=budget, resources=wanted)
    with pytest.raises(ConfigError, match=r"budget\.concurrent says that the cluster will add nodes"):
        concurrent_trials(unnamed, is_cluster=True)


@pytest.mark.long
def test_trials_share_a_gpu_by_what_their_training_is_predicted_to_need(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    real_init = ray.init
    monkeypatch.setattr("ray.init", lambda **options: real_init(**options, num_gpus=1))  # a number to Ray
    space = [
        {"set": "model.family", "choice": ["bert", "lstm"]},
        {"set": "methods", "choice": ["full", "quantize"]},
    ]
    wanted = {"cpus_per_trial": 0.5, "gpus_per_trial": "auto"}
    probe = _spec(tmp_path, small_squad, space=space, resources=wanted)
    forecast, compiled = MemoryForecast.of(probe), compile_space(probe)
    needed = {  # a quantised recipe needs a little more: its rungs score a copy in that form
        (family, methods): forecast.training_bytes(
            compiled.to_run_config({"model.family": family, "methods": methods}, seed=0)
        )
        for family in ("bert", "lstm")
        for methods in ("full", "quantize")
    }
    smaller, larger = sorted(("bert", "lstm"), key=lambda family: needed[family, "full"])
    assert max(needed[smaller, name] for name in ("full", "quantize")) < needed[larger, "full"]
    share_bytes = PROCESS_BYTES + HEADROOM * (needed[smaller, "full"] + needed[larger, "full"]) / 2
    wanted["gpu_memory_gb"] = 8 * share_bytes / 1e9
    spec = _spec(tmp_path, small_squad, space=space, resources=wanted)
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=_Told(), tracker=_Told())
    found = records.load(outcome.folder / RECORDS_FILE).records
    assert len(found) == 4
    for record in found:
        family = record.config["model"]["family"]
        assert record.provenance["gpu_share"] == {smaller: 0.125, larger: 0.25}[family]
        methods = "quantize" if record.config["methods"] else "full"
        assert record.provenance["predicted_train_peak_bytes"] == needed[family, methods]


def test_ray_is_asked_for_the_share_in_the_task_and_equal_ones_can_share_a_worker():
    small, again, whole = (
        resources_of(0.5)({"trial_id": name, "gpu_share": share})
        for name, share in (("t0", 0.25), ("t1", 0.25), ("t2", 1.0))
    )
    assert small.required_resources == {"CPU": 0.5, "GPU": 0.25}
    assert small == again != whole


def test_as_many_trials_run_at_a_time_as_there_are_smallest_shares(small_squad, tmp_path, monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 40.0, "GPU": 2.0})
    wanted = {"gpus_per_trial": "auto"}
    assert concurrent_trials(_spec(tmp_path, small_squad, resources=wanted)) == 16
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 40.0})
    with pytest.raises(ConfigError, match=r"resources\.gpus_per_trial: found auto; allowed: at most 0,"):
        concurrent_trials(_spec(tmp_path, small_squad, resources=wanted))


def test_without_a_word_on_the_memory_of_gpus_no_share_is_found(small_squad, tmp_path):
    spec = _spec(tmp_path, small_squad, resources={"gpus_per_trial": "auto"})
    with pytest.raises(ConfigError, match=r"resources\.gpu_memory_gb: found none"):
        _gpu_shares(spec, tmp_path)
    gpus = [(Gpu("big", 80 * 10**9),), (Gpu("big", 80 * 10**9), Gpu("small", 16 * 10**9)), None]
    nodes = [NodeReport(str(index), True, gpus=item) for index, item in enumerate(gpus)]
    nodes.append(NodeReport("head", False, gpus=(Gpu("display", 10**9),)))
    preflight.store(preflight.Preflight(False, True, nodes=tuple(nodes)), tmp_path)
    assert _gpu_shares(spec, tmp_path).device_bytes == 16 * 10**9
    named = _spec(tmp_path, small_squad, resources={"gpus_per_trial": "auto", "gpu_memory_gb": 24})
    assert _gpu_shares(named, tmp_path).device_bytes == 24 * 10**9


@pytest.mark.long
def test_one_machine_is_asked_for_its_gpus_where_shares_are_found(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    real_init = ray.init
    monkeypatch.setattr("ray.init", lambda **options: real_init(**options, num_gpus=1))
    spec = _spec(tmp_path, small_squad, resources={"gpus_per_trial": "auto"})
    with pytest.raises(ConfigError, match=r"Ray offers GPUs there and torch .* sees none"):
        run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=_Told(), tracker=_Told())


class _Nodes:
    """Stands for the nodes of a cluster, and for the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resources: dict[str, float] = {"CPU": 4.0}
        self.now = 0.0
        monkeypatch.setattr(survey, "live_nodes", lambda: [{"Resources": self.resources}])
        monkeypatch.setattr(ray_driver.time, "monotonic", lambda: self.now)


def test_a_cluster_that_never_offers_what_a_trial_asks_for_is_waited_for_with_a_word_and_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, driver = _Nodes(monkeypatch), _Told()
    room = Room(driver, {"CPU": 1.0, "GPU": 1.0})
    (note,) = driver.named("note")
    assert note[0].startswith(
        "no node of the cluster can hold a trial (1 CPU, 1 GPU); waiting for it to add one"
    )
    cluster.now = 60 * ray_adapters.ROOM_MINUTES - 1
    room.look()
    cluster.now += 30
    with pytest.raises(
        ConfigError, match=r"resources: found 1 CPU, 1 GPU for each trial, which no node .* --resume"
    ):
        room.look()


def test_a_cluster_that_grows_or_has_room_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, driver = _Nodes(monkeypatch), _Told()
    room = Room(driver, {"CPU": 1.0, "GPU": 1.0})
    cluster.resources["GPU"], cluster.now = 1.0, 600.0
    room.look()
    cluster.resources, cluster.now = {}, 60 * ray_adapters.ROOM_MINUTES + 600  # between two nodes
    room.look()
    driver = _Told()
    Room(driver, {"CPU": 0.0, "GPU": 0.0})
    assert driver.named("note") == []


@pytest.mark.long
def test_a_sweep_with_stored_forms_trains_each_recipe_once_and_records_its_forms(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec = _spec(
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
    console, tracker = _Told(), _Told()
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
