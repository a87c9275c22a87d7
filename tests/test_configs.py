"""Every sweep that comes along is valid, and the quickstart shows what it promises."""

from pathlib import Path

import pytest

from qa_core.registry import FAMILIES
from sweeps.registry import make_scheduler, make_searcher
from sweeps.space import compile_space
from sweeps.spec import load_spec

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "sweeps" / "configs").glob("*.yaml"))


def test_all_configs_are_found():
    assert [path.stem for path in CONFIGS] == ["minilm_v1", "quickstart"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_compiles_and_every_proposal_is_a_valid_recipe(path):
    spec = load_spec(path)
    assert spec.name == path.stem
    space = compile_space(spec)
    rungs = make_scheduler(spec.scheduler.name, spec.scheduler.options).rungs(spec.budget.examples)
    searcher = make_searcher(spec, space)
    for seed in range(spec.budget.trials):
        proposal = searcher.propose()
        config = space.to_run_config(proposal.assignment, seed=seed, rungs=rungs)
        assert config.train.budget_examples == spec.budget.examples
        assert config.train.rungs == rungs


def test_the_quickstart_proposes_all_five_families_full_and_lora():
    spec = load_spec(next(path for path in CONFIGS if path.stem == "quickstart"))
    assert spec.budget.trials >= 20
    assert spec.scheduler.name == "pareto_asha"
    space = compile_space(spec)
    searcher = make_searcher(spec, space)
    proposals = [searcher.propose().assignment for _ in range(spec.budget.trials)]
    assert {proposal["model.family"] for proposal in proposals} == set(FAMILIES)
    assert {proposal["methods"] for proposal in proposals} == {"full", "lora"}
    assert [(item.assignment["model.family"], item.assignment["methods"]) for item in space.dropped] == [
        ("lstm", "lora")
    ]


def test_the_minilm_sweep_names_hub_defaults_and_conditions_the_learning_rate_on_the_method():
    spec = load_spec(next(path for path in CONFIGS if path.stem == "minilm_v1"))
    assert spec.budget.trials >= 12
    assert spec.recipe["model"]["checkpoint"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert spec.recipe["data"]["train"] == "rajpurkar/squad"
    rates = [entry for entry in spec.space if entry.path == "train.learning_rate"]
    assert {entry.when["methods"] for entry in rates} == {("full",), ("lora",)}
