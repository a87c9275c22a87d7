"""Static pruning: the studies' schedules and counts, exact masks, agreement with torch's pruning, what ships."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from torch.nn.utils import prune

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import EvaluationConfig, ModelConfig, RunConfig, TrainConfig
from qa_core.data.squad import load_table
from qa_core.data.windows import WindowLengths, build_windows
from qa_core.errors import ConfigError, IllegalCombination, NonFiniteLoss
from qa_core.memory import protocol as cost
from qa_core.memory.forms import form_memory, planned_forms
from qa_core.methods.static_prune import (
    CRITERIA,
    StaticPrune,
    StaticPruneOptions,
    allocated,
    density_at,
    matrix_type,
    penalty_at,
)
from qa_core.models.masked import MaskedLinear, masked_layers, mean_score
from qa_core.models.stored.base import StoredLinear
from qa_core.models.stored.positions import PositionCode
from qa_core.models.stored.sparse import SparseMatrix
from qa_core.run import run
from qa_core.scoring import evaluate
from qa_core.training.schedules import learning_rate_factor
from qa_core.training.train import TrainTask, make_optimizer
from qa_core.values import from_dict
from tests.contracts.method import MethodContract
from tests.contracts.rounding import assert_same_to_rounding
from tests.qa_core.methods.micro_network import TOKENIZER, micro_network, span_batch

pytestmark = pytest.mark.numeric

STUDY = {"dense_share": 0.0, "hold_share": StaticPruneOptions().hold_share}
STUDY_STEPS = 27_670


def _bert_base():
    from transformers import BertConfig

    family = registry.family_class("bert")(ModelConfig("bert", checkpoint="bert-base-uncased"))
    with torch.device("meta"):
        return family, family.restore(BertConfig().to_dict())


def _attached(family_options: dict | None = None, **options) -> tuple:
    family, model = micro_network(**(family_options or {}))
    method = StaticPrune.from_options(options)
    return family, method, method.attach(model, family)


def _draw_scores(model: torch.nn.Module) -> list[MaskedLinear]:
    layers = list(masked_layers(model).values())
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for index, layer in enumerate(layers):
            layer.scores.normal_(0.3 * index, 1.0, generator=generator)
    return layers


@pytest.mark.facts
def test_bert_base_has_84934656_scores_in_72_matrices():
    family, model = _bert_base()
    method = StaticPrune.from_options({})
    model = method.attach(model, family)
    scores = [item for name, item in model.named_parameters() if name.endswith(".scores")]
    assert len(scores) == len(masked_layers(model)) == 72
    assert sum(item.numel() for item in scores) == 84_934_656
    trained = sum(item.numel() for item in model.parameters() if item.requires_grad)
    assert trained == 84_934_656 + 2 * 768 + 2, "and the span head"


@pytest.mark.facts
@pytest.mark.parametrize(
    ("density", "floored", "unfloored"),
    [(0.1, 8_493_432, 8_493_465), (0.5, 42_467_328, 42_467_328), (0.03, 2_547_984, 2_548_039)],
)
def test_the_planned_form_of_bert_base_keeps_the_studies_counts(density, floored, unfloored):
    family, model = _bert_base()
    method = StaticPrune.from_options({"density": density})
    method.attach(model, family)
    _, plain = _bert_base()
    matrices = method.deployed_form(plain)["matrices"]
    assert len(matrices) == 72
    assert sum(matrix["settings"]["kept"] for matrix in matrices.values()) == floored
    assert math.floor(density * 84_934_656) == unfloored


@pytest.mark.facts
@pytest.mark.parametrize(("density", "step"), [(0.1, 17_612), (0.5, 16_517)])
def test_the_density_comes_within_a_hundredth_at_the_studies_first_eligible_step(density, step):
    def is_eligible(now: int) -> bool:
        return abs(density_at(now / STUDY_STEPS, density, **STUDY) - density) < 0.01

    assert not is_eligible(step - 1)
    assert is_eligible(step)


def test_the_density_falls_from_1_and_is_held_at_the_end():
    assert density_at(0.0, 0.3, dense_share=0.2, hold_share=0.3) == 1.0
    assert density_at(0.2, 0.3, dense_share=0.2, hold_share=0.3) == 1.0
    assert density_at(0.45, 0.3, dense_share=0.2, hold_share=0.3) == pytest.approx(0.3 + 0.7 * 0.125)
    for share in (0.7, 0.9, 1.0):
        assert density_at(share, 0.3, dense_share=0.2, hold_share=0.3) == 0.3
    assert density_at(1.0, 0.3, dense_share=0.0, hold_share=0.0) == 0.3
    assert density_at((STUDY_STEPS - 5000) / STUDY_STEPS, 0.1, **STUDY) == pytest.approx(0.1, abs=1e-12)


@pytest.mark.facts
def test_penalty_and_learning_rate_of_the_studys_log_at_step_26049():
    assert penalty_at(26_049 / STUDY_STEPS, StaticPruneOptions().penalty) == pytest.approx(
        399.919577, abs=5e-7
    )
    assert penalty_at(0.0, 400) == 0
    assert penalty_at(1.0, 400) == 400
    spent = {"before": 26_050 / STUDY_STEPS, "after": 26_051 / STUDY_STEPS}
    assert 2e-2 * learning_rate_factor("linear", **spent, warmup=0.0) == pytest.approx(
        0.00117094326, abs=5e-12
    )


@pytest.mark.facts
def test_the_mean_score_starts_at_a_half_and_pulls_each_score_of_bert_base_by_2_3548e_6():
    layers = [MaskedLinear(torch.nn.Linear(2, 2), scored=True) for _ in range(71)]
    layers.append(MaskedLinear(torch.nn.Linear(768, 768), scored=True))
    mean = mean_score(layers)
    assert mean.item() == 0.5
    (400 * mean).backward()
    gradient = layers[-1].scores.grad
    expected = torch.full((768, 768), 2.3548e-6)
    torch.testing.assert_close(gradient, expected, rtol=2.2e-5, atol=0)  # half a unit of its last figure


@pytest.mark.facts
@pytest.mark.parametrize("density", [0.03, 0.1])
def test_the_densities_of_a_type_sum_to_12_times_the_recipes(density):
    levels = torch.rand(12, generator=torch.Generator().manual_seed(0)).add(0.3).tolist()
    shares = allocated(density, levels)
    assert sum(shares) == pytest.approx(12 * density)
    assert shares[3] / shares[7] == pytest.approx(levels[3] / levels[7])


def test_a_density_above_1_is_clipped():
    assert allocated(0.5, [3.0, 0.5, 0.5]) == pytest.approx([1.0, 0.1875, 0.1875])


def test_a_type_is_the_name_without_layer_numbers():
    assert (
        matrix_type("bert.encoder.layer.11.attention.self.query") == "bert.encoder.layer.attention.self.query"
    )
    assert matrix_type("encoder.block.3.layer.0.SelfAttention.q") == "encoder.block.layer.SelfAttention.q"


def test_smp_s_fixes_the_density_of_each_type_and_gives_higher_scores_more():
    _, method, model = _attached(criterion="smp_s", density=0.25)
    layers = _draw_scores(model)
    method.progress(model, 1.0)
    by_type: dict[str, list] = {}
    for name, layer in masked_layers(model).items():
        by_type.setdefault(matrix_type(name), []).append(layer)
    assert len(by_type) == 6
    for members in by_type.values():
        kept = [int(layer.mask.sum()) for layer in members]
        levels = [torch.sigmoid(layer.scores.double()).mean().item() for layer in members]
        size = members[0].mask.numel()
        expected = [len(members) * 0.25 * level / sum(levels) * size for level in levels]
        assert kept == pytest.approx(expected, abs=1.0)
        assert kept[0] < kept[1]
    assert len(layers) == 12
    alike = StaticPrune.from_options({"criterion": "smp_s", "density": 0.25, "temperature": 50.0})
    spread = [int(layer.mask.sum()) for layer in layers if layer.mask.shape == (128, 64)]
    alike.progress(model, 1.0)
    closer = [int(layer.mask.sum()) for layer in layers if layer.mask.shape == (128, 64)]
    assert closer[1] - closer[0] < spread[1] - spread[0]


@pytest.mark.parametrize("criterion", ["smp_l", "movement"])
def test_local_criteria_keep_the_top_scores_of_each_matrix(criterion):
    _, method, model = _attached(criterion=criterion, density=0.3)
    layers = _draw_scores(model)
    method.progress(model, 1.0)
    for layer in layers:
        assert int(layer.mask.sum()) == math.floor(round(0.3 * layer.mask.numel(), 6))
        assert layer.scores[layer.mask].min() > layer.scores[~layer.mask].max()


def test_the_global_criterion_keeps_the_exact_share_of_all_matrices_together():
    _, method, model = _attached(criterion="global", density=0.3)
    layers = _draw_scores(model)
    method.progress(model, 1.0)
    assert sum(int(layer.mask.sum()) for layer in layers) == math.floor(
        0.3 * sum(layer.mask.numel() for layer in layers)
    )
    lowest_kept = min(layer.scores[layer.mask].min() for layer in layers if layer.mask.any())
    assert lowest_kept > max(layer.scores[~layer.mask].max() for layer in layers if not layer.mask.all())
    assert layers[0].mask.sum() < layers[6].mask.sum()


def test_magnitude_keeps_what_torchs_own_pruning_keeps():
    _, method, model = _attached(criterion="magnitude", density=0.35)
    method.progress(model, 1.0)
    layers = masked_layers(model)
    assert len(layers) == 12
    for layer in layers.values():
        theirs = torch.nn.Linear(layer.in_features, layer.out_features)
        theirs.load_state_dict(layer.base_layer.state_dict())
        kept = int(layer.mask.sum())
        prune.l1_unstructured(theirs, "weight", amount=theirs.weight.numel() - kept)
        assert torch.equal(layer.mask, theirs.weight_mask.bool())
        assert torch.equal(layer.weight, theirs.weight)


def test_the_same_share_and_scores_give_the_same_masks_and_before_pruning_all_is_kept():
    _, method, model = _attached(criterion="smp_s", density=0.2)
    layers = _draw_scores(model)
    method.progress(model, 0.0)
    assert all(layer.mask.all() for layer in layers)
    method.progress(model, 0.5)
    first = [layer.mask.clone() for layer in layers]
    method.progress(model, 0.9)
    assert any(not torch.equal(layer.mask, mask) for layer, mask in zip(layers, first, strict=True))
    method.progress(model, 0.5)
    assert all(torch.equal(layer.mask, mask) for layer, mask in zip(layers, first, strict=True))


def test_the_output_is_unchanged_before_the_first_step():
    family, plain = micro_network()
    before = family.span_logits(plain.eval(), span_batch())
    _, method, model = _attached()
    method.progress(model, 0.0)
    after = family.span_logits(model.eval(), span_batch())
    assert_same_to_rounding(after, before)


def test_the_penalty_joins_the_loss_by_the_schedule_and_only_where_weights_are_frozen():
    family, method, model = _attached(penalty=8.0)
    logits = family.logits(model, span_batch())
    task_loss = family.loss(model, span_batch(), logits)
    method.progress(model, 0.5)
    added = (method.loss(task_loss, model, span_batch(), logits) - task_loss).item()
    assert added == pytest.approx(8 * 0.875 * 0.5)
    family, method, model = _attached(criterion="movement", penalty=8.0)
    method.progress(model, 0.5)
    assert method.loss(task_loss, model, span_batch(), logits) is task_loss


@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_scores_are_the_only_trained_weights_beside_the_head_unless_weights_are_trained(criterion):
    _, _, model = _attached(criterion=criterion)
    trained = {name for name, item in model.named_parameters() if item.requires_grad}
    if criterion in ("movement", "magnitude"):
        assert trained == {name for name, _ in model.named_parameters()}
    else:
        assert {name.rpartition(".")[2] for name in trained if "qa_outputs" not in name} == {"scores"}
        assert {name for name in trained if "qa_outputs" in name} == {"qa_outputs.weight", "qa_outputs.bias"}
    assert any(name.endswith(".scores") for name in trained) == (criterion != "magnitude")


def test_with_the_language_models_head_nothing_but_scores_is_trained():
    _, _, model = _attached({"span_head": "lm_rows"})
    trained = {name for name, item in model.named_parameters() if item.requires_grad}
    assert len(trained) == 12
    assert all(name.endswith(".scores") for name in trained)


@pytest.mark.parametrize(
    ("options", "score_rate"),
    [({}, 3e-4), ({"score_learning_rate": 5e-2}, 5e-2), ({"criterion": "movement"}, 1e-2)],
)
def test_scores_have_their_own_rate_and_never_decay(options, score_rate):
    family, method, model = _attached(**options)
    config = TrainConfig(learning_rate=3e-4, weight_decay=0.2)
    windows = SimpleNamespace()
    task = TrainTask(family, [method], windows, 0, config, 0, torch.device("cpu"))  # type: ignore[arg-type]
    groups = make_optimizer(model, task).param_groups
    scores = {id(layer.scores) for layer in masked_layers(model).values()}
    rates = {
        (group["peak_lr"], group["weight_decay"])
        for group in groups
        for item in group["params"]
        if id(item) in scores
    }
    assert rates == {(score_rate, 0.0)}
    others = {
        (group["peak_lr"], group["weight_decay"])
        for group in groups
        for item in group["params"]
        if id(item) not in scores
    }
    assert others == {(3e-4, 0.2), (3e-4, 0.0)}


@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_what_is_exported_and_loaded_has_the_counted_density_and_the_masked_models_logits(
    criterion, tmp_path
):
    family, method, model = _attached(criterion=criterion, density=0.3, hold_share=0.0)
    if criterion != "magnitude":
        _draw_scores(model)
    before = {name: layer.mask.clone() for name, layer in masked_layers(model).items()}
    form = json.loads(json.dumps(method.deployed_form(model)))
    for name, layer in masked_layers(model).items():
        assert torch.equal(layer.mask, before[name]), "to ask for the form changes no mask"
    method.progress(model, 1.0)
    expected = family.span_logits(model.eval(), span_batch())
    kept = {name: int(layer.mask.sum()) for name, layer in masked_layers(model).items()}
    exported = method.export(model)
    assert not masked_layers(exported)
    assert {name: matrix["settings"]["kept"] for name, matrix in form["matrices"].items()} == kept
    restored = StaticPrune.restore(family.restore(family.architecture(exported)), form)
    restored.load_state_dict(exported.state_dict(), strict=True)
    for resident in ("packed", "dense"):
        network = StaticPrune.settle(restored, {**form, "resident": resident}).eval()
        for name, count in kept.items():
            assert int((network.get_submodule(name).weight != 0).sum()) == count
        for left, right in zip(family.span_logits(network, span_batch()), expected, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)
    assert all(type(network.get_submodule(name)) is torch.nn.Linear for name in kept)


def test_a_recipe_that_trains_nothing_is_still_pruned_to_its_density_on_export():
    _, method, model = _attached(criterion="magnitude", density=0.3)
    form = method.deployed_form(model)
    _, method, model = _attached(criterion="magnitude", density=0.3)
    exported = method.export(model)  # one that no form was asked of
    for name, matrix in form["matrices"].items():
        layer = exported.get_submodule(name)
        assert matrix["settings"]["kept"] == math.floor(
            round(0.3 * layer.in_features * layer.out_features, 6)
        )
        assert layer.matrix.code.kept == matrix["settings"]["kept"]


@pytest.mark.parametrize("value_bits", [32, 16])
def test_memory_is_predicted_exactly_and_a_packed_resident_model_takes_less(value_bits, tmp_path):
    evaluation = EvaluationConfig(precision="float32")
    peaks, weights = {}, {}
    for resident in ("dense", "packed"):
        family, method, model = _attached(density=0.3, value_bits=value_bits, resident=resident)
        protocol = cost.Protocol(family, TOKENIZER, 16, evaluation, torch.device("cpu"))
        memory = form_memory(family, model, [method], protocol=protocol, cache_dir=tmp_path)
        planned = planned_forms(family, family.architecture(model), [method])["static_prune"]
        form = method.deployed_form(model)
        assert form == planned, "smp_l keeps the same number whatever was trained"
        network = StaticPrune.settle(method.export(model), form)
        peaks[resident] = cost.inference_peak_bytes(network, protocol)
        weights[resident] = cost.weights_bytes(network)
        assert memory.measured_bytes == memory.predicted_bytes == peaks[resident]
    _, plain = micro_network()
    body = sum(item.numel() for item in _targets(plain)) * 4
    whole = cost.weights_bytes(plain)
    assert weights["dense"] == whole - body + body * value_bits // 32
    stored = sum(
        PositionCode.smallest(item.numel(), math.floor(round(0.3 * item.numel(), 6))).bytes
        + math.floor(round(0.3 * item.numel(), 6)) * value_bits // 8
        for item in _targets(plain)
    )
    assert weights["packed"] == whole - body + stored
    assert peaks["packed"] < peaks["dense"]


def _targets(plain: torch.nn.Module) -> list[torch.Tensor]:
    suffixes = registry.family_class("bert")(ModelConfig("bert")).adapter_targets(plain)["all_linear"]
    targets = [
        item
        for name, item in plain.named_parameters()
        if any(f".{name}".endswith(f".{suffix}.weight") for suffix in suffixes)
    ]
    assert len(targets) == 12
    return targets


def _recipe(small_squad: Path, options: dict) -> RunConfig:
    values = {
        "model": {"family": "bert", "checkpoint": "micro", "vocab_size": 300},
        "methods": {"static_prune": options},
        "data": {
            "train": str(small_squad),
            "evaluation": str(small_squad),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {
            "budget_examples": 160,
            "rungs": [90],
            "batch_size": 8,
            "learning_rate": 2e-2,
            "warmup_share": 0.0,
            "precision": "float32",
        },
        "evaluation": {"precision": "float32", "latency_runs": 3},
        "seed": 5,
    }
    return from_dict(RunConfig, values)


@pytest.mark.parametrize(
    "options",
    [
        {"density": 0.3, "criterion": "smp_s"},
        {"density": 0.3, "criterion": "magnitude", "value_bits": 16, "resident": "packed"},
    ],
    ids=["smp_s", "magnitude-16-packed"],
)
def test_a_pruned_recipe_ships_a_small_artifact_that_scores_what_the_record_says(
    options, small_squad, cache_dir, tmp_path
):
    config = _recipe(small_squad, options)
    result = run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)
    folder = Path(result.artifact)
    loaded = artifact.load(folder)
    matrices = loaded.manifest["forms"]["static_prune"]["matrices"]
    with safe_open(folder / artifact.WEIGHTS, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    sizes = {name: math.prod(matrix["shape"]) for name, matrix in matrices.items()}
    packed = sum(item.numel() * item.element_size() for name, item in tensors.items() if ".matrix." in name)
    kept = {name: matrix["settings"]["kept"] for name, matrix in matrices.items()}
    value_bytes = options.get("value_bits", 32) // 8
    positions = sum(PositionCode.smallest(size, kept[name]).bytes for name, size in sizes.items())
    assert packed == positions + value_bytes * sum(kept.values())
    assert packed < (0.4 if value_bytes == 4 else 0.25) * 4 * sum(sizes.values())
    everything = sum(item.numel() * item.element_size() for item in tensors.values())
    in_file = (folder / artifact.WEIGHTS).stat().st_size
    assert 0 < in_file - everything < 40_000, "all but the header of the file"
    # Where training decides what each mask keeps, the plan takes the mean.
    assert result.cost.predicted_artifact_bytes == pytest.approx(result.cost.artifact_bytes, rel=0.005)

    if options["criterion"] == "magnitude":
        assert kept == {name: math.floor(round(0.3 * size, 6)) for name, size in sizes.items()}
    assert sum(kept.values()) / sum(sizes.values()) == pytest.approx(0.3, abs=1e-3)
    for name, count in kept.items():
        layer = loaded.model.get_submodule(name)
        assert int((layer.weight != 0).sum()) == count
        is_packed = isinstance(layer, StoredLinear) and isinstance(layer.matrix, SparseMatrix)
        assert is_packed == (options.get("resident") == "packed")
    if options["criterion"] == "magnitude":  # counts as planned, so the memory is, to the byte
        assert result.cost.inference_peak_bytes == result.cost.predicted_inference_peak_bytes
        assert result.cost.inference_peak_bytes == result.cost.form_inference_peak_bytes
        assert result.cost.artifact_bytes == result.cost.predicted_artifact_bytes

    table = load_table(str(small_squad), split="dev")
    layout = loaded.family.layout(loaded.tokenizer)
    lengths = WindowLengths(64, 8, 24)
    windows = build_windows(table, loaded.tokenizer, layout, lengths=lengths, cache_dir=cache_dir)
    predictions = evaluate.predict(
        loaded.model,
        loaded.family,
        windows,
        table,
        tokenizer=loaded.tokenizer,
        settings=config.evaluation,
        device=torch.device("cpu"),
    )
    assert evaluate.quality(predictions, table, loaded.null_threshold) == result.quality


def test_a_family_without_linear_layers_and_adapters_beside_it_are_refused():
    lstm = from_dict(RunConfig, {"model": {"family": "lstm"}, "methods": {"static_prune": {}}})
    with pytest.raises(IllegalCombination, match=r"'static_prune' needs linear_layers.*'lstm'"):
        registry.check_combination(registry.make_family(lstm), registry.make_methods(lstm))
    both = from_dict(RunConfig, {"model": {"family": "bert"}, "methods": {"static_prune": {}, "lora": {}}})
    with pytest.raises(IllegalCombination, match=r"'lora' cannot be combined with static_prune"):
        registry.check_combination(registry.make_family(both), registry.make_methods(both))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"density": 0}, "methods.static_prune.density: found 0.0"),
        ({"density": 1.1}, "methods.static_prune.density: found 1.1"),
        ({"criterion": "smp-l"}, "methods.static_prune.criterion.*did you mean 'smp_l'"),
        ({"hold_share": 1.0}, "methods.static_prune.hold_share: found 1.0"),
        ({"dense_share": 0.5, "hold_share": 0.5}, "hold_share: found 0.5.*dense_share = 0.5"),
        ({"penalty": -1}, "methods.static_prune.penalty: found -1"),
        ({"temperature": 0}, "methods.static_prune.temperature: found 0"),
        ({"score_learning_rate": 0}, "methods.static_prune.score_learning_rate: found 0"),
        ({"criterion": "magnitude", "score_learning_rate": 0.1}, "'magnitude' has no scores"),
        ({"value_bits": 8}, "methods.static_prune.value_bits: found 8; allowed: 32 or 16"),
        ({"resident": "sparse"}, "methods.static_prune.resident: found 'sparse'; allowed: dense or packed"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        StaticPrune.from_options(options)


def test_a_model_without_the_familys_targets_is_refused():
    family, model = micro_network()
    method = StaticPrune.from_options({})
    method.attach(model, family)
    with pytest.raises(ConfigError, match="no Linear layer of the model is named query"):
        method.attach(model, family)


class TestStaticPruneContract(MethodContract):
    name = "static_prune"
    options = {"density": 0.5, "hold_share": 0.25, "penalty": 0.01}
    refused = {("lstm", "span")}


@pytest.mark.parametrize(
    ("criterion", "what"), [("smp_l", "scores"), ("global", "scores"), ("magnitude", "weights")]
)
def test_a_score_that_is_no_number_ends_the_trial_and_names_its_matrix(criterion, what):
    _, method, model = _attached(criterion=criterion, density=0.3, hold_share=0.0)
    name, layer = list(masked_layers(model).items())[3]
    with torch.no_grad():
        (layer.base_layer.weight if layer.scores is None else layer.scores)[0, 1] = float("nan")
    with pytest.raises(NonFiniteLoss, match=rf"static_prune: NaN among the {what} of {name};"):
        method.progress(model, 1.0)
    with pytest.raises(NonFiniteLoss, match=name):
        method.export(model)
