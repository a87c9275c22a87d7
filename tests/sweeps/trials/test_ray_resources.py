"""How many trials run at a time, and which share of a GPU each of them is given."""

import pytest
import ray

from qa_core.errors import ConfigError
from sweeps.budget.gpu_shares import HEADROOM, PROCESS_BYTES
from sweeps.budget.memory import MemoryForecast
from sweeps.nodes import preflight
from sweeps.nodes.ray_environment import RayTarget
from sweeps.nodes.report import Gpu, NodeReport
from sweeps.run_folder import records
from sweeps.run_folder.layout import RECORDS_FILE
from sweeps.space.compile import compile_space
from sweeps.trials.ray_driver import _gpu_shares, concurrent_trials, resources_of, run_sweep
from tests.sweeps.small_sweep import small_spec
from tests.sweeps.told import Told


@pytest.mark.slow  # held without Ray below, where the resources of a cluster are said
def test_resources_that_no_machine_offers_are_refused_at_once(small_squad, tmp_path, monkeypatch, cache_dir):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec = small_spec(tmp_path, small_squad, resources={"gpus_per_trial": 64})
    with pytest.raises(ConfigError, match=r"resources\.gpus_per_trial: found 64"):
        run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=Told(), tracker=Told())


def test_on_a_cluster_the_named_number_of_trials_runs_whatever_nodes_are_there(
    small_squad, tmp_path, monkeypatch
):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    budget, wanted = {"trials": 20, "examples": 120}, {"gpus_per_trial": 1}
    named = small_spec(tmp_path, small_squad, budget={**budget, "concurrent": 8}, resources=wanted)
    assert concurrent_trials(named, is_cluster=True) == 8
    with pytest.raises(ConfigError, match=r"found 1\.0; allowed: at most 0, all that there is$"):
        concurrent_trials(named)
    unnamed = small_spec(tmp_path, small_squad, budget=budget, resources=wanted)
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
    probe = small_spec(tmp_path, small_squad, space=space, resources=wanted)
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
    spec = small_spec(tmp_path, small_squad, space=space, resources=wanted)
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=Told(), tracker=Told())
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
    assert concurrent_trials(small_spec(tmp_path, small_squad, resources=wanted)) == 16
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 40.0})
    with pytest.raises(ConfigError, match=r"resources\.gpus_per_trial: found auto; allowed: at most 0,"):
        concurrent_trials(small_spec(tmp_path, small_squad, resources=wanted))


def test_without_a_word_on_the_memory_of_gpus_no_share_is_found(small_squad, tmp_path):
    spec = small_spec(tmp_path, small_squad, resources={"gpus_per_trial": "auto"})
    with pytest.raises(ConfigError, match=r"resources\.gpu_memory_gb: found none"):
        _gpu_shares(spec, MemoryForecast.of(spec), tmp_path)
    gpus = [(Gpu("big", 80 * 10**9),), (Gpu("big", 80 * 10**9), Gpu("small", 16 * 10**9)), None]
    nodes = [NodeReport(str(index), True, gpus=item) for index, item in enumerate(gpus)]
    nodes.append(NodeReport("head", False, gpus=(Gpu("display", 10**9),)))
    preflight.store(preflight.Preflight(False, True, nodes=tuple(nodes)), tmp_path)
    assert _gpu_shares(spec, MemoryForecast.of(spec), tmp_path).device_bytes == 16 * 10**9
    named = small_spec(tmp_path, small_squad, resources={"gpus_per_trial": "auto", "gpu_memory_gb": 24})
    assert _gpu_shares(named, MemoryForecast.of(named), tmp_path).device_bytes == 24 * 10**9


@pytest.mark.long
def test_one_machine_is_asked_for_its_gpus_where_shares_are_found(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    real_init = ray.init
    monkeypatch.setattr("ray.init", lambda **options: real_init(**options, num_gpus=1))
    spec = small_spec(tmp_path, small_squad, resources={"gpus_per_trial": "auto"})
    with pytest.raises(ConfigError, match=r"Ray offers GPUs there and torch .* sees none"):
        run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=Told(), tracker=Told())
