"""The memory of a deployed form: measured once for each form, before training, equal to the final measurement."""

from types import SimpleNamespace

import pytest
import torch

from qa_core import registry
from qa_core.config import EvaluationConfig, ModelConfig
from qa_core.memory import forms
from qa_core.memory import protocol as cost

pytestmark = pytest.mark.numeric


class _Tokens(SimpleNamespace):
    def __len__(self) -> int:
        return 200


TOKENIZER = _Tokens(pad_token_id=0, unk_token_id=1, cls_token_id=2, sep_token_id=3)


def _measure(cache_dir, *, checkpoint="micro", max_length=64, seed=0):
    torch.manual_seed(seed)
    family = registry.family_class("bert")(ModelConfig("bert", checkpoint=checkpoint))
    evaluation = EvaluationConfig(precision="float32")
    protocol = cost.Protocol(family, TOKENIZER, max_length, evaluation, torch.device("cpu"))
    model = family.build(TOKENIZER)
    memory = forms.form_memory(family, model, [], protocol=protocol, cache_dir=cache_dir)
    return memory, [cost.inference_peak_bytes(model, protocol, rows=rows) for rows in (1, 8)]


def test_prediction_form_and_model_agree_with_one_window_and_with_eight(tmp_path):
    memory, (small, large) = _measure(tmp_path)
    assert memory.measured_bytes == memory.predicted_bytes == small
    assert memory.measured_batch8_bytes == memory.predicted_batch8_bytes == large
    assert memory.weights_bytes < small < large
    # The weights are there once, what the batch needs with each of its windows.
    assert large - memory.weights_bytes == pytest.approx(8 * (small - memory.weights_bytes), rel=0.1)


def test_a_form_is_measured_once_and_another_length_or_size_is_another_form(tmp_path, monkeypatch):
    first, _ = _measure(tmp_path)
    longer, _ = _measure(tmp_path, max_length=128)
    larger, _ = _measure(tmp_path, checkpoint="tiny")
    assert first.measured_bytes < longer.measured_bytes
    assert first.measured_bytes < larger.measured_bytes
    assert len(list((tmp_path / "forms").glob("*.json"))) == 3
    monkeypatch.setattr(
        forms.cost,
        "inference_peak_bytes",
        lambda *args, **options: pytest.fail("it was measured again"),
    )
    family = registry.family_class("bert")(ModelConfig("bert", checkpoint="micro"))
    evaluation = EvaluationConfig(precision="float32")
    protocol = cost.Protocol(family, TOKENIZER, 64, evaluation, torch.device("cpu"))
    model = family.build(TOKENIZER)
    again = forms.form_memory(family, model, [], protocol=protocol, cache_dir=tmp_path)
    assert again == first


def test_another_precision_is_another_form():
    def key(precision):
        family = registry.family_class("bert")(ModelConfig("bert", checkpoint="micro"))
        evaluation = EvaluationConfig(precision=precision)
        return cost.form_key({}, {}, cost.Protocol(family, TOKENIZER, 64, evaluation, torch.device("cpu")))

    differing = {name for name, value in key("float32").items() if key("bfloat16")[name] != value}
    assert differing == {"precision"}
    assert key("auto") in (key("float32"), key("bfloat16")), "what auto stands for on this machine"


def test_forms_that_write_longer_answers_are_other_forms_and_span_readers_write_none():
    def key(head, max_new_tokens):
        family = registry.family_class("t5")(ModelConfig("t5", checkpoint="micro", head=head))
        evaluation = EvaluationConfig(precision="float32", max_new_tokens=max_new_tokens)
        protocol = cost.Protocol(family, TOKENIZER, 64, evaluation, torch.device("cpu"))
        return cost.form_key({}, {}, protocol)

    assert key("generate", 8) != key("generate", 32)
    assert key("span", 8) == key("span", 32)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"[]",
        lambda data: data.replace(b'"measured_bytes": ', b'"measured_bytes": 9'),
        lambda data: data.replace(b'"max_length": 64', b'"max_length": 65'),
    ],
    ids=["empty", "truncated", "other-JSON", "another-number", "another-key"],
)
def test_a_damaged_file_in_the_cache_is_made_again(tmp_path, damage):
    first, _ = _measure(tmp_path)
    (path,) = (tmp_path / "forms").glob("*.json")
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    again, _ = _measure(tmp_path)
    assert again == first
    assert path.read_bytes() == whole
    assert [item.name for item in (tmp_path / "forms").iterdir()] == [path.name]
