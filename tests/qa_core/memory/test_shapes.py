"""The predicted inference peak: the measured one, byte for byte, for every family, head, precision and form."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from qa_core import registry
from qa_core.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig
from qa_core.data.prepare import recipe_tokenizer
from qa_core.errors import IllegalCombination
from qa_core.memory import forms
from qa_core.memory import protocol as cost
from qa_core.memory.forms import PlannedForm
from qa_core.memory.protocol import Protocol
from qa_core.memory.shapes import NotPredictable, predicted_inference_peak_bytes

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
PRECISIONS = ("float32", "bfloat16")
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "full": {},
    "lora merged": {"lora": {}},
    "lora kept": {"lora": {"merge": False}},
    "int8": {"quantize": {"bits": 8}},
    "int8 dynamic": {"quantize": {"bits": 8, "scheme": "dynamic"}},
    "nf4": {"quantize": {"bits": 4, "embedding_bits": 8}},
    "pruned packed": {"static_prune": {"density": 0.3, "resident": "packed"}},
}
HEADS = [(name, head) for name in sorted(registry.FAMILIES) for head in registry.family_class(name).heads]


def _recipe(family: str, methods: dict[str, Any], small_squad: Any, **changes: Any) -> RunConfig:
    model: dict[str, Any] = {"checkpoint": "micro", "vocab_size": 300, **changes.pop("model", {})}
    data = DataConfig(train=str(small_squad), max_length=48, max_question_length=16, stride=8)
    precision = changes.pop("precision", "float32")
    return RunConfig(
        ModelConfig(family, **model),
        methods=methods,
        data=replace(data, **changes),
        evaluation=EvaluationConfig(precision=precision, max_new_tokens=2),
    )


def _planned(config: RunConfig, cache_dir: Any) -> tuple[PlannedForm, Protocol]:
    family, methods = registry.make_family(config), registry.make_methods(config)
    registry.check_combination(family, methods)
    tokenizer = recipe_tokenizer(config, family, cache_dir=cache_dir)
    found = family.prepare(tokenizer, config.data, cache_dir=cache_dir)
    planned = forms.planned_form(config, family, methods, tokenizer=tokenizer, found=found)
    return planned, Protocol(family, tokenizer, config.data.max_length, config.evaluation, CPU)


def _both(config: RunConfig, cache_dir: Any) -> tuple[list[int], list[int]]:
    """Return the predicted and the measured peaks of a recipe's deployed form, with one window and with eight."""
    planned, protocol = _planned(config, cache_dir)
    arguments = (protocol.family, planned.architecture, planned.forms)
    predicted = forms.predicted_form_bytes(*arguments, protocol=protocol, rows=forms.ROWS)
    network = forms.deployed(*arguments)
    return predicted, [cost.inference_peak_bytes(network, protocol, rows=rows) for rows in (1, 8)]


def _legal(pair: tuple[str, str], form: str) -> bool:
    config = RunConfig(ModelConfig(pair[0], checkpoint="micro", head=pair[1]), methods=FORMS[form])
    try:
        registry.check_combination(registry.make_family(config), registry.make_methods(config))
    except IllegalCombination:
        return False
    return True


CASES = [
    (*pair, form, precision)
    for pair, form, precision in itertools.product(HEADS, FORMS, PRECISIONS)
    if _legal(pair, form)
]


def test_every_legal_combination_is_a_case():
    assert len(HEADS) == 7
    without_linear_layers = 3  # an LSTM takes no adapter and no mask
    assert len(CASES) == (len(HEADS) * len(FORMS) - without_linear_layers) * len(PRECISIONS)


@pytest.mark.parametrize(
    ("family", "head", "form", "precision"),
    [pytest.param(*case, marks=[pytest.mark.long] if case[-1] == "bfloat16" else []) for case in CASES],
)
def test_the_predicted_peak_equals_the_measured_one(family, head, form, precision, small_squad, cache_dir):
    config = _recipe(family, FORMS[form], small_squad, model={"head": head}, precision=precision)
    predicted, measured = _both(config, cache_dir)
    assert predicted == measured


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("checkpoint", ["model2", "model3", "model4"])
def test_the_models_of_the_lstm_study_are_predicted_exactly(checkpoint, precision, small_squad, cache_dir):
    options: dict[str, Any] = {"embedding_size": 40, "hidden_size": 24}
    model = {"checkpoint": checkpoint, "options": options}
    predicted, measured = _both(_recipe("lstm", {}, small_squad, model=model, precision=precision), cache_dir)
    assert predicted == measured


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("family", "model"),
    [
        ("lstm", {"options": {"vectors": "hashed", "buckets": 128, "attention": "self"}}),
        ("bert", {"options": {"span_head": "lm_rows"}}),
        ("mamba", {"options": {"attention_layer": 1}, "head": "generate"}),
    ],
    ids=["lstm-hashed", "bert-lm-rows", "mamba-hybrid"],
)
def test_what_a_family_offers_beside_is_predicted_exactly(family, model, precision, small_squad, cache_dir):
    predicted, measured = _both(_recipe(family, {}, small_squad, model=model, precision=precision), cache_dir)
    assert predicted == measured


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("family", "folder", "options"),
    [
        ("bert", "minilm-l6-bert", {}),
        ("distilbert", "minilm-l6-distilbert", {}),
        ("distilbert", "minilm-l6-bert", {"from_bert": True}),
    ],
    ids=["bert", "distilbert", "distilbert-from-bert"],
)
@pytest.mark.long
def test_a_checkpoint_is_planned_and_predicted_exactly_without_its_weights(
    family, folder, options, precision, shared, small_squad, cache_dir
):
    model = {"checkpoint": str(shared / "models" / folder), "options": options}
    predicted, measured = _both(_recipe(family, {}, small_squad, model=model, precision=precision), cache_dir)
    assert predicted == measured


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_form_is_planned_without_weights_as_it_is_with_them(form, small_squad, cache_dir):
    config = _recipe("t5", FORMS[form], small_squad)
    planned, protocol = _planned(config, cache_dir)
    family, methods = registry.make_family(config), registry.make_methods(config)
    model = family.build(protocol.tokenizer)
    for method in methods:
        model = method.attach(model, family)
    architecture = family.architecture(model)
    assert planned == PlannedForm(architecture, forms.planned_forms(family, architecture, methods))


@pytest.mark.long
def test_a_longer_answer_needs_more_memory(small_squad, cache_dir):
    short = _recipe("t5", {}, small_squad, model={"head": "generate"})
    longer = replace(short, evaluation=replace(short.evaluation, max_new_tokens=40))
    predicted, measured = _both(longer, cache_dir)
    assert predicted == measured > _both(short, cache_dir)[0]


# The tensors themselves


def _predicted(step: Callable[[nn.Module, Any], Any], network: nn.Module, *, head: str = "span") -> int:
    """Predict a step of a network of our own on 8 windows of 16 tokens."""
    family = SimpleNamespace(
        name="own",
        head=head,
        span_logits=step,
        generate=lambda model, batch, *args, **options: step(model, batch),
    )
    tokenizer = _Tokens()
    protocol: Any = Protocol(family, tokenizer, 16, EvaluationConfig(precision="float32"), CPU)  # type: ignore[arg-type]
    return predicted_inference_peak_bytes(network.to("meta"), protocol, rows=8)


class _Tokens:
    def __len__(self) -> int:
        return 50

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [7]}


# Three [B, L], three [B] and one [B, 8] int64, and a mask [B, L].
BATCH_BYTES = 8 * (3 * 8 * 16 + 3 * 8 + 8 * 8) + 8 * 16


def test_a_dropout_that_does_nothing_takes_no_memory():
    def step(model: nn.Module, batch: Any) -> None:
        torch.nn.functional.dropout(model(batch["input_ids"]), 0.5, training=False)

    table = nn.Embedding(50, 32)
    assert _predicted(step, table) == BATCH_BYTES + 4 * (50 * 32 + 8 * 16 * 32)


def test_a_value_that_follows_from_the_known_inputs_can_be_looked_at():
    seen = []

    def step(model: nn.Module, batch: Any) -> None:
        lengths = batch["attention_mask"].sum(dim=1)
        lengths[0] = 3  # in place, as networks do
        seen.append((int(lengths.max()), lengths.tolist(), bool((lengths > 2).all())))

    _predicted(step, nn.Linear(2, 2))
    assert seen == [(16, [3] + [16] * 7, True)]


def test_a_look_at_a_computed_value_ends_the_prediction_and_says_so():
    def step(model: nn.Module, batch: Any) -> Any:
        return bool(model(batch["input_ids"]).sum() > 0)

    with pytest.raises(NotPredictable, match="looks at a value that only a real run knows"):
        _predicted(step, nn.Embedding(50, 4))


def test_known_values_are_forgotten_when_computed_ones_are_written_over_them():
    def step(model: nn.Module, batch: Any) -> Any:
        ids = batch["input_ids"].clone()
        ids += model(ids).sum(dim=-1).long()
        return int(ids.max())

    with pytest.raises(NotPredictable):
        _predicted(step, nn.Embedding(50, 4))


def test_an_operator_whose_result_has_no_predictable_size_ends_the_prediction():
    with pytest.raises(NotPredictable, match="nonzero"):
        _predicted(lambda model, batch: model(batch["input_ids"]).nonzero(), nn.Embedding(50, 4))


def test_only_a_network_that_writes_is_told_what_it_chose():
    seen = []

    def step(model: nn.Module, batch: Any) -> Any:
        scores = model(batch["input_ids"])[:, -1]
        seen.append((scores.argmax(dim=-1).tolist(), float(scores.sum())))

    _predicted(step, nn.Embedding(50, 4), head="generate")
    assert seen == [([7] * 8, 0.0)]
    with pytest.raises(NotPredictable):
        _predicted(step, nn.Embedding(50, 4))


def test_shared_weights_stay_shared_and_are_counted_once():
    with torch.device("meta"):  # to move a network there would untie them
        network = nn.ModuleDict({"table": nn.Embedding(50, 32), "output": nn.Linear(32, 50, bias=False)})
    network["output"].weight = network["table"].weight

    def step(model: Any, batch: Any) -> None:
        assert model["output"].weight is model["table"].weight

    assert _predicted(step, network) == BATCH_BYTES + 4 * 50 * 32


def test_a_gpu_is_predicted_as_a_cpu_in_the_precision_of_the_gpu(monkeypatch, small_squad, cache_dir):
    planned, protocol = _planned(_recipe("bert", {}, small_squad, precision="bfloat16"), cache_dir)
    arguments = (protocol.family, planned.architecture, planned.forms)
    on_cpu = forms.predicted_form_bytes(*arguments, protocol=protocol)
    on_gpu = replace(protocol, device=torch.device("cuda"))
    assert forms.predicted_form_bytes(*arguments, protocol=on_gpu) == on_cpu
