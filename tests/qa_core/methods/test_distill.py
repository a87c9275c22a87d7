"""Distillation: what it adds up, who learns from it and who does not, which teachers fit."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qa_core import registry, seeding
from qa_core.config import RunConfig
from qa_core.data.batches import collate
from qa_core.data.prepare import prepare
from qa_core.errors import ConfigError, IllegalCombination
from qa_core.families.base import Block
from qa_core.methods.base import Method, Stage
from qa_core.methods.distill import PROJECTIONS, Distill, _even_pairs
from qa_core.models.distillation import caught_outputs, span_distillation
from qa_core.training.train import TrainTask, accumulate, forward_loss
from qa_core.values import from_dict, to_dict
from tests.contracts.method import HEADS, MethodContract, recipe

pytestmark = pytest.mark.numeric

MINIMUM = torch.finfo(torch.float32).min


class Penalty(Method):
    """Stands for static pruning: freezes what it likes, and adds a multiple of a penalty to the loss."""

    name = "penalty"
    stage = Stage.MASK

    def loss(self, task_loss, model, batch, logits):
        return task_loss + 400 * self.of(model)

    @staticmethod
    def of(model):
        return next(model.parameters()).square().mean()


def _open(
    small_squad: Path,
    cache_dir: Path,
    pair: tuple[str, str],
    *,
    methods: dict[str, Any],
    teacher: tuple[str, str] = ("", "micro"),
    tokenizer: str | None = None,
) -> SimpleNamespace:
    """Return a student with its task, and a teacher of another seed: family (that of the student) and preset."""
    values = to_dict(recipe(small_squad, *pair, methods))
    values["model"]["tokenizer"] = tokenizer
    values["train"]["precision"] = "float32"
    config = from_dict(RunConfig, values)
    family, methods_in_order = registry.make_family(config), registry.make_methods(config)
    data = prepare(config, family, cache_dir=cache_dir)
    seeding.seed_torch(9)
    values["model"] |= {"family": teacher[0] or pair[0], "checkpoint": teacher[1]}
    teacher_family = registry.make_family(from_dict(RunConfig, {**values, "methods": {}}))
    teacher_model = teacher_family.build(data.tokenizer)
    seeding.seed_torch(4)
    model = family.build(data.tokenizer)
    for method in methods_in_order:
        model = method.attach(model, family)
    for method in methods_in_order:
        if method.name == "distill":
            model = method.provide(SimpleNamespace(model=teacher_model, family=teacher_family), model, family)
    pad_id = data.tokenizer.pad_token_id
    task = TrainTask(
        family, methods_in_order, data.train, pad_id, config.train, config.seed, torch.device("cpu")
    )
    batch = collate(data.train, np.arange(8), pad_id)
    return SimpleNamespace(task=task, family=family, model=model.train(), teacher=teacher_model, batch=batch)


@pytest.mark.parametrize("pair", HEADS, ids="-".join)
def test_gradient_flows_to_the_student_alone_and_the_teacher_stays_bit_equal(pair, small_squad, cache_dir):
    opened = _open(small_squad, cache_dir, pair, methods={"distill": {"weight": 1.0}})
    before = {name: item.clone() for name, item in opened.teacher.state_dict().items()}
    state = torch.get_rng_state()
    assert not opened.teacher.training
    optimizer = torch.optim.AdamW(opened.model.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = forward_loss(opened.model, opened.task, opened.batch)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        missing = [name for name, item in opened.model.named_parameters() if item.grad is None]
        assert not missing
        optimizer.zero_grad()
    assert 0 < losses[-1] < losses[0]
    assert torch.equal(torch.get_rng_state(), state), "the teacher draws no random numbers"
    assert all(item.grad is None for item in opened.teacher.parameters())
    after = opened.teacher.state_dict()
    assert all(torch.equal(after[name], item) for name, item in before.items())
    assert not {id(item) for item in opened.teacher.parameters()} & {
        id(item) for item in opened.model.parameters()
    }


@pytest.mark.parametrize("pair", HEADS, ids="-".join)
def test_a_student_that_is_its_own_teacher_has_nothing_to_learn_from_it(pair, small_squad, cache_dir):
    options = {"weight": 1.0, "hidden_weight": 1.0, "cosine_weight": 1.0}
    opened = _open(small_squad, cache_dir, pair, methods={"distill": options})
    opened.teacher.load_state_dict(opened.model.state_dict())
    loss = forward_loss(opened.model, opened.task, opened.batch)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert not hasattr(opened.model, PROJECTIONS) or not list(getattr(opened.model, PROJECTIONS).parameters())


@pytest.mark.parametrize("pair", [pair for pair in HEADS if pair[1] == "span"], ids="-".join)
def test_the_total_of_a_span_reader_equals_an_explicit_one(pair, small_squad, cache_dir):
    methods = {"distill": {"weight": 0.3, "temperature": 2.5}}
    opened = _open(small_squad, cache_dir, pair, methods=methods)
    found = forward_loss(opened.model, opened.task, opened.batch)
    with torch.no_grad():
        student = opened.family.span_logits(opened.model, opened.batch)
        teacher = opened.family.span_logits(opened.teacher, opened.batch)
        task_loss = opened.family.loss(opened.model, opened.batch)
    soft = []
    for own, other in zip(student, teacher, strict=True):
        for row in range(8):
            allowed = opened.batch["span_mask"][row]
            shares = [(item[row][allowed] / 2.5).log_softmax(0) for item in (own, other)]
            soft.append(F.kl_div(*shares, reduction="sum", log_target=True))
    expected = 0.3 * 2.5**2 * torch.stack(soft).mean() + 0.7 * task_loss
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [("distill", "penalty"), ("penalty", "distill")])
def test_a_penalty_of_another_method_is_added_to_the_mixture_and_not_mixed(
    order, small_squad, cache_dir, monkeypatch
):
    monkeypatch.setitem(registry.METHODS, "penalty", f"{__name__}:Penalty")
    opened = _open(small_squad, cache_dir, ("bert", "span"), methods={name: {} for name in order})
    found = forward_loss(opened.model, opened.task, opened.batch)
    with torch.no_grad():
        student = opened.family.span_logits(opened.model, opened.batch)
        teacher = opened.family.span_logits(opened.teacher, opened.batch)
        soft = span_distillation(student, teacher, opened.batch["span_mask"], temperature=2.0)
        hard = opened.family.loss(opened.model, opened.batch, student)
        penalty = 400 * Penalty.of(opened.model)
    assert float(penalty) > 0.1
    torch.testing.assert_close(found, 0.5 * hard + 0.5 * soft + penalty)


def test_accumulated_gradients_equal_those_of_one_large_batch(small_squad, cache_dir):
    """Windows of different lengths and answers: every part of the loss is a mean over windows."""
    for pair in (("bert", "span"), ("t5", "generate"), ("lstm", "span")):
        gradients = []
        for parts in (1, 4):
            options = {"hidden_weight": 2.0, "cosine_weight": 1.0}
            opened = _open(small_squad, cache_dir, pair, methods={"distill": options}, teacher=("", "tiny"))
            accumulate(opened.model, opened.task, np.array_split(np.arange(5, 12), parts))
            gradients.append({name: item.grad for name, item in opened.model.named_parameters()})
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_hidden_states_are_compared_after_the_projection_and_without_padding(small_squad, cache_dir):
    options = {"weight": 0.0, "hidden_weight": 3.0, "cosine_weight": 2.0, "layer_map": "0:1, 1:0"}
    opened = _open(
        small_squad, cache_dir, ("bert", "span"), methods={"distill": options}, teacher=("", "tiny")
    )
    batch = opened.batch
    found = forward_loss(opened.model, opened.task, batch)
    own, other = opened.model.bert.encoder.layer, opened.teacher.bert.encoder.layer
    with torch.no_grad(), caught_outputs([*own, *other]) as states:
        task_loss = opened.family.loss(opened.model, batch)
        opened.family.loss(opened.teacher, batch)
    distances, angles = [], []
    for pair, (student, teacher) in enumerate(((0, 1), (1, 0))):
        weight = getattr(opened.model, PROJECTIONS)[pair].weight
        assert weight.shape == (128, 64)
        for row in range(8):
            length = int(batch["attention_mask"][row].sum())
            ours, theirs = states[student][row, :length] @ weight.T, states[2 + teacher][row, :length]
            distances.append(F.mse_loss(ours, theirs))
            angles.append(1 - F.cosine_similarity(ours, theirs).mean())
    assert len({int(row.sum()) for row in batch["attention_mask"]}) > 1
    expected = task_loss + 3.0 * torch.stack(distances).mean() + 2.0 * torch.stack(angles).mean()
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(item.weight.grad.any() for item in getattr(opened.model, PROJECTIONS))


@pytest.mark.parametrize("pair", HEADS, ids="-".join)
def test_projections_are_trained_with_the_student_and_gone_on_export(pair, small_squad, cache_dir):
    options = {"hidden_weight": 1.0}
    opened = _open(small_squad, cache_dir, pair, methods={"distill": options}, teacher=("", "tiny"))
    plain = _open(small_squad, cache_dir, pair, methods={"distill": {}})
    own = {name for name, _ in plain.model.named_parameters()}
    added = {name for name, item in opened.model.named_parameters() if item.requires_grad} - own
    assert {name.partition(".")[0] for name in added} == {PROJECTIONS}
    pairs = len(opened.family.blocks(opened.model))
    assert len(added) == pairs
    forward_loss(opened.model, opened.task, opened.batch).backward()
    assert all(opened.model.get_parameter(name).grad.any() for name in added)
    (method,) = opened.task.methods
    assert method.companions() == (opened.teacher,)
    exported = method.export(opened.model)
    assert exported.state_dict().keys() == plain.model.state_dict().keys()
    assert method.companions() == ()
    assert not any(module._forward_hooks for module in exported.modules())


def test_a_bilstm_learns_from_a_berts_states_of_the_context(small_squad, cache_dir, tmp_path):
    bert = _open(small_squad, cache_dir, ("bert", "span"), methods={"distill": {}})
    values = recipe(small_squad, "bert", "span", {})
    data = prepare(values, bert.family, cache_dir=cache_dir)
    data.tokenizer.save_pretrained(tmp_path)
    opened = _open(
        small_squad,
        cache_dir,
        ("lstm", "span"),
        methods={"distill": {"weight": 0.0, "hidden_weight": 1.0, "layer_map": "1:1"}},
        teacher=("bert", "micro"),
        tokenizer=str(tmp_path),
    )
    batch = opened.batch
    found = forward_loss(opened.model, opened.task, batch)
    layer = opened.teacher.bert.encoder.layer[1]
    with torch.no_grad(), caught_outputs([opened.model.fusion, layer]) as states:
        task_loss = opened.family.loss(opened.model, batch)
        bert.family.loss(opened.teacher, batch)
    ours, theirs = states
    distances = []
    for row in range(8):
        on_context = batch["token_type_ids"][row].bool()
        distances.append(F.mse_loss(ours[row, : int(on_context.sum())], theirs[row][on_context]))
    torch.testing.assert_close(found, task_loss + torch.stack(distances).mean())


def test_adapters_and_gradient_checkpointing_change_nothing_about_the_states_that_are_compared(
    small_squad, cache_dir
):
    methods = {"distill": {"hidden_weight": 5.0}, "lora": {"rank": 2, "targets": "all_linear"}}
    opened = _open(small_squad, cache_dir, ("bert", "span"), methods=methods)
    plain = _open(small_squad, cache_dir, ("bert", "span"), methods={"distill": {"hidden_weight": 5.0}})
    losses = [forward_loss(item.model, item.task, item.batch) for item in (opened, plain)]
    torch.testing.assert_close(*losses)
    losses[0].backward()
    expected = {
        name: item.grad.clone() for name, item in opened.model.named_parameters() if item.grad is not None
    }
    assert any(".lora_B" in name and gradient.any() for name, gradient in expected.items())
    opened.model.zero_grad()
    opened.family.enable_gradient_checkpointing(opened.model)
    forward_loss(opened.model, opened.task, opened.batch).backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(opened.model.get_parameter(name).grad, gradient, msg=name)


def test_the_teacher_computes_in_the_precision_of_the_student(small_squad, cache_dir):
    opened = _open(small_squad, cache_dir, ("bert", "span"), methods={"distill": {}})
    seen = []
    opened.teacher.bert.encoder.layer[0].attention.self.query.register_forward_hook(
        lambda module, inputs, output: seen.append((output.dtype, output.requires_grad))
    )
    for precision in ("float32", "bfloat16"):
        config = from_dict(type(opened.task.config), {"precision": precision})
        task = TrainTask(**{**vars(opened.task), "config": config})
        loss = forward_loss(opened.model, task, opened.batch)
        assert loss.dtype == torch.float32
    assert seen == [(torch.float32, False), (torch.bfloat16, False)]


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (2, 4, [(0, 1), (1, 3)]),  # teacher 2i + 1 -> student i
        (6, 12, [(index, 2 * index + 1) for index in range(6)]),
        (3, 3, [(0, 0), (1, 1), (2, 2)]),
        (2, 3, [(0, 1), (1, 2)]),
        (4, 2, [(0, 0), (1, 0), (2, 1), (3, 1)]),
    ],
)
def test_blocks_are_spread_evenly_last_to_last(own, other, expected):
    blocks = [[Block(None, "window", 8)] * count for count in (own, other)]
    assert _even_pairs(*blocks) == expected


def test_decoder_blocks_are_compared_with_decoder_blocks():
    own = [Block(None, tokens, 8) for tokens in ("window", "target", "target")]
    other = [Block(None, tokens, 8) for tokens in ("window", "window", "window", "target", "target")]
    assert _even_pairs(own, other) == [(0, 2), (1, 3), (2, 4)]


@pytest.mark.parametrize(
    ("pair", "options", "words"),
    [
        (("bert", "span"), {"layer_map": "0:2"}, r"layer_map: found block 2 of the teacher; allowed: 0 to 1"),
        (
            ("bert", "span"),
            {"layer_map": "0:0,5:1"},
            r"layer_map: found block 5 of the student; allowed: 0 to 1",
        ),
        (
            ("t5", "generate"),
            {"layer_map": "0:3"},
            r"layer_map: found 0:3, states of window and of target; allowed: blocks whose states",
        ),
    ],
)
def test_a_layer_map_that_does_not_fit_is_refused_before_training(
    pair, options, words, small_squad, cache_dir
):
    methods = {"distill": {"hidden_weight": 1.0, **options}}
    with pytest.raises(ConfigError, match=words):
        _open(small_squad, cache_dir, pair, methods=methods)


def test_states_of_a_family_that_names_no_blocks_are_refused(small_squad, cache_dir, monkeypatch):
    monkeypatch.setattr(registry.family_class("lstm"), "blocks", lambda self, model: ())
    methods = {"distill": {"cosine_weight": 1.0}}
    with pytest.raises(ConfigError, match=r"no blocks that can be compared \(student: 0, teacher: 0\)"):
        _open(small_squad, cache_dir, ("lstm", "span"), methods=methods)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0}, r"methods\.distill\.temperature: found 0\.0; allowed: a number above 0"),
        ({"weight": 1.1}, r"methods\.distill\.weight: found 1\.1; allowed: 0 <= share <= 1"),
        ({"hidden_weight": -1}, r"methods\.distill\.hidden_weight: found -1"),
        ({"cosine_weight": -1}, r"methods\.distill\.cosine_weight: found -1"),
        ({"teacher_seed": -1}, r"methods\.distill\.teacher_seed: found -1"),
        ({"layer_map": "0-1"}, r"methods\.distill\.layer_map: found '0-1'; allowed: pairs STUDENT:TEACHER"),
        ({"layer_map": "0:1,"}, r"methods\.distill\.layer_map"),
        (
            {"teacher": "somewhere", "teacher_recipe": {"train": {"epochs": 2}}},
            r"methods\.distill: found teacher 'somewhere' and a teacher_recipe; allowed: one of them",
        ),
        (
            {"teacher_recipe": {"seed": 3}},
            r"teacher_recipe\.seed: found 3; .*methods\.distill\.teacher_seed",
        ),
        ({"temprature": 2}, r"did you mean 'temperature'"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        Distill.from_options(options)


def _teacher(model: dict[str, Any], options: dict[str, Any], **changes: Any) -> RunConfig:
    values = {"model": model, "methods": {"distill": options, "lora": {}}, "seed": 8, **changes}
    config = from_dict(RunConfig, values)
    (method,) = (item for item in registry.make_methods(config) if item.name == "distill")
    return method.prerequisite(config)


def test_the_default_teacher_is_the_recipe_itself_fully_fine_tuned_with_the_teachers_seed():
    changes = {"train": {"budget_examples": 900, "rungs": [300], "learning_rate": 0.002}}
    found = _teacher({"family": "t5"}, {}, **changes)
    assert (found.methods, found.seed) == ({}, 0)
    assert found.model.head == "span", "a preset's default, stated"
    assert found.train.learning_rate == 0.002
    assert found.train.budget_examples == 900
    assert found.train.rungs == tuple(range(90, 900, 90)), "where a killed training can go on"


def test_a_teacher_recipe_is_laid_over_the_trials_own():
    options = {
        "teacher_seed": 5,
        "teacher_recipe": {
            "model": {"family": "bert", "checkpoint": "mini"},
            "train": {"epochs": 3, "rungs": [50]},
            "methods": {"lora": {"rank": 2}},
        },
    }
    model = {"family": "lstm", "tokenizer": "some.json", "dropout": 0.3, "options": {"attention": "none"}}
    config = {"model": model, "methods": {"distill": options}, "train": {"budget_examples": 900}}
    recipe_of_trial = from_dict(RunConfig, config)
    (method,) = registry.make_methods(recipe_of_trial)
    found = method.prerequisite(recipe_of_trial)
    assert (found.model.family, found.model.checkpoint, found.model.options) == ("bert", "mini", {})
    assert (found.model.tokenizer, found.model.dropout) == ("some.json", 0.3)
    assert (found.train.epochs, found.train.budget_examples) == (3, None)
    assert found.train.rungs == (50,)
    assert (found.methods, found.seed) == ({"lora": {"rank": 2}}, 5)
    assert recipe_of_trial.model.options == {"attention": "none"}, "the trial's recipe is left alone"


@pytest.mark.parametrize(
    ("recipe_values", "error", "words"),
    [
        ({"modle": {}}, ConfigError, r"methods\.distill\.teacher_recipe: modle: .*did you mean 'model'"),
        (
            {"train": {"batch_size": 0}},
            ConfigError,
            r"methods\.distill\.teacher_recipe: train\.batch_size: found 0",
        ),
        ({"train": 3}, ConfigError, r"methods\.distill\.teacher_recipe: train: found 3; allowed: a mapping"),
        (
            {"model": {"family": "lstm", "checkpoint": "no-preset"}},
            ConfigError,
            r"methods\.distill\.teacher_recipe: model\.checkpoint",
        ),
        (
            {"model": {"family": "lstm"}, "methods": {"lora": {}}},
            IllegalCombination,
            r"methods\.distill\.teacher_recipe: method 'lora' needs linear_layers",
        ),
    ],
)
def test_a_teacher_recipe_that_is_none_is_refused_when_the_methods_are_made(recipe_values, error, words):
    values = {"model": {"family": "bert"}, "methods": {"distill": {"teacher_recipe": recipe_values}}}
    with pytest.raises(error, match=words):
        registry.make_methods(from_dict(RunConfig, values))


def test_a_teacher_with_another_head_is_an_illegal_combination_that_a_sweep_can_drop():
    options = {"teacher_recipe": {"model": {"head": "span"}}}
    values = {"model": {"family": "t5", "head": "generate"}, "methods": {"distill": options}}
    with pytest.raises(IllegalCombination, match=r"found 'span'; allowed: 'generate', the head of the stud"):
        registry.make_methods(from_dict(RunConfig, values))


def test_a_named_folder_is_what_it_needs():
    config = from_dict(
        RunConfig, {"model": {"family": "bert"}, "methods": {"distill": {"teacher": "some/folder"}}}
    )
    (method,) = registry.make_methods(config)
    assert method.prerequisite(config) == Path("some/folder")


class TestDistillContract(MethodContract):
    name = "distill"
    options = {"hidden_weight": 0.1}
    freezes = False

    def provided(self, family: Any, method: Any, model: Any) -> Any:
        teacher = copy.deepcopy(model)
        with torch.no_grad():
            for item in teacher.parameters():
                item.mul_(0.5)
        return method.provide(SimpleNamespace(model=teacher, family=family), model, family)
