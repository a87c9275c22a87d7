"""Every sweep that comes along is valid, and the quickstart shows what it promises."""

from collections import Counter
from pathlib import Path

import pytest

from qa_core.registry import FAMILIES
from sweeps.schedulers.base import make_scheduler
from sweeps.searchers.base import make_searcher
from sweeps.space.compile import compile_space
from sweeps.space.forms import forms_of
from sweeps.spec.load import load_spec
from sweeps.spec.source import scale_names

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "sweeps" / "configs").glob("*.yaml"))


def test_all_configs_are_found():
    assert [path.stem for path in CONFIGS] == ["bert_to_mamba", "lora_vs_ia3", "minilm_v1", "quickstart"]
    assert {path.stem: scales for path in CONFIGS if (scales := scale_names(path))} == {
        "bert_to_mamba": ["smoke"],
        "lora_vs_ia3": ["study_rates", "study_final", "smoke"],
    }


@pytest.mark.parametrize(
    ("path", "scales"),
    [(path, scales) for path in CONFIGS for scales in ([], *([name] for name in scale_names(path)))],
    ids=lambda value: value.stem if isinstance(value, Path) else "-".join(value) or "whole",
)
def test_a_config_compiles_and_every_proposal_is_a_valid_recipe(path, scales):
    spec = load_spec(path, scales=scales)
    assert spec.name == path.stem
    space = compile_space(spec)
    rungs = make_scheduler(spec.scheduler.name, spec.scheduler.options).rungs(spec.budget.examples)
    searcher = make_searcher(spec, space)
    for seed in range(spec.budget.trials):
        proposal = searcher.propose()
        config = space.to_run_config(proposal.assignment, seed=seed, rungs=rungs)
        assert config.train.budget_examples == spec.budget.examples
        assert config.train.rungs == rungs


def test_the_first_study_has_a_row_for_each_of_its_systems_and_the_factorial_of_pruning_and_teaching():
    path = next(path for path in CONFIGS if path.stem == "bert_to_mamba")
    spec = load_spec(path)
    space = compile_space(spec)
    recipes = [space.to_run_config(item, seed=0) for item in space.grid()]
    assert len(recipes) == spec.budget.trials == 21
    rows = Counter((recipe.model.family, "+".join(recipe.methods)) for recipe in recipes)
    assert rows == {
        ("bert", ""): 1,
        ("bert", "distill"): 1,
        ("bert", "static_prune"): 2,
        ("bert", "static_prune+distill"): 2,
        **{("t5", method): 1 for method in ("", "lora", "quantize", "qlora", "lora_int8")},
        ("lstm", ""): 5,
        ("mamba", ""): 1,
        ("mamba", "few_shot"): 4,
    }
    smoke = compile_space(load_spec(path, scales=["smoke"]))
    assert (len(list(smoke.grid())), smoke.dropped) == (21, ())


def test_the_second_study_keeps_its_two_stages_as_scales():
    path = next(path for path in CONFIGS if path.stem == "lora_vs_ia3")
    stages = {name: load_spec(path, scales=[name]) for name in ("study_rates", "study_final")}
    assert stages["study_final"].budget.examples == 3 * 96_487
    for name, trials in (("study_rates", 6), ("study_final", 2)):
        spec = stages[name]
        space = compile_space(spec)
        recipes = [space.to_run_config(item, seed=0) for item in space.grid()]
        assert len(recipes) == spec.budget.trials == trials
        for recipe in recipes:
            if "lora" in recipe.methods:
                found = {key: recipe.methods["lora"][key] for key in ("rank", "alpha", "dropout", "targets")}
                assert found == {"rank": 16, "alpha": 32, "dropout": 0.1, "targets": "attention"}
            else:
                assert recipe.methods == {"ia3": {"variant": "study"}}
        assert {recipe.train.batch_size for recipe in recipes} == {8}


def test_the_quickstart_proposes_all_five_families_and_ways_to_train():
    spec = load_spec(next(path for path in CONFIGS if path.stem == "quickstart"))
    assert spec.budget.trials >= 20
    assert spec.scheduler.name == "pareto_asha"
    space = compile_space(spec)
    searcher = make_searcher(spec, space)
    proposals = [searcher.propose().assignment for _ in range(spec.budget.trials)]
    assert {proposal["model.family"] for proposal in proposals} == set(FAMILIES)
    methods = {"+".join(space.to_run_config(proposal, seed=0).methods) or "full" for proposal in proposals}
    assert methods == {"full", "lora", "static_prune+distill"}
    assert space.dropped == ()
    assert all(len(forms_of(space.to_run_config(item, seed=0), spec.forms)) == 6 for item in proposals)


def test_the_minilm_sweep_names_hub_defaults_and_conditions_the_learning_rate_on_the_method():
    spec = load_spec(next(path for path in CONFIGS if path.stem == "minilm_v1"))
    assert spec.budget.trials >= 12
    assert spec.recipe["model"]["checkpoint"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert spec.recipe["data"]["train"] == "rajpurkar/squad"
    rates = [entry for entry in spec.space if entry.path == "train.learning_rate"]
    assert {entry.when["methods"] for entry in rates} == {("full",), ("lora",)}
