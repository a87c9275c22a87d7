"""Memory known on the driver: equal to what a worker measures, from the recipe alone, each form once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, BertConfig

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainConfig
from qa_core.data import prepare
from qa_core.data.prepare import recipe_tokenizer
from qa_core.memory import forms, training
from qa_core.memory.shapes import NotPredictable
from qa_core.run import run
from sweeps.budget.memory import PREDICTED, MemoryForecast
from sweeps.spec.objectives import final_values


def recipe(small_squad: Path, *, methods: dict[str, Any] | None = None, **model: Any) -> RunConfig:
    return RunConfig(
        ModelConfig(**{"family": "bert", "checkpoint": "micro", "vocab_size": 300, **model}),
        methods=methods or {},
        data=DataConfig(
            train=str(small_squad),
            evaluation=str(small_squad),
            max_length=48,
            stride=8,
            max_question_length=16,
            selection_share=0.3,
        ),
        train=TrainConfig(budget_examples=0),
        evaluation=EvaluationConfig(precision="float32", latency_runs=1, max_new_tokens=2),
    )


@pytest.fixture
def forecast(cache_dir: Path) -> MemoryForecast:
    return MemoryForecast(cache_dir=cache_dir)


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the family of every form that is predicted."""
    seen: list[str] = []
    real = forms.predicted_form_bytes

    def noted(family: Any, *args: Any, **options: Any) -> list[int]:
        seen.append(family.name)
        return real(family, *args, **options)

    monkeypatch.setattr(forms, "predicted_form_bytes", noted)
    return seen


@pytest.mark.parametrize(
    ("model", "methods"),
    [
        ({}, {"lora": {"merge": False}, "quantize": {"bits": 4}}),
        ({"family": "t5", "head": "generate"}, {}),
        ({"family": "lstm"}, {"quantize": {}}),
        ({"checkpoint": "sample-tiny"}, {"quantize": {"bits": 4}}),
    ],
    ids=["bert-lora-nf4", "t5-generate", "lstm-int8", "bert-shipped-nf4"],
)
@pytest.mark.long
def test_the_forecast_is_what_the_worker_predicts_and_measures(
    model, methods, small_squad, cache_dir, forecast, tmp_path
):
    config = recipe(small_squad, methods=methods, **model)
    foreseen = {name: forecast.predict(config, name) for name in PREDICTED}
    cost = run(config, lambda progress: None, folder=tmp_path, cache_dir=cache_dir).cost
    assert cost.predicted_inference_peak_bytes == cost.inference_peak_bytes
    assert cost.predicted_inference_peak_batch8_bytes == cost.inference_peak_batch8_bytes
    assert foreseen == final_values(PREDICTED, quality=None, cost=cost)
    assert {forecast.why(config, name) for name in PREDICTED} == {None}


def test_two_families_read_networks_of_one_name_with_tokenizers_of_their_own(
    small_squad, cache_dir, forecast
):
    for family in ("bert", "mamba"):
        config = recipe(small_squad, family=family, checkpoint="sample-tiny")
        alone = MemoryForecast(cache_dir=cache_dir)
        for name in PREDICTED:
            assert forecast.predict(config, name) == alone.predict(config, name) is not None


def test_of_a_checkpoint_only_configuration_and_tokenizer_are_read(
    small_squad, cache_dir, forecast, tmp_path
):
    preset = recipe(small_squad)
    family = registry.make_family(preset)
    tokenizer = recipe_tokenizer(preset, family, cache_dir=cache_dir)
    tokenizer.save_pretrained(tmp_path)
    sizes = family.presets["micro"]
    BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes).save_pretrained(
        tmp_path
    )
    assert not list(tmp_path.glob("*.safetensors"))
    of_the_folder = forecast.predict(recipe(small_squad, checkpoint=str(tmp_path)))
    assert of_the_folder == forecast.predict(preset)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    other = recipe(small_squad, checkpoint=str(tmp_path), dropout=0.2)
    assert forecast.predict(other) is None
    assert "is of type 'gpt2'" in str(forecast.why(other))


def test_of_an_artifact_that_a_recipe_starts_from_no_weight_is_read(
    small_squad, cache_dir, forecast, tmp_path
):
    config = recipe(small_squad)
    family = registry.make_family(config)
    tokenizer = recipe_tokenizer(config, family, cache_dir=cache_dir)
    artifact.write(tmp_path / "a", family.build(tokenizer), config=config, tokenizer=tokenizer, forms={})
    (tmp_path / "a" / artifact.WEIGHTS).unlink()
    start = recipe(small_squad, checkpoint=str(tmp_path / "a"))
    assert forecast.predict(start) == forecast.predict(config)
    wrong = recipe(small_squad, family="distilbert", checkpoint=str(tmp_path / "a"))
    assert forecast.predict(wrong) is None
    assert "holds family 'bert'" in str(forecast.why(wrong))


def test_recipes_of_the_same_form_are_predicted_once(small_squad, forecast, predictions):
    first = recipe(small_squad, methods={"lora": {"rank": 4}})
    sizes = {
        forecast.predict(first),
        forecast.predict(replace(first, train=replace(first.train, learning_rate=0.5), seed=3)),
        forecast.predict(
            recipe(small_squad, methods={"lora": {"rank": 8, "alpha": 2.0}})
        ),  # merged: as the first
        forecast.predict(recipe(small_squad)),
    }
    assert (len(sizes), predictions) == (1, ["bert"])
    kept = recipe(small_squad, methods={"lora": {"rank": 4, "merge": False}})
    assert forecast.predict(kept) not in sizes
    assert predictions == ["bert", "bert"]


def test_the_questions_are_read_once_and_the_tokenizer_is_shared_with_the_workers(
    small_squad, tmp_path, monkeypatch
):
    read, real = [], prepare.load_table

    def load_table(source: str, **options: Any) -> Any:
        read.append(source)
        return real(source, **options)

    monkeypatch.setattr(prepare, "load_table", load_table)
    forecast = MemoryForecast(cache_dir=tmp_path)
    short = recipe(small_squad)
    longer = replace(short, data=replace(short.data, max_length=64))
    assert None not in (forecast.predict(short), forecast.predict(longer))
    assert read == [str(small_squad)]
    (trained,) = (tmp_path / "tokenizers").glob("*.json")
    written = trained.stat().st_mtime_ns
    prepare.prepare(short, registry.make_family(short), cache_dir=tmp_path)
    assert [item.stat().st_mtime_ns for item in (tmp_path / "tokenizers").glob("*.json")] == [written]


def test_a_checkpoint_that_cannot_be_reached_is_asked_for_once_and_says_why(
    small_squad, forecast, monkeypatch
):
    asked = []

    def unreachable(name: str, **options: Any) -> None:
        asked.append(name)
        raise OSError("no connection to the hub")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", unreachable)
    recipes = [recipe(small_squad, checkpoint="some/bert", methods=item) for item in ({}, {"lora": {}})]
    assert [forecast.predict(item) for item in recipes] == [None, None]
    assert all("no connection to the hub" in str(forecast.why(item)) for item in recipes)
    assert asked == ["some/bert"]


def test_an_error_of_a_library_is_a_reason_and_not_the_end_of_the_sweep(small_squad, forecast, monkeypatch):
    def broken(*args: Any, **options: Any) -> int:
        raise ValueError("decoder_start_token_id is missing\nand more")

    monkeypatch.setattr(forms, "predicted_form_bytes", broken)
    assert forecast.predict(recipe(small_squad)) is None
    assert forecast.why(recipe(small_squad)) == "ValueError: decoder_start_token_id is missing"


@pytest.mark.parametrize(("share", "admitted"), [(1.0, True), (0.99, False), (None, True)])
def test_a_recipe_is_admitted_up_to_the_limit(share, admitted, small_squad, cache_dir, forecast):
    memory_mb = forecast.predict(recipe(small_squad))
    assert memory_mb is not None
    limit = None if share is None else memory_mb * share
    limited = MemoryForecast(cache_dir=cache_dir, max_memory_mb=limit)
    assert limited.admits(recipe(small_squad)) is admitted


def test_what_cannot_be_predicted_is_admitted(small_squad, cache_dir):
    forecast = MemoryForecast(cache_dir=cache_dir, max_memory_mb=0.001)
    assert not forecast.admits(recipe(small_squad))
    assert forecast.admits(recipe(small_squad, checkpoint="./absent"))


def test_a_gpu_that_is_elsewhere_counts_with_the_larger_of_both_precisions(
    small_squad, cache_dir, predictions
):
    config = recipe(small_squad)
    by_precision = {
        precision: MemoryForecast(cache_dir=cache_dir).predict(
            replace(config, evaluation=replace(config.evaluation, precision=precision))
        )
        for precision in ("float32", "bfloat16")
    }
    assert by_precision["float32"] > by_precision["bfloat16"]
    open_device = replace(config, evaluation=replace(config.evaluation, precision="auto"))
    on_gpu = MemoryForecast(cache_dir=cache_dir, on_gpu=True)
    assert on_gpu.predict(open_device) == by_precision["float32"]
    assert len(predictions) == 4


def test_training_is_predicted_as_a_trial_measures_its_first_step_and_with_the_optimisers_state(
    small_squad, cache_dir, tmp_path, forecast
):
    config = replace(recipe(small_squad), train=TrainConfig(budget_examples=20, precision="float32"))
    config = replace(
        config, evaluation=replace(config.evaluation, batch_tokens=100)
    )  # less than a step needs
    result = run(config, lambda progress: None, folder=tmp_path / "t", cache_dir=cache_dir)
    state = 8 * result.cost.trainable_parameters
    predicted = forecast.training_bytes(config)
    assert predicted - result.cost.train_peak_bytes == pytest.approx(state, rel=0.01)


def test_a_teacher_counts_beside_its_student_and_its_own_training_too(small_squad, forecast):
    def training_bytes(teacher: str | None) -> int:
        teacher_recipe = {"model": {"checkpoint": teacher}}
        methods = {"lora": {}} | ({"distill": {"teacher_recipe": teacher_recipe}} if teacher else {})
        found = forecast.training_bytes(recipe(small_squad, methods=methods))
        assert found is not None
        return found

    own = forecast.training_bytes(recipe(small_squad, checkpoint="mini"))
    assert training_bytes(None) < training_bytes("micro") < training_bytes("mini") == own


def test_recipes_that_train_alike_are_predicted_once_and_others_are_not(small_squad, forecast, monkeypatch):
    asked = []
    real = training.predicted_training_memory
    monkeypatch.setattr(
        training,
        "predicted_training_memory",
        lambda *args, **options: asked.append(1) or real(*args, **options),
    )
    config = recipe(small_squad)
    config = replace(config, train=replace(config.train, precision="float32"))
    for changes in ({}, {"learning_rate": 0.5}, {"batch_size": 4}):
        forecast.training_bytes(replace(config, train=replace(config.train, **changes)))
    assert len(asked) == 2


def test_training_that_cannot_be_predicted_has_no_number(small_squad, forecast, monkeypatch):
    def cannot(*args: Any, **options: Any) -> Any:
        raise NotPredictable("it looks at a value")

    monkeypatch.setattr(training, "predicted_training_memory", cannot)
    assert forecast.training_bytes(recipe(small_squad)) is None
    assert forecast.training_bytes(recipe(small_squad, checkpoint="./absent")) is None


def test_a_training_is_admitted_by_the_smallest_form_that_it_is_stored_in(small_squad, cache_dir, forecast):
    listed = {"quantize": {"bits": [32, 8, 4], "embedding_bits": [32, 8]}}
    config = recipe(small_squad)
    whole = forecast.predict(config)
    least = forecast.predict(recipe(small_squad, methods={"quantize": {"bits": 4, "embedding_bits": 8}}))
    assert least < whole
    for limit, with_forms, alone in ((whole, True, True), (least, True, False), (least - 1e-6, False, False)):
        found = [
            MemoryForecast(cache_dir=cache_dir, max_memory_mb=limit, listed=forms).admits(config)
            for forms in (listed, {})
        ]
        assert found == [with_forms, alone]
    stored = MemoryForecast(cache_dir=cache_dir, listed=listed)
    assert len(stored.stored(config)) == 6
    assert stored.smallest(config) == least
    assert stored.training_bytes(config) == forecast.training_bytes(config)


@pytest.mark.parametrize(
    "methods",
    [{}, {"lora": {"rank": 2}}, {"lora": {"rank": 2, "merge": True}}, {"static_prune": {"density": 0.5}}],
    ids=["full", "lora", "merged", "pruned"],
)
def test_stored_forms_share_the_network_of_their_training_and_need_what_each_needs_alone(
    methods: dict[str, Any], small_squad: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = [{}, {"bits": 8}, {"bits": 4, "embedding_bits": 8}, {"bits": 32, "embedding_bits": 8}]
    recipes = [
        recipe(small_squad, methods=methods | ({"quantize": options} if options else {}))
        for options in stored
    ]
    names = ("memory_mb", "weights_bytes", "artifact_bytes")
    alone = [[MemoryForecast(cache_dir=cache_dir).predict(item, name) for name in names] for item in recipes]
    assert len({tuple(row) for row in alone}) == len(stored)
    built: list[str] = []
    real = forms.training_skeleton
    monkeypatch.setattr(
        forms, "training_skeleton", lambda *given, **named: built.append("network") or real(*given, **named)
    )
    together = MemoryForecast(cache_dir=cache_dir)
    other = recipe(small_squad, methods=methods, checkpoint="tiny")
    assert [[together.predict(item, name) for name in names] for item in recipes] == alone
    assert len(built) == 1
    assert together.predict(other) > together.predict(recipes[0])  # another network is built anew
    assert len(built) == 2
    assert [together.predict(item, "artifact_bytes") for item in reversed(recipes)] == [
        row[2] for row in reversed(alone)
    ]


def test_a_form_that_the_network_refuses_does_not_count(small_squad, cache_dir):
    listed = {"quantize": {"bits": [8], "scheme": ["weight_only", "dynamic"]}}
    config = recipe(small_squad, methods={"static_prune": {"density": 0.5}})
    stored = MemoryForecast(cache_dir=cache_dir, listed=listed)
    assert [form.methods["quantize"]["scheme"] for form in stored.stored(config)] == ["weight_only"]
    limit = stored.smallest(config)
    refused = MemoryForecast(cache_dir=cache_dir, max_memory_mb=limit - 1e-6, listed=listed)
    assert not refused.admits(config)
