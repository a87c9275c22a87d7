"""What a rung scores: the form that the recipe deploys, made beside a network that goes on as if nothing had been."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qa_core import registry, run, seeding
from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.data.batches import collate
from qa_core.data.prepare import prepare
from qa_core.models.masked import masked_layers
from qa_core.training import train
from qa_core.training.deployment import deployed_copy, exported, scores_a_copy, settled
from qa_core.values import from_dict

PRUNE: dict[str, Any] = {"density": 0.3, "hold_share": 0.1}
EIGHT, FOUR = {"bits": 8, "embedding_bits": 8}, {"bits": 4}
# (family, head, methods, whether the deployed form computes something else than the network in training)
PRODUCTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "int8": ("bert", "span", {"quantize": EIGHT}),
    "int8-dynamic": ("bert", "span", {"quantize": {"bits": 8, "scheme": "dynamic"}}),
    "nf4": ("distilbert", "span", {"quantize": FOUR}),
    "int4": ("mamba", "span", {"quantize": {"bits": 4, "scheme": "int4"}}),
    "int8-lstm": ("lstm", "span", {"quantize": EIGHT}),
    "int8-tied": ("t5", "generate", {"quantize": EIGHT}),
    "half": ("t5", "span", {"quantize": {"bits": 16}}),
    "pruned-dense": ("bert", "span", {"static_prune": PRUNE}),
    "pruned-packed": ("bert", "span", {"static_prune": {**PRUNE, "resident": "packed", "density": 0.05}}),
    "pruned-half": ("bert", "span", {"static_prune": {**PRUNE, "value_bits": 16}}),
    "pruned-by-type": ("bert", "span", {"static_prune": {**PRUNE, "criterion": "smp_s"}}),
    "pruned-global": ("t5", "span", {"static_prune": {**PRUNE, "criterion": "global"}}),
    "pruned-movement": ("mamba", "span", {"static_prune": {**PRUNE, "criterion": "movement"}}),
    "pruned-magnitude": ("bert", "span", {"static_prune": {**PRUNE, "criterion": "magnitude"}}),
    "pruned-int8-dense": ("bert", "span", {"static_prune": PRUNE, "quantize": EIGHT}),
    "pruned-int8-packed": (
        "bert",
        "span",
        {"static_prune": {**PRUNE, "resident": "packed"}, "quantize": EIGHT},
    ),
    "pruned-nf4-dense": ("bert", "span", {"static_prune": PRUNE, "quantize": FOUR}),
    "pruned-nf4-packed": (
        "t5",
        "generate",
        {"static_prune": {**PRUNE, "resident": "packed"}, "quantize": FOUR},
    ),
    "lora-int8": ("bert", "span", {"lora": {"targets": "all_linear"}, "quantize": EIGHT}),
    "lora-apart-nf4": ("bert", "span", {"lora": {"merge": False}, "quantize": FOUR}),
    "ia3-int8": ("t5", "span", {"ia3": {}, "quantize": EIGHT}),
    "ia3-apart-int8": ("bert", "span", {"ia3": {"merge": False}, "quantize": EIGHT}),
    "qlora": ("bert", "span", {"qlora": {"rank": 4}}),
    "qlora-generate": ("t5", "generate", {"qlora": {"rank": 4, "double_quantisation": False}}),
    "lora_int8": ("distilbert", "span", {"lora_int8": {"dropout": 0.0}}),
}
AS_TRAINED = {"qlora", "qlora-generate", "lora_int8"}  # other kernels, the same numbers


def recipe(small_squad: Path, family: str, head: str, methods: dict[str, Any], **train: Any) -> RunConfig:
    values = {
        "model": {"family": family, "checkpoint": "micro", "head": head, "vocab_size": 300, "dropout": 0.1},
        "methods": methods,
        "data": {
            "train": str(small_squad),
            "evaluation": str(small_squad),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {"learning_rate": 1e-2, "batch_size": 8, "precision": "float32", **train},
        "evaluation": {"precision": "float32", "max_new_tokens": 4, "latency_runs": 1},
    }
    return from_dict(RunConfig, values)


@pytest.fixture(params=list(PRODUCTS))
def trained(request: pytest.FixtureRequest, small_squad: Path, cache_dir: Path) -> Any:
    """Return name, recipe, family, methods, a network after a few steps of half its schedule, and a batch."""
    config = recipe(small_squad, *PRODUCTS[request.param])
    family, methods = registry.make_family(config), registry.make_methods(config)
    registry.check_combination(family, methods)
    data = prepare(config, family, cache_dir=cache_dir)
    seeding.seed_torch(4)
    model = family.build(data.tokenizer)
    for method in methods:
        model = method.attach(model, family)
    batch = collate(data.train, np.arange(8), data.tokenizer.pad_token_id)
    optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=1e-2)
    model.train()
    for step in range(3):
        for method in methods:
            method.progress(model, step / 6)
        loss = family.loss(model, batch, family.logits(model, batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return request.param, config, family, methods, model, batch, data.tokenizer


def _logits(family: Any, model: torch.nn.Module, batch: Any) -> torch.Tensor:
    with torch.inference_mode():
        found = family.logits(model.eval(), batch)
    return torch.cat([item.flatten() for item in found])


def test_the_copy_answers_as_the_artifact_of_this_moment_does(trained: Any, tmp_path: Path) -> None:
    name, config, family, methods, model, batch, tokenizer = trained
    found = _logits(family, deployed_copy(model, methods), batch)
    as_trained = _logits(family, model, batch)
    final, forms = exported(copy.deepcopy(model), methods)
    own = [item for method in methods if (item := method.own_folder(final)) is not None]
    artifact.write(
        tmp_path / "artifact", final, config=config, tokenizer=tokenizer, forms=forms, own_folders=own
    )
    loaded = _logits(family, artifact.load(tmp_path / "artifact").model, batch)
    # A bias is added to a product in one step by a dense layer, in two by a stored one.
    torch.testing.assert_close(found, loaded, rtol=1e-5, atol=2e-5)
    other = (found - as_trained).abs().max()
    assert (other < 1e-4) == (name in AS_TRAINED), "the form is not the network in training"


def _snapshot(model: torch.nn.Module) -> dict[str, Any]:
    return {
        "state": {
            name: tensor.clone() for name, tensor in model.state_dict().items() if torch.is_tensor(tensor)
        },
        "gradients": {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()},
        "trains": [(n, p.requires_grad, id(p)) for n, p in model.named_parameters()],
        "modes": [(n, module.training, type(module)) for n, module in model.named_modules()],
        "random": torch.get_rng_state(),
    }


def test_the_network_in_training_is_left_as_it_was_to_the_bit(trained: Any) -> None:
    _, _, family, methods, model, batch, _ = trained
    own_states = [dict(vars(method)) for method in methods]
    before = _snapshot(model)
    scored = deployed_copy(model, methods)
    _logits(family, scored, batch)
    after = _snapshot(model)
    assert before["trains"] == after["trains"]
    assert before["modes"] == after["modes"]
    assert torch.equal(before["random"], after["random"])
    for kind in ("state", "gradients"):
        assert before[kind].keys() == after[kind].keys()
        for name, tensor in before[kind].items():
            same = after[kind][name]
            assert (tensor is None and same is None) or torch.equal(tensor, same), (kind, name)
    assert [dict(vars(method)) for method in methods] == own_states
    assert scored is not model
    assert any(item.grad is not None for item in model.parameters()), "there were gradients to lose"


def test_no_float_matrix_is_copied_and_what_stays_is_shared(trained: Any) -> None:
    name, _, _, methods, model, _, _ = trained
    held = {item.untyped_storage().data_ptr() for item in (*model.parameters(), *model.buffers())}
    held |= {
        item.untyped_storage().data_ptr() for item in model.state_dict().values() if torch.is_tensor(item)
    }
    copied = deployed_copy(model, methods)
    own = {
        key: item
        for key, item in (*copied.named_parameters(), *copied.named_buffers())
        if item.untyped_storage().data_ptr() not in held
    }
    largest = max(item.numel() for item in model.parameters())
    # What scales matrices is float: of groups and rows. Nothing of the size of a matrix may be.
    floats = {key: item for key, item in own.items() if item.dtype == torch.float32 and item.dim() == 2}
    assert all(item.numel() <= largest // 20 for item in floats.values()), list(floats)
    plain = sum(item.numel() * item.element_size() for item in model.parameters())
    assert sum(item.numel() * item.element_size() for item in own.values()) < 0.55 * plain
    assert bool(own) == (name not in {"qlora-generate"}) or not own


@pytest.mark.parametrize(
    "methods",
    [
        {},
        {"lora": {}},
        {"ia3": {}},
        {"lora": {"merge": False}},
        {"quantize": {"bits": 32}},
        {"static_prune": {"density": 1.0}},
    ],
)
def test_a_recipe_that_deploys_float32_scores_its_network_itself(
    methods: dict[str, Any], small_squad: Path
) -> None:
    acting = registry.make_methods(recipe(small_squad, "bert", "span", methods))
    model = torch.nn.Linear(3, 2)
    assert not scores_a_copy(acting)
    assert deployed_copy(model, acting) is model


def test_a_mask_of_a_rung_has_the_final_density_and_that_of_training_its_own(
    small_squad: Path, cache_dir: Path
) -> None:
    config = recipe(small_squad, "bert", "span", {"static_prune": PRUNE})
    family, methods = registry.make_family(config), registry.make_methods(config)
    data = prepare(config, family, cache_dir=cache_dir)
    model = methods[0].attach(family.build(data.tokenizer), family)
    methods[0].progress(model, 0.3)
    kept = {name: float(layer.mask.float().mean()) for name, layer in masked_layers(model).items()}
    assert all(share > 0.4 for share in kept.values())
    copied = deployed_copy(model, methods)
    for name, layer in masked_layers(model).items():
        weight = copied.get_submodule(name).weight
        assert float((weight != 0).float().mean()) == pytest.approx(0.3, abs=1e-3)
        assert float(layer.mask.float().mean()) == kept[name]


def _run(config: RunConfig, folder: Path, cache_dir: Path) -> Any:
    reports: list[Any] = []
    return run.run(config, reports.append, folder=folder, cache_dir=cache_dir)


@pytest.mark.parametrize("name", ["int8", "pruned-int8-packed", "lora-int8", "qlora", "pruned-by-type"])
@pytest.mark.long
def test_a_run_with_rungs_trains_to_the_bits_of_one_without_and_its_last_rung_scores_what_it_deploys(
    name: str, small_squad: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_rung, set_learning_rate = 50, train.set_learning_rate

    def stand_still(optimizer: Any, task: Any, seen: int, windows: int) -> None:
        """Change nothing after the last rung: the artifact then has the weights that this rung scored."""
        set_learning_rate(optimizer, task, seen, windows)
        for group in optimizer.param_groups if seen >= last_rung else ():
            group["lr"] = 0.0

    monkeypatch.setattr(train, "set_learning_rate", stand_still)
    results = {}
    for kind, rungs in (("with", [16, 32, last_rung]), ("without", [])):
        config = recipe(small_squad, *PRODUCTS[name], budget_examples=63, rungs=rungs)
        results[kind] = _run(config, tmp_path / kind, cache_dir)
    hashes = {kind: artifact.load(tmp_path / kind / "artifact").weights_sha256 for kind in results}
    assert hashes["with"] == hashes["without"]
    curve = results["with"].curve
    assert len(curve) == 4
    assert last_rung <= curve[-2].examples_seen < curve[-1].examples_seen == 63
    assert curve[-2].selection_em_percent == curve[-1].selection_em_percent
    assert curve[-2].selection_f1_percent == curve[-1].selection_f1_percent
    assert results["with"].cost.rung_seconds > 0
    assert results["without"].cost.rung_seconds == 0


def test_a_teachers_projections_are_left_out_of_the_copy_and_kept_in_training(
    small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    methods = {"distill": {"hidden_weight": 1.0}, "quantize": EIGHT}
    config = recipe(small_squad, "bert", "span", methods, budget_examples=32, rungs=[16, 24])
    result = _run(config, tmp_path / "trial", cache_dir)
    assert len(result.curve) == 3


def test_settling_follows_the_forms_alone() -> None:
    model = torch.nn.Linear(2, 2)
    assert settled(model, [], {}) is model
