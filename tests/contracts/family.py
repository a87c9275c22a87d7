"""What every family must do. A family's test inherits `SpanContract` or `GenerateContract`, once per head."""

import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_model, save_model

from qa_core import registry
from qa_core.config import ModelConfig
from qa_core.data.batches import collate
from qa_core.data.squad import QaTable, read_squad
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.data.windows import WindowLengths, WindowSet, build_windows
from qa_core.errors import ConfigError
from qa_core.families.base import Family
from qa_core.models.distillation import caught_outputs, token_mask

MINIMUM = torch.finfo(torch.float32).min
CONTEXTS = {
    "The Varrow organ was built by Mira Wick in 1902. It stands in Merrow, near the river.": [
        ("Who built the Varrow organ?", "Mira Wick"),
        ("When was the Varrow organ built?", "1902"),
        ("Where does the organ stand?", "Merrow"),
        ("Who repaired the Varrow organ?", None),
    ],
    "Oren Zoller cast the Harrick bell from bronze. The bell weighs 54 kilograms; a copy hangs in Kolsk.": [
        ("Who cast the Harrick bell?", "Oren Zoller"),
        ("What is the Harrick bell made of?", "bronze"),
        ("How heavy is the bell?", "54 kilograms"),
        ("Who owns the Harrick bell?", None),
    ],
}


@dataclass(frozen=True)
class Setting:
    """Eight questions in one family's windows."""

    family: Family
    tokenizer: Any
    table: QaTable
    windows: WindowSet

    def build(self, *, seed: int = 0, **changes: Any) -> tuple[Family, torch.nn.Module]:
        """Return a family with changed model settings and its freshly built network."""
        family = type(self.family)(ModelConfig(**{**vars(self.family.model), **changes}))
        torch.manual_seed(seed)
        return family, family.build(self.tokenizer)

    def alone(self, index: int) -> dict[str, torch.Tensor]:
        """Return one window as a batch without any padding."""
        length = int(self.windows.lengths[index])
        batch = self.batch([index])
        sides = ("input_ids", "attention_mask", "token_type_ids", "span_mask")
        return {name: item[:, :length] if name in sides else item for name, item in batch.items()}

    def batch(self, indices: Any = None) -> dict[str, torch.Tensor]:
        """Return the windows as a batch; None for all of them."""
        chosen = np.arange(len(self.windows)) if indices is None else np.array(indices)
        return collate(self.windows, chosen, self.tokenizer.pad_token_id)


def eight_questions() -> QaTable:
    """Six answered and two unanswerable questions on two paragraphs."""
    paragraphs = []
    for context, questions in CONTEXTS.items():
        items = []
        for question, answer in questions:
            answers = [{"text": answer, "answer_start": context.index(answer)}] if answer else []
            items.append({"id": question, "question": question, "answers": answers})
        paragraphs.append({"context": context, "qas": items})
    return read_squad({"version": "v2.0", "data": [{"title": "eight", "paragraphs": paragraphs}]}, "eight")


def fit(
    family: Family, model: torch.nn.Module, batch: dict[str, torch.Tensor], *, steps: int, rate: float = 5e-3
) -> list[float]:
    """Train on one batch and return the loss before each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    losses = []
    for _ in range(steps):
        loss = family.loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def padded(batch: dict[str, torch.Tensor], extra: int) -> dict[str, torch.Tensor]:
    """Add `extra` positions to the right of every row, and write junk tokens on all padding."""
    wide = dict(batch)
    for name in ("input_ids", "attention_mask", "token_type_ids", "span_mask"):
        wide[name] = torch.nn.functional.pad(batch[name], (0, extra))
    junk = 5 + torch.arange(wide["input_ids"].numel()).view_as(wide["input_ids"]) % 17
    wide["input_ids"] = torch.where(wide["attention_mask"].bool(), wide["input_ids"], junk)
    return wide


class FamilyContract:
    """Holds for every family and head."""

    name: ClassVar[str]
    head: ClassVar[str]
    has_attention_dropout: ClassVar[bool] = True
    checkpointing: ClassVar[bool] = True
    has_blocks: ClassVar[bool] = True  # whose hidden states can be compared
    decay_free_matrices: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[dict[str, Any]] = {}  # of the family

    @pytest.fixture(scope="class")
    def setting(self, tmp_path_factory: pytest.TempPathFactory) -> Setting:
        cache = tmp_path_factory.mktemp(self.name)
        model = ModelConfig(
            family=self.name, checkpoint="micro", head=self.head, dropout=0.0, options=self.options
        )
        family = registry.family_class(self.name)(model)
        table = eight_questions()
        tokenizer = trained_tokenizer(family.tokenizer_kind, table, vocab_size=400, cache_dir=cache)
        lengths = WindowLengths(max_length=128, stride=32, max_question_length=24)
        windows = build_windows(table, tokenizer, family.layout(tokenizer), lengths=lengths, cache_dir=cache)
        assert len(windows) == 8
        return Setting(family, tokenizer, table, windows)

    def test_the_class_says_who_it_is_and_needs_no_torch_to_be_asked(self) -> None:
        family_class = registry.family_class(self.name)
        assert family_class.name == self.name
        assert self.head in family_class.heads
        assert {"micro", "tiny", "mini"} <= set(family_class.presets)
        code = f"import sys; from qa_core import registry; registry.family_class({self.name!r}); "
        code += "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_a_preset_is_not_pretrained_and_the_head_gives_its_trait(self, setting: Setting) -> None:
        head_trait = {"span": "span_output", "generate": "generates"}[self.head]
        assert setting.family.traits == setting.family.base_traits | {head_trait}

    @pytest.fixture(scope="class")
    def fitted(self, setting: Setting) -> tuple[Family, torch.nn.Module, list[float]]:
        """A model after 100 steps on the eight examples, in evaluation mode, and its losses. No test changes it."""
        family, model = setting.build()
        losses = fit(family, model, setting.batch(), steps=100)
        return family, model.eval(), losses

    def test_the_loss_is_finite_and_falls_on_eight_examples(
        self, fitted: tuple[Family, torch.nn.Module, list[float]]
    ) -> None:
        losses = fitted[2][:40]
        assert np.isfinite(losses).all()
        assert losses[-1] < 0.5 * losses[0]

    def test_the_same_seed_gives_the_same_losses_and_another_does_not(self, setting: Setting) -> None:
        curves = []
        for seed in (0, 0, 1):
            family, model = setting.build(dropout=0.1, seed=seed)
            curves.append(fit(family, model, setting.batch(), steps=3))
        assert curves[0] == curves[1]
        assert curves[0] != curves[2]

    def test_the_loss_of_a_batch_is_the_mean_over_its_windows(self, setting: Setting) -> None:
        family, model = setting.build()
        model.eval()
        with torch.no_grad():
            whole = family.loss(model, setting.batch())
            single = [family.loss(model, setting.alone(index)) for index in range(8)]
        torch.testing.assert_close(whole, torch.stack(single).mean(), atol=1e-5, rtol=1e-5)

    def test_every_preset_builds_and_each_is_larger_than_the_last(self, setting: Setting) -> None:
        counts = []
        for preset in ("micro", "tiny", "mini"):
            _, model = setting.build(checkpoint=preset)
            assert all(item.dtype == torch.float32 for item in model.parameters())
            counts.append(sum(item.numel() for item in model.parameters()))
        assert counts == sorted(set(counts))

    def test_without_dropout_training_mode_computes_what_evaluation_does(self, setting: Setting) -> None:
        family, model = setting.build()
        with torch.no_grad():
            training, evaluation = (family.loss(model.train(mode), setting.batch()) for mode in (True, False))
        torch.testing.assert_close(training, evaluation, atol=1e-6, rtol=1e-6)

    def test_each_dropout_setting_acts_in_training_alone(self, setting: Setting) -> None:
        for change in ("dropout", "attention_dropout"):
            family, model = setting.build(**{change: 0.5})
            plain, plain_model = setting.build()
            with torch.no_grad():
                expected = plain.loss(plain_model.eval(), setting.batch())
                torch.manual_seed(3)
                noisy = family.loss(model.train(), setting.batch())
                torch.testing.assert_close(family.loss(model.eval(), setting.batch()), expected)
            acts = self.has_attention_dropout if change == "attention_dropout" else self.has_dropout
            assert bool((noisy - expected).abs() > 1e-4) == acts

    has_dropout: ClassVar[bool] = True

    def test_an_architecture_survives_json_and_gives_back_a_bit_equal_network(
        self, setting: Setting, tmp_path: Path
    ) -> None:
        family, model = setting.build(seed=5)
        model.eval()
        save_model(model, str(tmp_path / "model.safetensors"))
        architecture = json.loads(json.dumps(family.architecture(model)))
        generator_state = torch.get_rng_state()
        restored = family.restore(architecture)
        assert torch.equal(torch.get_rng_state(), generator_state)
        load_model(restored, str(tmp_path / "model.safetensors"), strict=True)
        restored.eval()
        assert {name: item.shape for name, item in restored.state_dict().items()} == {
            name: item.shape for name, item in model.state_dict().items()
        }
        assert sum(item.numel() for item in restored.parameters()) == sum(
            item.numel() for item in model.parameters()
        )
        with torch.no_grad():
            assert torch.equal(family.loss(restored, setting.batch()), family.loss(model, setting.batch()))
        assert family.architecture(restored) == architecture

    def test_blocks_give_states_of_their_width_on_their_tokens_whatever_the_padding(
        self, setting: Setting
    ) -> None:
        family, model = setting.build()
        model.eval()
        blocks = family.blocks(model)
        assert bool(blocks) == self.has_blocks
        seen = []
        for batch in (setting.batch(), padded(setting.batch(), extra=9)):
            with torch.no_grad(), caught_outputs([block.module for block in blocks]) as states:
                family.logits(model, batch)
            masks = [token_mask(block.tokens, batch) for block in blocks]
            for block, mask, state in zip(blocks, masks, states, strict=True):
                assert state.shape == (*mask.shape, block.width)
                assert len({item.sum().item() for item in mask}) > 1
            seen.append([state[mask] for mask, state in zip(masks, states, strict=True)])
        if not blocks:
            return
        for plain, wide in zip(*seen, strict=True):
            torch.testing.assert_close(wide, plain, atol=2e-5, rtol=2e-5)
        assert not any(torch.equal(seen[0][0], other) for other in seen[0][1:])

    def test_adapter_targets_name_linear_layers_that_exist_and_take_part(self, setting: Setting) -> None:
        family, model = setting.build()
        targets = family.adapter_targets(model)
        if "linear_layers" not in family.traits:
            assert targets == {}
            return
        assert {"attention", "all_linear"} <= targets.keys()
        model.train()
        family.loss(model, setting.batch()).backward()
        modules = dict(model.named_modules())
        for suffixes in targets.values():
            for suffix in suffixes:
                found = [item for name, item in modules.items() if f".{name}".endswith(f".{suffix}")]
                assert found, suffix
                assert all(type(item) is torch.nn.Linear for item in found)
                assert all(item.weight.grad is not None and item.weight.grad.any() for item in found)

    def test_weight_decay_spares_vectors_and_the_declared_matrices(self, setting: Setting) -> None:
        family, model = setting.build()
        spared = {name for name, item in model.named_parameters() if family.is_decay_free(name, item.shape)}
        vectors = {name for name, item in model.named_parameters() if item.dim() < 2}
        assert vectors
        assert vectors <= spared
        assert {name.rpartition(".")[2] for name in spared - vectors} == self.decay_free_matrices

    def test_gradient_checkpointing_changes_no_gradient(self, setting: Setting) -> None:
        family, model = setting.build()
        model.train()
        if not self.checkpointing:
            with pytest.raises(ConfigError, match=r"train.gradient_checkpointing"):
                family.enable_gradient_checkpointing(model)
            return
        other = deepcopy(model)
        family.enable_gradient_checkpointing(other)
        assert any(getattr(item, "gradient_checkpointing", False) for item in other.modules())
        for network in (model, other):
            family.loss(network, setting.batch()).backward()
        for (name, one), (_, two) in zip(model.named_parameters(), other.named_parameters(), strict=True):
            torch.testing.assert_close(two.grad, one.grad, msg=name)

    def test_bfloat16_autocast_stays_near_float32(self, setting: Setting) -> None:
        family, model = setting.build()
        model.eval()
        exact = family.loss(model, setting.batch())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = family.loss(model, setting.batch())
        loss.backward()
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact, atol=0.05, rtol=0.05)
        assert all(torch.isfinite(item.grad).all() for item in model.parameters() if item.grad is not None)

    def test_unknown_heads_and_options_are_refused_by_name(self) -> None:
        family_class = registry.family_class(self.name)
        with pytest.raises(ConfigError, match=r"model\.head.*speech"):
            family_class(ModelConfig(family=self.name, head="speech"))
        with pytest.raises(ConfigError, match=r"model\.options\.colour"):
            family_class(ModelConfig(family=self.name, options={"colour": "red"}))

    def test_a_missing_folder_is_refused_at_once_with_the_presets_named(self, setting: Setting) -> None:
        model = ModelConfig(family=self.name, checkpoint="./no/such/folder", head=self.head)
        with pytest.raises(ConfigError, match=r"model\.checkpoint.*no/such/folder.*micro"):
            registry.family_class(self.name)(model).build(setting.tokenizer)


class SpanContract(FamilyContract):
    """Holds for every head `span`."""

    head = "span"

    def logits(self, setting: Setting, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        family, model = setting.build(seed=2)
        with torch.no_grad():
            return family.span_logits(model.eval(), batch)

    def test_logits_are_float32_and_the_minimum_outside_the_span_mask_only(self, setting: Setting) -> None:
        batch = setting.batch()
        for logits in self.logits(setting, batch):
            assert logits.dtype == torch.float32
            assert logits.shape == batch["input_ids"].shape
            assert torch.equal(logits == MINIMUM, ~batch["span_mask"])
            assert logits[batch["span_mask"]].unique().numel() > batch["span_mask"].sum() / 2

    def test_padding_and_what_stands_on_it_change_no_logit(self, setting: Setting) -> None:
        batch = setting.batch()
        width = batch["input_ids"].shape[1]
        wide = padded(batch, extra=9)
        for plain, wider in zip(self.logits(setting, batch), self.logits(setting, wide), strict=True):
            torch.testing.assert_close(wider[:, :width], plain, atol=2e-5, rtol=2e-5)
            assert (wider[:, width:] == MINIMUM).all()

    def test_a_window_alone_gets_the_logits_that_it_gets_in_a_batch(self, setting: Setting) -> None:
        together = self.logits(setting, setting.batch())
        assert len(set(setting.windows.lengths.tolist())) > 2
        for index, length in enumerate(setting.windows.lengths.tolist()):
            alone = self.logits(setting, setting.alone(index))
            for one, many in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], many[index, :length], atol=2e-5, rtol=2e-5)

    def test_it_can_learn_each_answer_and_no_answer(
        self, setting: Setting, fitted: tuple[Family, torch.nn.Module, list[float]]
    ) -> None:
        family, model, _ = fitted
        batch = setting.batch()
        with torch.no_grad():
            start_logits, end_logits = family.span_logits(model, batch)
        assert torch.equal(start_logits.argmax(dim=1), batch["start_positions"])
        assert torch.equal(end_logits.argmax(dim=1), batch["end_positions"])
        assert (batch["start_positions"] == batch["null_positions"]).sum() == 2

    def test_every_allowed_span_is_a_piece_of_its_context(self, setting: Setting) -> None:
        batch = setting.batch()
        for index in range(len(setting.windows)):
            char_starts, char_ends = setting.windows.offsets(index)
            allowed = batch["span_mask"][index].nonzero().flatten().tolist()
            null = int(batch["null_positions"][index])
            assert null in allowed
            context = setting.table.example(int(setting.windows.question_index[index])).context
            places = [place for place in allowed if place != null]
            assert context[char_starts[places[0]] : char_ends[places[-1]]] == context

    def test_it_does_not_generate(self, setting: Setting) -> None:
        family, model = setting.build()
        with pytest.raises(ConfigError, match="does not generate"):
            family.generate(model, setting.batch(), setting.tokenizer, max_new_tokens=3)


class GenerateContract(FamilyContract):
    """Holds for every head `generate`."""

    head = "generate"
    null_text: ClassVar[str]

    @pytest.fixture(scope="class")
    def trained(self, fitted: tuple[Family, torch.nn.Module, list[float]]) -> tuple[Family, torch.nn.Module]:
        return fitted[:2]

    def test_targets_hold_the_answer_or_the_null_text_and_an_end(self, setting: Setting) -> None:
        for index, targets in enumerate(setting.batch()["target_ids"]):
            tokens = targets[targets != -100]
            example = setting.table.example(int(setting.windows.question_index[index]))
            expected = example.answers[0].text if example.answers else self.null_text
            assert setting.tokenizer.decode(tokens[:-1]).strip() == expected
            assert tokens[-1] == setting.tokenizer.eos_token_id

    def test_it_learns_to_write_each_answer_and_no_answer(
        self, setting: Setting, trained: tuple[Family, torch.nn.Module]
    ) -> None:
        family, model = trained
        answers = family.generate(model, setting.batch(), setting.tokenizer, max_new_tokens=20)
        examples = [setting.table.example(int(index)) for index in setting.windows.question_index]
        expected = [item.answers[0].text if item.answers else "" for item in examples]
        assert [answer.text for answer in answers] == expected
        for answer in answers:
            if answer.text == "":
                assert answer.log_probability == pytest.approx(answer.null_log_probability, abs=1e-4)
            else:
                assert answer.null_log_probability < answer.log_probability < 0

    def test_padding_and_company_change_no_answer(
        self, setting: Setting, trained: tuple[Family, torch.nn.Module]
    ) -> None:
        options: dict[str, Any] = {"tokenizer": setting.tokenizer, "max_new_tokens": 12}
        for family, model in (trained, self._undecided(setting, seed=2), self._undecided(setting, seed=7)):
            plain = family.generate(model, setting.batch(), **options)
            wide = family.generate(model, padded(setting.batch(), extra=60), **options)
            alone = [family.generate(model, setting.alone(index), **options)[0] for index in range(8)]
            for other in (wide, alone):
                assert [item.text for item in other] == [item.text for item in plain]
                for name in ("log_probability", "null_log_probability"):
                    values = [[getattr(item, name) for item in answers] for answers in (other, plain)]
                    assert values[0] == pytest.approx(values[1], abs=1e-3)

    def _undecided(self, setting: Setting, *, seed: int) -> tuple[Family, torch.nn.Module]:
        """Return a model after five steps: one that is sure of its answers shrugs off a wrong mask."""
        family, model = setting.build(seed=seed)
        fit(family, model, setting.batch(), steps=5)
        return family, model.eval()

    def test_the_limit_counts_new_tokens_and_the_score_covers_what_was_written(
        self, setting: Setting, trained: tuple[Family, torch.nn.Module]
    ) -> None:
        family, model = trained
        whole = family.generate(model, setting.batch([0]), setting.tokenizer, max_new_tokens=20)[0]
        cut = family.generate(model, setting.batch([0]), setting.tokenizer, max_new_tokens=1)[0]
        assert whole.text == "Mira Wick"
        assert 0 < len(cut.text) < len(whole.text)
        assert whole.text.startswith(cut.text)
        assert whole.log_probability < cut.log_probability < 0

    def test_the_lower_limit_makes_it_write_on_so_that_memory_can_be_measured(
        self, setting: Setting, trained: tuple[Family, torch.nn.Module]
    ) -> None:
        family, model = trained
        options: dict[str, Any] = {"tokenizer": setting.tokenizer, "max_new_tokens": 16}
        plain = family.generate(model, setting.batch([0]), **options)[0]
        longer = family.generate(model, setting.batch([0]), min_new_tokens=16, **options)[0]
        assert plain.text == "Mira Wick"
        assert longer.text != plain.text
        assert longer.log_probability < plain.log_probability - 1  # it was taught to end

    def test_it_has_no_span_logits(self, setting: Setting) -> None:
        family, model = setting.build()
        with pytest.raises(ConfigError, match="no span logits"):
            family.span_logits(model, setting.batch())
