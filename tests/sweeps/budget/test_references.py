"""`reference: auto`: what it stands for, by baselines and by forecasts, and that a sweep keeps the numbers."""

import json
from pathlib import Path
from typing import Any

import pytest

from qa_core.config import RunConfig
from qa_core.errors import ConfigError, DataError
from sweeps.budget import references
from sweeps.budget.memory import MemoryForecast
from sweeps.budget.references import Reference, find, lines, resolved
from sweeps.front.confirm import confirming_spec
from sweeps.run_folder.layout import SPEC_FILE
from sweeps.space.compile import compile_space
from sweeps.spec.load import load_spec, store_spec, stored_spec
from sweeps.spec.objectives import Objective, why_a_number
from sweeps.spec.sections import SweepSpec
from tests.malformed.cases import TINY_SWEEP
from tests.sweeps.whole import tiny_recipes

AUTO_OBJECTIVES = [
    {"name": "em_percent", "goal": "max"},
    {"name": "memory_mb", "goal": "min", "reference": "auto"},
]
RECIPES = [
    {"set": "model.family", "choice": ["bert", "lstm"]},
    {"set": "methods", "choice": ["full", "lora", "quantize"]},
    {"set": "methods.quantize.bits", "choice": [8, 4], "when": {"methods": "quantize"}},
    {"set": "methods.lora.rank", "int": [2, 64], "when": {"methods": "lora"}},
    {"set": "data.max_length", "int": [48, 96]},
    {"set": "train.learning_rate", "choice": [1e-3, 2e-3, 3e-3]},
    {"set": "train.batch_size", "choice": [8, 16]},
]


def spec_of(squad: Path, **changes: Any) -> SweepSpec:
    shared = tiny_recipes(squad, batch_size=8)
    del shared["recipe"]["data"]["max_length"], shared["recipe"]["train"]["batch_size"]  # searched
    values = {
        "name": "small",
        **shared,
        "objectives": AUTO_OBJECTIVES,
        "searcher": {"name": "random"},
        "scheduler": {"name": "fifo"},
        "budget": {"trials": 4, "examples": 100},
        "space": RECIPES,
        **changes,
    }
    return SweepSpec.model_validate(values)


class PlayedForecast(MemoryForecast):
    """Takes the memory of a recipe from a formula, and keeps which recipes it was asked for."""

    def __init__(self, max_memory_mb: float | None = None, **options: Any) -> None:
        super().__init__(cache_dir=Path(), max_memory_mb=max_memory_mb, **options)
        self.asked: list[RunConfig] = []

    def predict(self, config: RunConfig, objective: str = "memory_mb") -> float | None:
        self.asked.append(config)
        return played_memory(config)

    def training_bytes(self, config: RunConfig) -> int | None:
        return int(1e6 * played_memory(config)) * config.train.batch_size


def played_memory(config: RunConfig) -> float:
    memory = {"bert": 40.0, "lstm": 10.0}[config.model.family] * config.data.max_length / 96
    memory *= config.methods.get("quantize", {}).get("bits", 32) / 32
    return memory + config.methods.get("lora", {}).get("rank", 0) / 10


def memories(spec: SweepSpec) -> list[float]:
    """Return the memory of every recipe at the ends of every range."""
    space = compile_space(spec)
    return [played_memory(space.to_run_config(item, seed=0)) for item in space.grid(2)]


@pytest.fixture
def cache(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    return cache_dir


def test_a_quality_counts_from_the_best_baseline_of_the_evaluation_questions(
    small_squad: Path, cache: Path
) -> None:
    spec = spec_of(small_squad)
    found = find(spec, compile_space(spec), PlayedForecast())
    articles = json.loads(small_squad.read_text())["data"]
    questions = [question for item in articles for part in item["paragraphs"] for question in part["qas"]]
    impossible = sum(question["is_impossible"] for question in questions)
    assert found["em_percent"].value == pytest.approx(100 * impossible / len(questions))
    assert found["em_percent"].how == "the best trivial baseline of 60 evaluation questions (no answer)"


def test_f1_counts_from_its_own_baseline(small_squad: Path, cache: Path, tmp_path: Path) -> None:
    """Without unanswerable questions "no answer" scores 0, and the first words share some with the answers."""
    data = json.loads(small_squad.read_text())
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = [
                {**item, "answers": [{"text": paragraph["context"][:8], "answer_start": 0}]}
                for item in paragraph["qas"]
                if not item["is_impossible"]
            ]
    path = tmp_path / "answerable.json"
    path.write_text(json.dumps(data))
    objectives = [{"name": "em_percent", "goal": "max"}, {"name": "f1_percent", "goal": "max"}]
    spec = spec_of(path, objectives=objectives, space=[RECIPES[0]])
    found = find(spec, compile_space(spec), PlayedForecast())
    assert found["em_percent"].value == 0.0
    # "The door" against "The door of", "the" not counted: 1 of 1 and 1 of 2 words in common
    assert found["f1_percent"].value == pytest.approx(100 * 2 / 3)
    assert "(first span)" in found["f1_percent"].how


def test_a_cost_counts_below_a_tenth_more_than_the_largest_recipe(small_squad: Path, cache: Path) -> None:
    spec, forecast = spec_of(small_squad), PlayedForecast()
    found = find(spec, compile_space(spec), forecast)
    assert found["memory_mb"].value == pytest.approx(1.1 * max(memories(spec)))
    assert {config.train.learning_rate for config in forecast.asked} == {1e-3}  # decides no memory
    assert len(forecast.asked) < len(memories(spec)) / 3
    assert found["memory_mb"].how.startswith("1.1 x 46.4 MB, the largest of ")


def test_of_stored_forms_the_largest_that_fits_counts(small_squad: Path, cache: Path) -> None:
    """Forms of 20 and 5 MB of long windows, of 10 and 2.5 of short ones; no network is built."""

    class Forms(PlayedForecast):
        def fault(self, config: RunConfig) -> str | None:
            return None

    listed = {"quantize": {"bits": [16, 4]}}
    spec = spec_of(small_squad, space=[{"set": "model.family", "choice": ["bert"]}, RECIPES[4]], forms=listed)
    for limit, largest in ((None, 20.0), (19.0, 10.0), (6.0, 5.0)):
        found = find(spec, compile_space(spec), Forms(limit, listed=listed))["memory_mb"].value
        assert found == pytest.approx(1.1 * largest), limit
    nothing = find(spec, compile_space(spec), Forms(2.0, listed=listed))["memory_mb"]
    assert nothing.value is None


def test_of_a_large_combination_one_setting_is_moved_after_the_other(
    small_squad: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, forecast = spec_of(small_squad), PlayedForecast()
    whole = find(spec, compile_space(spec), forecast)["memory_mb"].value
    monkeypatch.setattr(references, "MOST_TOGETHER", 1)
    fewer = PlayedForecast()
    assert find(spec, compile_space(spec), fewer)["memory_mb"].value == whole
    assert len(fewer.asked) < len(forecast.asked)
    limited = find(spec, compile_space(spec), PlayedForecast(12.0))["memory_mb"].value
    assert limited is not None
    assert limited <= 1.1 * 12.0


@pytest.mark.parametrize("limit", [5.0, 12.0, 24.0, 45.0])
def test_recipes_beyond_the_memory_limit_decide_nothing(limit: float, small_squad: Path, cache: Path) -> None:
    spec = spec_of(small_squad)
    found = find(spec, compile_space(spec), PlayedForecast(limit))["memory_mb"]
    admitted = max(memory for memory in memories(spec) if memory <= limit)
    assert found.value == pytest.approx(1.1 * admitted)
    assert found.how.endswith(f"recipes within {limit:g} MB")


def test_the_peak_of_training_grows_with_what_a_step_takes(small_squad: Path, cache: Path) -> None:
    objectives = [AUTO_OBJECTIVES[0], {"name": "train_peak_bytes", "goal": "min"}]
    spec = spec_of(small_squad, objectives=objectives)
    found = find(spec, compile_space(spec), PlayedForecast())
    assert found["train_peak_bytes"].value == pytest.approx(1.1 * 16 * max(memories(spec)) * 1e6)


def test_the_reference_of_memory_is_that_of_the_real_forecast(small_squad: Path, cache: Path) -> None:
    entries = [
        {"set": "model.family", "choice": ["lstm"]},
        {"set": "methods", "choice": ["full", "quantize"]},
        {"set": "methods.quantize.bits", "choice": [8, 4], "when": {"methods": "quantize"}},
        {"set": "data.max_length", "choice": [64]},
        {"set": "train.learning_rate", "log_uniform": [1e-3, 1e-2]},
    ]
    spec = spec_of(small_squad, space=entries)
    space, forecast = compile_space(spec), MemoryForecast.of(spec)
    predicted = [forecast.predict(space.to_run_config(item, seed=0)) for item in space.grid(1)]
    assert len(set(predicted)) == 3
    assert find(spec, space, MemoryForecast.of(spec))["memory_mb"].value == pytest.approx(
        1.1 * max(filter(None, predicted))
    )


def test_where_nothing_is_found_a_number_is_asked_for_by_objective_and_setting(
    small_squad: Path, cache: Path
) -> None:
    spec = spec_of(small_squad)
    space = compile_space(spec)
    found = find(spec, space, PlayedForecast(0.5))
    with pytest.raises(ConfigError) as caught:
        resolved(spec, found)
    assert str(caught.value) == (
        "spec: objectives[1].reference: found auto for memory_mb, and no recipe is predicted to need at most 0.5 MB; "
        "allowed: a number"
    )
    there = spec_of(small_squad)
    data = {**there.recipe["data"], "evaluation": str(small_squad.with_name("absent.json"))}
    nowhere = spec_of(small_squad, recipe={**there.recipe, "data": data})
    with pytest.raises(
        ConfigError, match=r"objectives\[0\]\.reference: found auto for em_percent, and the eval"
    ):
        resolved(nowhere, find(nowhere, space=compile_space(nowhere), forecast=PlayedForecast()))


@pytest.mark.parametrize(
    ("name", "goal", "why"),
    [
        ("latency_p50_ms", "min", "latency_p50_ms is known only from measuring it"),
        ("em_percent", "min", "em_percent with goal min has no worst value to find"),
        ("memory_mb", "max", "memory_mb with goal max has no worst value to find"),
    ],
)
def test_auto_is_refused_with_its_line_where_nothing_can_stand_for_it(
    name: str, goal: str, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    text = TINY_SWEEP.replace(
        "{name: memory_mb, goal: min, reference: 32}", f"{{name: {name}, goal: {goal}}}"
    )
    text = text.replace("{name: em_percent, goal: max, reference: 0}", "{name: f1_percent, goal: max}")
    path.write_text(text)
    line = 1 + next(index for index, row in enumerate(text.splitlines()) if f"name: {name}" in row)
    with pytest.raises(ConfigError) as caught:
        load_spec(path)
    expected = f"{path}:{line}: objectives[1].reference: found auto, and {why}; allowed: a number"
    assert str(caught.value) == expected
    assert load_spec(path, [f"objectives.{name}.reference=7"]).objectives[1].worst == 7.0


def test_the_numbers_are_stored_and_kept_by_whatever_goes_on_from_them(
    small_squad: Path, cache: Path, tmp_path: Path
) -> None:
    spec = spec_of(small_squad)
    found = {"em_percent": Reference(20.0, "x"), "memory_mb": Reference(51.04, "y")}
    assert lines(spec, found) == ["em_percent: 20 %: x", "memory_mb: 51.04 MB: y"]
    numbers = resolved(spec, found)
    store_spec(numbers, tmp_path)
    stored = stored_spec(tmp_path)
    for kept in (stored, confirming_spec(stored, 3)):
        assert [item.worst for item in kept.objectives] == [20.0, 51.04]
        assert find(kept, compile_space(kept), PlayedForecast()) == {}
        assert resolved(kept, {}) == kept
        assert lines(kept, {}) == ["em_percent: 20 %, as given", "memory_mb: 51.04 MB, as given"]


def test_settings_that_were_stored_without_a_number_are_refused(small_squad: Path, tmp_path: Path) -> None:
    store_spec(spec_of(small_squad), tmp_path)
    with pytest.raises(DataError, match=rf"{SPEC_FILE}: objectives\[0\]\.reference: found auto or nothing"):
        stored_spec(tmp_path)
    with pytest.raises(
        ConfigError, match=r"objectives\.em_percent\.reference: found auto; allowed here: a num"
    ):
        _ = Objective(name="em_percent", goal="max").worst


def test_every_objective_can_be_auto_or_says_why_not() -> None:
    from sweeps.spec.objectives import MEASURES

    refused = {
        name
        for name, item in MEASURES.items()
        if why_a_number(Objective(name=name, goal="max" if item.section == "quality" else "min"))
    }
    assert {"latency_p50_ms", "latency_p95_ms"} <= refused
    assert not refused & {"em_percent", "f1_percent", "memory_mb", "memory_batch8_mb", "train_peak_bytes"}
