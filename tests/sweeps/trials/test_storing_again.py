"""A sweep that trains nothing: an artifact stored in fewer bits, from YAML to measured artifacts, without Ray."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.errors import ConfigError
from qa_core.run import run
from qa_core.values import from_dict
from sweeps.schedulers.base import make_scheduler
from sweeps.searchers.base import make_searcher
from sweeps.space.compile import compile_space
from sweeps.spec.load import load_spec
from sweeps.spec.sections import SweepSpec

SCHEDULERS = {
    "fifo": {"name": "fifo"},
    "pareto_asha": {"name": "pareto_asha", "options": {"grace_examples": 100}},
    "asha": {"name": "asha", "options": {"grace_examples": 100}},
}
OPTIONS = {"attention": "none", "hidden_size": 12}


def recipe(squad: Path, family: str, **model: Any) -> dict[str, Any]:
    return {
        "model": {"family": family, "checkpoint": "micro", "vocab_size": 300, **model},
        "data": {
            "train": str(squad),
            "evaluation": str(squad),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
            "train_questions": 40,
            "evaluation_questions": 8,
        },
        "evaluation": {"precision": "float32", "latency_runs": 1},
    }


def trained(folder: Path, squad: Path, cache_dir: Path, family: str, **model: Any) -> Path:
    values = {**recipe(squad, family, **model), "train": {"budget_examples": 16, "batch_size": 8}}
    run(from_dict(RunConfig, values), lambda report: None, folder=folder, cache_dir=cache_dir)
    return folder / "artifact"


def sweep(folder: Path, squad: Path, source: Path, family: str, scheduler: str, **model: Any) -> SweepSpec:
    values = {
        "name": "again",
        "objectives": [
            {"name": "em_percent", "goal": "max", "reference": 0},
            {"name": "memory_mb", "goal": "min", "reference": 32},
        ],
        "searcher": {"name": "grid"},
        "scheduler": SCHEDULERS[scheduler],
        "budget": {"trials": 4, "examples": 0},
        "recipe": recipe(squad, family, checkpoint=str(source), **model),
        "space": [
            {"set": "methods", "choice": ["full", "quantize"]},
            {"set": "methods.quantize.bits", "choice": [4, 8, 16], "when": {"methods": "quantize"}},
        ],
    }
    path = folder / "again.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_spec(path)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_takes_a_sweep_without_training_and_has_no_rungs(scheduler, small_squad, tmp_path):
    spec = sweep(tmp_path, small_squad, tmp_path / "absent", "bert", scheduler)
    chosen = make_scheduler(spec.scheduler.name, spec.scheduler.options)
    assert chosen.rungs(spec.budget.examples) == ()
    ray_scheduler = chosen.ray_scheduler(spec.objectives, spec.budget.examples)
    final = {"examples_seen": 0, "selection_em_percent": 5.0, "memory_mb": 3.0, "train_seconds": 0.0}
    trial = type("Trial", (), {"trial_id": "t0000"})()
    assert ray_scheduler.on_trial_result(None, trial, final) == "CONTINUE"


@pytest.mark.parametrize(("family", "options"), [("bert", {}), ("lstm", OPTIONS)], ids=["bert", "lstm"])
@pytest.mark.long
def test_a_trained_model_is_stored_in_fewer_bits_and_measured_again(
    family, options, small_squad, cache_dir, tmp_path
):
    source = trained(tmp_path / "first", small_squad, cache_dir, family, options=options)
    spec = sweep(tmp_path, small_squad, source, family, "pareto_asha", options=options)
    space = compile_space(spec)
    searcher = make_searcher(spec, space)
    weights = {}
    while (proposal := searcher.propose()) is not None:
        config = space.to_run_config(proposal.assignment, seed=0)
        bits = proposal.assignment.get("methods.quantize.bits", 32)
        reports: list[Any] = []
        result = run(config, reports.append, folder=tmp_path / str(bits), cache_dir=cache_dir)
        assert (reports, result.cost.train_peak_bytes, result.curve[-1].budget_examples) == ([], None, 0)
        assert result.cost.predicted_inference_peak_bytes == result.cost.inference_peak_bytes
        weights[bits] = result.cost.weights_bytes
    assert sorted(weights, key=weights.__getitem__) == [4, 8, 16, 32]
    again, first = (artifact.load(folder).model.state_dict() for folder in (tmp_path / "32/artifact", source))
    assert all(again[name].equal(first[name]) for name in first)


def test_options_that_the_artifact_was_not_trained_with_are_refused(small_squad, cache_dir, tmp_path):
    source = trained(tmp_path / "first", small_squad, cache_dir, "lstm", options=OPTIONS)
    spec = sweep(tmp_path, small_squad, source, "lstm", "fifo", options={"attention": "dot"})
    config = compile_space(spec).to_run_config({"methods": "full"}, seed=0)
    with pytest.raises(
        ConfigError, match=r"model.options.attention: found 'dot'; allowed: 'none', with which"
    ):
        run(config, lambda report: None, folder=tmp_path / "second", cache_dir=cache_dir)


def test_a_compressed_artifact_is_no_start(small_squad, cache_dir, tmp_path):
    source = trained(tmp_path / "first", small_squad, cache_dir, "bert")
    spec = sweep(tmp_path, small_squad, source, "bert", "fifo")
    assignment = {"methods": "quantize", "methods.quantize.bits": 8}
    stored = compile_space(spec).to_run_config(assignment, seed=0)
    run(stored, lambda report: None, folder=tmp_path / "stored", cache_dir=cache_dir)
    spec = sweep(tmp_path, small_squad, tmp_path / "stored" / "artifact", "bert", "fifo")
    with pytest.raises(ConfigError, match="is compressed"):
        run(
            compile_space(spec).to_run_config({"methods": "full"}, seed=0),
            lambda report: None,
            folder=tmp_path / "third",
            cache_dir=cache_dir,
        )
