"""LoRA on a quantised base: what is quantised and how, bitsandbytes' traps, the same network before and after export.

A trap is shown on bitsandbytes' own layer where this machine has it, beside the layer that avoids it.
"""

import copy
import json
import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, has_avx512bf16
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import ModelConfig, RunConfig
from qa_core.errors import ConfigError, IllegalCombination
from qa_core.methods.qlora import LoraInt8, LoraInt8Options, Qlora, QloraOptions
from qa_core.models.quantised_linear import Int8Linear, Nf4Linear, quantise_body
from qa_core.models.stored.base import StoredLinear
from qa_core.values import from_dict
from tests.contracts.adapter import KeptAdapterContract, full_size, perturb
from tests.contracts.method import MethodContract
from tests.contracts.rounding import assert_same_to_rounding
from tests.qa_core.methods.micro_network import micro_network, span_batch

pytestmark = pytest.mark.numeric

METHODS = {"qlora": Qlora, "lora_int8": LoraInt8}
repacks = pytest.mark.skipif(
    not has_avx512bf16(), reason="bitsandbytes repacks NF4 on CPUs with AVX512-BF16 only"
)


def _linear(rows: int = 48, columns: int = 128, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(columns, rows, bias=bias)


def _bitsandbytes_nf4(linear: nn.Linear, *, double_quantisation: bool = True) -> Any:
    """Return bitsandbytes' own layer with the same weight and bias."""
    layer = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        quant_type="nf4",
        compress_statistics=double_quantisation,
    )
    layer.load_state_dict(linear.state_dict())
    return layer.to("cpu")


def _inputs(columns: int = 128, rows: int = 6, *, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed))


def _bert(name: str, **options):
    family, model = micro_network()
    return family, METHODS[name].from_options({"rank": 4, "dropout": 0.0, **options}), model


# What the layers hold and compute


@pytest.mark.parametrize("double_quantisation", [True, False])
def test_nf4_codes_and_scales_are_bitsandbytes_own(double_quantisation):
    linear = _linear()
    ours = Nf4Linear(linear, double_quantisation=double_quantisation).state_dict()
    theirs = _bitsandbytes_nf4(linear, double_quantisation=double_quantisation).state_dict()
    assert len(ours) == (7 if double_quantisation else 5)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def test_int8_codes_and_row_scales_are_bitsandbytes_own():
    linear = _linear()
    theirs = bitsandbytes.nn.Linear8bitLt(128, 48, has_fp16_weights=False)
    theirs.load_state_dict(linear.state_dict())
    theirs = theirs.to("cpu").state_dict()
    ours = Int8Linear(linear, threshold=6.0).state_dict()
    assert set(ours) == {"weight", "bias", "SCB", "weight_format"} == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    assert ours["weight"].dtype == torch.int8
    assert ours["SCB"].shape == (48,)


@pytest.mark.facts
def test_a_weight_takes_4_127_bits_with_double_quantisation_and_4_5_without():
    linear = _linear(1024, 1024)
    for double, expected in ((True, 4.126953), (False, 4.5)):
        matrix = Nf4Linear(linear, double_quantisation=double).stored()
        bits = 8 * sum(item.nbytes for name, item in matrix.named_buffers() if name != "offset") / 1024**2
        assert bits == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_product_is_that_with_the_decoded_weight(autocast):
    linear, inputs = _linear(), _inputs()
    nf4 = Nf4Linear(linear, double_quantisation=True)
    int8 = Int8Linear(linear, threshold=6.0)
    decoded = {nf4: dequantize_4bit(nf4.weight.data, nf4.weight.quant_state)}
    decoded[int8] = int8.state.CB.float() * (int8.state.SCB[:, None] / 127)
    for layer, weight in decoded.items():
        assert (weight - linear.weight).abs().max() < 0.02
        assert not torch.equal(weight, linear.weight)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            expected = nn.functional.linear(inputs, weight, linear.bias)
            for training in (True, False):
                found = layer.train(training)(inputs)
                assert found.dtype == expected.dtype
                tolerance = 2e-2 if autocast else 1e-5  # bfloat16: the bias is added after rounding
                torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_gradients_reach_the_inputs_and_not_the_weight():
    for layer in (Nf4Linear(_linear(), double_quantisation=True), Int8Linear(_linear(), threshold=6.0)):
        inputs = _inputs().requires_grad_()
        layer.train()(inputs).sum().backward()
        expected = layer.stored().dense().sum(dim=0).expand_as(inputs)
        torch.testing.assert_close(inputs.grad, expected, atol=1e-5, rtol=1e-5)
        assert not layer.weight.requires_grad


# bitsandbytes' traps


@repacks
def test_an_evaluation_with_outputs_no_multiple_of_32_fails_in_theirs_and_not_in_ours():
    linear = _linear(rows=20)
    with torch.no_grad():
        with pytest.raises(AssertionError, match="N must be divisible"):
            _bitsandbytes_nf4(linear).eval()(_inputs())
        assert Nf4Linear(linear, double_quantisation=True).eval()(_inputs()).shape == (2, 6, 20)


def _train_evaluate_train(layer: nn.Module) -> list[torch.Tensor]:
    gradients = []
    for _ in range(2):
        inputs = _inputs().requires_grad_()
        layer.train()(inputs).square().sum().backward()
        gradients.append(inputs.grad)
        with torch.no_grad():
            layer.eval()(_inputs())
    return gradients


@repacks
def test_training_after_an_evaluation_fails_in_theirs():
    with pytest.raises(RuntimeError):
        _train_evaluate_train(_bitsandbytes_nf4(_linear(rows=64)))


def test_training_after_an_evaluation_gives_the_same_gradients_in_ours():
    for layer in (
        Nf4Linear(_linear(rows=64), double_quantisation=True),
        Int8Linear(_linear(rows=64), threshold=6.0),
    ):
        first, second = _train_evaluate_train(layer)
        assert torch.equal(first, second)
        assert first.abs().max() > 0


def _drift_by_saving(layer: Any) -> float:
    """Return how far the decoded weight moves when the state is saved after an evaluation, relative to its size."""

    def decoded() -> torch.Tensor:
        return dequantize_4bit(layer.weight.data, layer.weight.quant_state)

    before = decoded()
    with torch.no_grad():
        layer.eval()(_inputs())
    layer.state_dict()
    return float((decoded() - before).norm() / before.norm())


@repacks
def test_saving_after_an_evaluation_damages_the_weight_of_theirs():
    assert _drift_by_saving(_bitsandbytes_nf4(_linear(rows=64), double_quantisation=False)) > 0.01


@pytest.mark.parametrize("double_quantisation", [True, False])
def test_saving_after_an_evaluation_changes_nothing_in_ours(double_quantisation):
    layer = Nf4Linear(_linear(rows=64), double_quantisation=double_quantisation)
    codes = layer.weight.clone()
    assert _drift_by_saving(layer) == 0
    assert torch.equal(layer.weight, codes)


def test_a_frozen_bias_keeps_its_bits_under_autocast_and_theirs_is_cast_for_good():
    linear = _linear(rows=64)
    theirs = _bitsandbytes_nf4(linear)
    theirs.compute_dtype, theirs.compute_type_is_set = torch.bfloat16, True
    theirs.train()(_inputs())
    assert theirs.bias.dtype == torch.bfloat16
    for layer in (Nf4Linear(linear, double_quantisation=True), Int8Linear(linear, threshold=6.0)):
        expected = layer.bias.detach().clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer.train()(_inputs())
            layer(_inputs().bfloat16())
        assert layer.bias.dtype == torch.float32
        assert torch.equal(layer.bias, expected)


def test_the_dtype_of_the_first_input_does_not_stay():
    layer = Nf4Linear(_linear(), double_quantisation=True).train()
    expected = layer(_inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(_inputs()).dtype == torch.bfloat16
    assert torch.equal(layer(_inputs()), expected)


def test_int8_logs_nothing_in_training_and_evaluation_where_theirs_logs_each_product(caplog):
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    logger.setLevel(logging.WARNING)
    theirs = bitsandbytes.nn.Linear8bitLt(128, 48, has_fp16_weights=False).to("cpu").eval()
    with torch.no_grad():
        theirs(_inputs())
    assert "inputs will be cast" in caplog.text
    caplog.clear()
    layer = Int8Linear(_linear(), threshold=6.0)
    logger.setLevel(logging.WARNING)  # as if nothing had quietened it: on a CPU it has nothing to say
    for training in (True, False):
        layer.train(training)(_inputs())
    assert caplog.text == ""
    Int8Linear(_linear(), threshold=6.0)
    assert logger.level == logging.ERROR  # and on a GPU it is quiet


def test_int8_evaluates_what_it_trains_on_a_cpu_where_theirs_rounds_inputs_in_evaluation_only():
    linear = _linear()
    theirs = bitsandbytes.nn.Linear8bitLt(128, 48, has_fp16_weights=False)
    theirs.load_state_dict(linear.state_dict())
    theirs = theirs.to("cpu")
    ours = Int8Linear(linear, threshold=0.0)
    with torch.no_grad():
        theirs.eval()(_inputs())  # quantises
        assert (theirs.train()(_inputs()) - theirs.eval()(_inputs())).abs().max() > 1e-3
        assert_same_to_rounding(ours.train()(_inputs()), ours.eval()(_inputs()))


def test_merging_would_quantise_anew_and_export_does_not():
    """PEFT's merge leaves a 4-bit layer with other codes; the artifact's are those of training."""
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
        assert gradient.abs().max() > 0, key
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
