"""LoRA on a quantised base: what is quantised and how, and the same network before and after export."""

import copy
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import ModelConfig, RunConfig
from qa_core.errors import ConfigError, IllegalCombination
from qa_core.methods.qlora import LoraInt8, LoraInt8Options, Qlora, QloraOptions
from qa_core.models.stored.base import StoredLinear
from qa_core.values import from_dict
from tests.contracts.adapter import KeptAdapterContract, full_size, perturb
from tests.contracts.method import MethodContract
from tests.contracts.rounding import assert_same_to_rounding
from tests.qa_core.methods.micro_network import micro_network, span_batch

pytestmark = pytest.mark.numeric

METHODS = {"qlora": Qlora, "lora_int8": LoraInt8}


def _bert(name: str, **options):
    family, model = micro_network()
    return family, METHODS[name].from_options({"rank": 4, "dropout": 0.0, **options}), model


def test_merging_would_quantise_anew_and_export_does_not():
    """PEFT's merge leaves a 4-bit layer with other codes; the artifact's are those of training."""
    import bitsandbytes

    from qa_core.models.quantised_linear import Nf4Linear

    family, method, model = _bert("qlora")
    model = method.attach(model, family)
    perturb(model)
    layers = {name: item for name, item in model.named_modules() if isinstance(item, Nf4Linear)}
    codes = {name: item.weight.data.view(-1).clone() for name, item in layers.items()}
    exported = method.export(model)
    assert len(codes) == 12
    for name, expected in codes.items():
        stored = exported.get_submodule(name)
        assert isinstance(stored, StoredLinear)
        assert torch.equal(stored.matrix.packed, expected)
    assert not [item for item in exported.modules() if isinstance(item, bitsandbytes.nn.Linear4bit)]


# What is quantised, and what trains


def _marked(family: Any, model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the layers that would be quantised, without quantising: full-size models stand on the meta device."""
    from qa_core.models.quantised_linear import quantise_body

    return quantise_body(
        model,
        lambda linear: nn.Identity(),
        keep=family.head_modules,
        keep_endings=family.weights_read_directly,
    )


@pytest.mark.facts
def test_of_t5_base_168_of_193_linear_layers_are_quantised():
    family, model = full_size("t5")
    assert len([item for item in model.modules() if isinstance(item, nn.Linear)]) == 193
    shapes = _marked(family, model)
    assert len(shapes) == 168
    left = [name for name, item in model.named_modules() if isinstance(item, nn.Linear)]
    assert Counter(name.rpartition(".")[2] for name in left) == {"wo": 24, "lm_head": 1}


@pytest.mark.parametrize(
    ("family", "expected", "left"),
    [
        ("distilbert", 36, {"qa_outputs": 1}),
        ("bert", 72, {"qa_outputs": 1}),
        ("mamba", 72, {"dt_proj": 24, "lm_head": 1}),
    ],
)
def test_head_output_layer_and_weights_that_are_read_directly_stay_float(family, expected, left):
    family_object, model = full_size(family)
    assert len(_marked(family_object, model)) == expected
    names = [name for name, item in model.named_modules() if isinstance(item, nn.Linear)]
    assert Counter(name.rpartition(".")[2] for name in names) == left


def test_an_output_layer_that_is_tied_to_no_table_stays_float_too():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=2, vocab_size=40)
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    family = registry.family_class("t5")(ModelConfig("t5", head="generate"))
    assert model.lm_head.weight is not model.shared.weight
    assert "lm_head" not in _marked(family, model)


@pytest.mark.facts
def test_the_defaults_are_those_of_qloras_authors_and_of_the_study():
    assert QloraOptions() == QloraOptions(
        rank=64, alpha=16.0, dropout=0.0, targets="all_linear", double_quantisation=True
    )
    assert LoraInt8Options() == LoraInt8Options(
        rank=8, alpha=32.0, dropout=0.05, targets="attention", outlier_threshold=6.0
    )


@pytest.mark.facts
def test_the_studys_adapters_on_t5_base_count_884736():
    family, model = full_size("t5")
    method = LoraInt8.from_options({})
    method._make_layer = lambda: lambda linear: linear  # the base stays on the meta device
    model = method.attach(model, family)
    assert sum(item.numel() for item in model.parameters() if item.requires_grad) == 884_736


@pytest.mark.parametrize("name", METHODS)
def test_before_the_first_step_the_network_is_the_quantised_base(name):
    from qa_core.models.quantised_linear import quantise_body

    family, method, model = _bert(name)
    base = copy.deepcopy(model)
    quantise_body(base, method._make_layer(), keep=family.head_modules, keep_endings=())
    expected = family.span_logits(base.eval(), span_batch())
    model = method.attach(model, family).eval()
    assert_same_to_rounding(family.span_logits(model, span_batch()), expected)


@pytest.mark.parametrize("name", METHODS)
def test_a_copy_of_the_model_computes_the_same_and_shares_nothing(name):
    family, method, model = _bert(name)
    model = method.attach(model, family)
    perturb(model)
    twin = copy.deepcopy(model)
    for network in (model, twin):
        network.eval()
    expected = family.span_logits(model, span_batch())
    assert torch.equal(family.span_logits(twin, span_batch())[0], expected[0])
    states = [network.state_dict() for network in (model, twin)]  # some of their tensors are made on the way
    places = [{item.data_ptr() for item in state.values()} for state in states]
    assert len(places[0]) > 30
    assert not places[0] & places[1]
    for item in twin.parameters():
        item.data.zero_()
    assert torch.equal(family.span_logits(model, span_batch())[0], expected[0])


@pytest.mark.parametrize("name", METHODS)
def test_gradient_checkpointing_changes_no_gradient(name):
    gradients = []
    for enabled in (False, True):
        family, method, model = _bert(name)
        model = method.attach(model, family).train()
        perturb(model)
        if enabled:
            family.enable_gradient_checkpointing(model)
        family.loss(model, span_batch()).backward()
        gradients.append({key: item.grad for key, item in model.named_parameters() if item.requires_grad})
    assert len(gradients[0]) > 8
    for key, gradient in gradients[0].items():
        # The head's bias moves all positions alike, which a softmax does not see: its gradient is rounding alone.
        assert key.endswith("qa_outputs.bias") or gradient.abs().max() > 0, key
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("family", "folder", "options"),
    [
        ("bert", "minilm-l6-bert", {}),
        ("distilbert", "minilm-l6-distilbert", {}),
        ("distilbert", "minilm-l6-bert", {"from_bert": True}),
    ],
)
def test_folders_and_converted_checkpoints_are_quantised_as_presets_are(family, folder, options, shared):
    """The error of the whole output, relative to its size: NF4 on its normally distributed weights, int8 far less."""
    from transformers import AutoTokenizer

    from qa_core.models.quantised_linear import Int8Linear, Nf4Linear

    path = str(shared / "models" / folder)
    tokenizer = AutoTokenizer.from_pretrained(path)
    config = ModelConfig(family, checkpoint=path, dropout=0.0, options=options)
    family_object = registry.family_class(family)(config)
    torch.manual_seed(0)
    plain = family_object.build(tokenizer).eval()
    batch = span_batch(rows=2, length=48)
    inside = batch["span_mask"]
    with torch.no_grad():
        expected = family_object.span_logits(plain, batch)[0][inside]
        for name, most in (("qlora", 0.5), ("lora_int8", 0.05)):
            method = METHODS[name].from_options({"dropout": 0.0})
            model = method.attach(copy.deepcopy(plain), family_object).eval()
            found = family_object.span_logits(model, batch)[0][inside]
            layers = [item for item in model.modules() if isinstance(item, Nf4Linear | Int8Linear)]
            assert len(layers) == 36
            error = float((found - expected).norm() / expected.norm())
            assert most / 100 < error < most, name


# Options and legality


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("qlora", {"rank": 0}, "methods.qlora.rank: found 0"),
        ("lora_int8", {"alpha": 0}, "methods.lora_int8.alpha"),
        ("qlora", {"dropout": 1.0}, "methods.qlora.dropout"),
        ("lora_int8", {"outlier_threshold": -1}, "methods.lora_int8.outlier_threshold"),
        ("lora_int8", {"double_quantisation": True}, "methods.lora_int8.double_quantisation"),
    ],
)
def test_bad_options_are_named(name, options, words):
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        METHODS[name].from_options(options)


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_target_set_is_named_with_those_that_exist(name):
    family, method, model = _bert(name, targets="atention")
    with pytest.raises(ConfigError, match=rf"methods\.{name}\.targets.*'attention'"):
        method.attach(model, family)


def test_of_all_pairs_of_adapters_and_quantisation_only_quantised_bases_of_plain_adapters_are_legal():
    names = ["ia3", "lora", "lora_int8", "qlora", "quantize"]
    legal = set()
    for first in names:
        for second in names[names.index(first) + 1 :]:
            config = from_dict(RunConfig, {"model": {"family": "bert"}, "methods": {first: {}, second: {}}})
            try:
                registry.check_combination(registry.make_family(config), registry.make_methods(config))
            except IllegalCombination:
                continue
            legal.add((first, second))
    assert legal == {("ia3", "quantize"), ("lora", "quantize")}


# The artifact


@pytest.mark.long
def test_the_artifact_is_read_without_bitsandbytes_and_peft(small_squad, cache_dir, tmp_path):
    expected = {}
    for contract in (TestQloraFolder(), TestLoraInt8Folder()):
        folder = tmp_path / contract.name
        _, batch, logits, _ = contract.ship(("bert", "span"), small_squad, cache_dir, folder)
        expected[contract.name] = logits
    save_file({key: tensor.contiguous() for key, tensor in batch.items()}, tmp_path / "batch")
    program = (
        "import sys\n"
        "sys.modules['bitsandbytes'] = sys.modules['peft'] = None\n"
        "from pathlib import Path\n"
        "from safetensors.torch import load_file, save_file\n"
        "from qa_core.artifact import artifact\n"
        "for name in sys.argv[2:]:\n"
        "    loaded = artifact.load(Path(sys.argv[1]) / name)\n"
        "    logits = loaded.family.span_logits(loaded.model, load_file(Path(sys.argv[1]) / 'batch'))\n"
        "    save_file(dict(zip('se', (item.detach() for item in logits))), Path(sys.argv[1]) / f'{name}.out')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), *expected]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, logits in expected.items():
        found = load_file(tmp_path / f"{name}.out")
        torch.testing.assert_close((found["s"], found["e"]), logits, atol=1e-5, rtol=1e-5)


class QuantisedBaseContract(MethodContract):
    """The base is replaced on purpose: what must stay are its codes, from the first step to the last."""

    def test_untouched_weights_stay_bit_equal(
        self, small_squad: Path, cache_dir: Path, pair: tuple[str, str]
    ) -> None:
        family, method, model, batch = self.open(small_squad, cache_dir, pair)
        quantised = method.attach(copy.deepcopy(model), family)
        before = {name: tensor.clone() for name, tensor in quantised.state_dict().items()}
        trained = self.trained(family, method, model, batch)
        frozen = {name for name, item in trained.named_parameters() if not item.requires_grad}
        after = trained.state_dict()
        held = {name for name in after if name.rpartition(".")[0] in frozen or name.endswith("SCB")}
        assert frozen
        assert held
        for name in frozen | held:
            assert torch.equal(after[name], before[name]), name
        moved = {name for name in after.keys() - frozen - held if not torch.equal(after[name], before[name])}
        assert moved


class TestQloraContract(QuantisedBaseContract):
    name = "qlora"
    options = {"rank": 4}
    refused = {("lstm", "span")}


class TestLoraInt8Contract(QuantisedBaseContract):
    name = "lora_int8"
    options = {"rank": 4, "dropout": 0.0}
    refused = {("lstm", "span")}


class QuantisedFolderContract(KeptAdapterContract):
    pairs = [("distilbert", "span"), ("bert", "span"), ("t5", "generate"), ("mamba", "span")]

    def as_base(self, base: nn.Module, method: Any, family: Any) -> nn.Module:
        from qa_core.models.quantised_linear import quantise_body

        keep = {"keep": family.head_modules, "keep_endings": family.weights_read_directly}
        quantise_body(base, method._make_layer(), **keep)
        return base

    def test_the_base_file_holds_codes_and_the_artifact_is_smaller_for_it(
        self, small_squad: Path, cache_dir: Path, tmp_path: Path
    ) -> None:
        self.ship(("bert", "span"), small_squad, cache_dir, tmp_path / "a")
        body = load_file(tmp_path / "a" / "model.safetensors")
        codes = {name: item for name, item in body.items() if name.endswith((".packed", ".codes"))}
        assert len(codes) == 12
        weights = 2 * (4 * 64 * 64 + 2 * 64 * 128)  # of two layers
        bytes_each = {"qlora": 0.5, "lora_int8": 1}[self.name]
        assert sum(item.nbytes for item in codes.values()) == weights * bytes_each
        form = json.loads((tmp_path / "a" / "manifest.json").read_text())["forms"][self.name]
        assert len(form["matrices"]) == 12
        loaded = artifact.load(tmp_path / "a").model
        assert len([item for item in loaded.modules() if isinstance(item, StoredLinear)]) == 12


class TestQloraFolder(QuantisedFolderContract):
    name = "qlora"
    options = {"rank": 4}


class TestLoraInt8Folder(QuantisedFolderContract):
    name = "lora_int8"
    options = {"rank": 4, "dropout": 0.0}
