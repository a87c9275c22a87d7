"""(IA)3: which side of which layer is scaled, exact counts, nothing changed at the start, merged equals unmerged."""

from collections import Counter

import pytest
import torch

from qa_core import registry
from qa_core.config import ModelConfig, RunConfig
from qa_core.errors import ConfigError, IllegalCombination
from qa_core.methods.ia3 import Ia3
from qa_core.models.adapters import layers_with_roles
from qa_core.values import from_dict
from tests.contracts.adapter import KeptAdapterContract, adapter_file_bytes, full_size, perturb
from tests.contracts.method import MethodContract
from tests.contracts.rounding import assert_same_to_rounding
from tests.qa_core.methods.micro_network import micro_network, span_batch

pytestmark = pytest.mark.numeric


def _vectors(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return layer -> shape of its vector."""
    return {
        name.partition(".ia3_l")[0]: tuple(item.shape)
        for name, item in model.named_parameters()
        if ".ia3_l" in name
    }


def _attached(family: str, variant: str) -> tuple[torch.nn.Module, dict[str, tuple[int, ...]]]:
    family_object, model = full_size(family)
    model = Ia3.from_options({"variant": variant}).attach(model, family_object)
    return model, _vectors(model)


@pytest.mark.facts
@pytest.mark.parametrize(
    ("family", "variant", "expected"),
    [
        ("distilbert", "study", 43_010),
        ("distilbert", "canonical", 29_186),
        ("t5", "canonical", 129_024),
        ("bert", "library", 66_050),
        ("bert", "canonical", 66_050 - 12 * 768),  # without the attention's output layers
    ],
)
def test_the_trainable_count_of_full_size_models_equals_the_published_one(family, variant, expected):
    model, _ = _attached(family, variant)
    assert sum(item.numel() for item in model.parameters() if item.requires_grad) == expected


@pytest.mark.facts
def test_the_study_scales_six_outputs_and_inputs_of_every_distilbert_layer_each_on_its_side():
    """Every side of these layers is 768 wide but one: only the shapes tell which side is scaled."""
    _, vectors = _attached("distilbert", "study")
    kinds = Counter((name.rpartition(".")[2], shape) for name, shape in vectors.items())
    outputs = {(name, (768, 1)): 6 for name in ("q_lin", "k_lin", "v_lin", "out_lin")}
    assert kinds == {**outputs, ("lin1", (1, 768)): 6, ("lin2", (1, 3072)): 6}


@pytest.mark.facts
def test_the_study_has_0_0648_percent_of_distilbert():
    model, _ = _attached("distilbert", "study")
    trainable = sum(item.numel() for item in model.parameters() if item.requires_grad)
    head = 768 * 2 + 2  # the study's count has it twice: as it was, frozen, and as a copy that is trained
    total = sum(item.numel() for item in model.parameters()) + head
    assert total == 66_407_428
    assert 100 * trainable / total == pytest.approx(0.0648, abs=5e-5)


@pytest.mark.facts
def test_the_kept_vectors_of_the_study_have_the_published_file_size(tmp_path):
    family, model = full_size("distilbert")
    method = Ia3.from_options({"variant": "study", "merge": False})
    assert adapter_file_bytes(method, family, model, tmp_path) == 177_016


def test_the_canonical_vectors_stand_on_keys_values_and_the_second_layers_input():
    _, vectors = _attached("distilbert", "canonical")
    kinds = Counter((name.rpartition(".")[2], shape) for name, shape in vectors.items())
    assert kinds == {("k_lin", (768, 1)): 6, ("v_lin", (768, 1)): 6, ("lin2", (1, 3072)): 6}


def test_of_t5_the_decoders_two_attentions_count_too():
    _, vectors = _attached("t5", "canonical")
    kinds = Counter((name.rpartition(".")[2], shape) for name, shape in vectors.items())
    assert kinds == {("k", (768, 1)): 36, ("v", (768, 1)): 36, ("wo", (1, 3072)): 24}
    assert len([name for name in vectors if "EncDecAttention" in name]) == 24


def test_berts_attention_output_is_scaled_by_the_variants_that_name_it_alone():
    """ "output.dense" ends both names; 768 wide on both sides, a wrong match would not fail anywhere."""
    attention = "attention.output.dense"
    canonical, library, study = (_attached("bert", name)[1] for name in ("canonical", "library", "study"))
    assert not [name for name in canonical if name.endswith(attention)]
    assert len([name for name in canonical if name.endswith("output.dense")]) == 12
    assert {canonical[name] for name in canonical if name.endswith("output.dense")} == {(1, 3072)}
    assert [library[name] for name in library if name.endswith(attention)] == [(1, 768)] * 12
    assert [study[name] for name in study if name.endswith(attention)] == [(768, 1)] * 12
    assert [study[name] for name in study if name.endswith("intermediate.dense")] == [(1, 768)] * 12


def test_a_gated_feed_forward_of_t5_is_scaled_behind_the_gate_and_before_both_its_first_layers():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    family = registry.family_class("t5")(ModelConfig("t5", head="generate"))
    model = T5ForConditionalGeneration(config)
    vectors = _vectors(Ia3.from_options({"variant": "study"}).attach(model, family))
    kinds = Counter((name.rpartition(".")[2], shape) for name, shape in vectors.items() if ".w" in name)
    assert kinds == {("wi_0", (1, 16)): 4, ("wi_1", (1, 16)): 4, ("wo", (1, 24)): 4}


@pytest.mark.parametrize("variant", ["canonical", "study", "library"])
def test_all_vectors_are_1_and_the_output_unchanged_before_the_first_step(variant):
    family, model = micro_network("bert")
    before = family.span_logits(model.eval(), span_batch())
    model = Ia3.from_options({"variant": variant}).attach(model, family).eval()
    vectors = [item for name, item in model.named_parameters() if ".ia3_l" in name]
    assert len(vectors) > 5
    assert all((item == 1).all() for item in vectors)
    assert_same_to_rounding(family.span_logits(model, span_batch()), before)


@pytest.mark.parametrize("variant", ["canonical", "study", "library"])
def test_merged_equals_unmerged_biases_included(variant):
    family, model = micro_network("bert")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # biases start at 0: scaling them wrongly would go unseen
        for name, item in model.named_parameters():
            if name.endswith("bias"):
                item.normal_(0, 0.5, generator=generator)
    before = family.span_logits(model.eval(), span_batch())
    method = Ia3.from_options({"variant": variant})
    model = method.attach(model, family).eval()
    perturb(model)
    unmerged = family.span_logits(model, span_batch())
    merged = family.span_logits(method.export(model).eval(), span_batch())
    assert not hasattr(model, "peft_config")
    for left, right, plain in zip(unmerged, merged, before, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)  # float32, another order of products
        assert (left - plain).abs().max() > 0.05


def test_a_wrong_side_would_be_seen():
    """The mistake that the shapes guard against: outputs scaled where inputs are meant, on a square layer."""
    family, model = full_size("bert")
    roles = family.linear_roles(model)
    names = layers_with_roles(model, roles, ("attention_outputs",), "setting")
    assert len(names) == 12
    assert all(name.endswith("attention.output.dense") for name in names)
    second = layers_with_roles(model, roles, ("feed_forward_out",), "setting")
    assert len(second) == 12
    assert not set(second) & set(names)


@pytest.mark.parametrize(("family", "lacks"), [("mamba", "attention"), ("lstm", "linear_layers")])
def test_a_family_without_attention_over_linear_layers_is_refused_with_the_reason(family, lacks):
    config = from_dict(RunConfig, {"model": {"family": family}, "methods": {"ia3": {}}})
    with pytest.raises(IllegalCombination, match=rf"'ia3' needs .*{lacks}.*{family!r}"):
        registry.check_combination(registry.make_family(config), registry.make_methods(config))


def test_ia3_and_lora_exclude_each_other():
    config = from_dict(RunConfig, {"model": {"family": "bert"}, "methods": {"ia3": {}, "lora": {}}})
    with pytest.raises(IllegalCombination, match="cannot be combined"):
        registry.check_combination(registry.make_family(config), registry.make_methods(config))


def test_an_unknown_variant_is_named_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"methods\.ia3\.variant.*did you mean 'canonical'"):
        Ia3.from_options({"variant": "canonic"})


REFUSED = {("lstm", "span"), ("mamba", "span"), ("mamba", "generate")}


class TestIa3Contract(MethodContract):
    name = "ia3"
    options = {"variant": "study"}
    refused = REFUSED


class TestKeptIa3Contract(MethodContract):
    name = "ia3"
    options = {"merge": False}
    refused = REFUSED


class TestKeptIa3Folder(KeptAdapterContract):
    name = "ia3"
    options = {"variant": "study", "merge": False}
    pairs = [("distilbert", "span"), ("bert", "span"), ("t5", "span"), ("t5", "generate")]
