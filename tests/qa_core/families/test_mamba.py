"""Mamba: the contract for both heads, a pretrained folder, generation against a plain loop, its count."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from qa_core.config import ModelConfig, TrainConfig
from qa_core.data.layout import Prompting
from qa_core.families.base import Family
from qa_core.families.mamba import Mamba
from qa_core.memory.protocol import weights_bytes
from qa_core.methods.lora import Lora
from qa_core.models.mamba import scan_path
from qa_core.models.tokens import line_break_ids
from qa_core.training.train import TrainTask, make_optimizer
from tests.contracts.family import GenerateContract, Setting, SpanContract
from tests.contracts.rounding import assert_same_to_rounding

pytestmark = pytest.mark.numeric


class TestMambaSpan(SpanContract):
    name = "mamba"
    has_attention_dropout = False
    decay_free_matrices = frozenset({"A_log"})

    def test_the_question_stands_before_the_context(self, setting: Setting) -> None:
        types = setting.alone(0)["token_type_ids"][0].tolist()
        assert types == sorted(types)
        assert 0 < sum(types) < len(types)

    def test_training_runs_on_the_projects_scan(self, setting: Setting) -> None:
        family, model = setting.build()
        assert scan_path(model) == family.compute_path(model) == "project-scan"
        assert scan_path(family.restore(family.architecture(model))) == "project-scan"


class TestMambaGenerate(GenerateContract):
    name = "mamba"
    has_dropout = False
    has_attention_dropout = False
    decay_free_matrices = frozenset({"A_log"})
    null_text = "I don't know."

    def test_the_prompt_reads_context_question_and_a_place_for_the_answer(self, setting: Setting) -> None:
        batch = setting.alone(0)
        example = setting.table.example(0)
        prompt = setting.tokenizer.decode(batch["input_ids"][0])
        assert prompt == f"{example.context}\n\nQ: {example.question}\nA:"
        targets = batch["target_ids"][0]
        assert setting.tokenizer.decode(targets[targets != -100]) == " Mira Wick<|endoftext|>"

    def test_the_loss_is_on_answer_and_end_token_only(self, setting: Setting) -> None:
        family, model = setting.build()
        model.eval()
        batch = setting.alone(1)
        targets = batch["target_ids"]
        ids = torch.cat([batch["input_ids"], targets], dim=1)
        labels = torch.cat([torch.full_like(batch["input_ids"], -100), targets], dim=1)
        with torch.no_grad():
            expected = model(input_ids=ids, labels=labels, use_cache=False).loss
            torch.testing.assert_close(family.loss(model, batch), expected)

    def test_the_answer_and_its_score_equal_those_of_a_token_by_token_loop(
        self, setting: Setting, trained: tuple[Family, torch.nn.Module]
    ) -> None:
        family, model = trained
        answers = family.generate(model, setting.batch(), setting.tokenizer, max_new_tokens=16)
        for index in (0, 3, 6):
            prompt = setting.alone(index)["input_ids"]
            ids, total = prompt, 0.0
            while ids.shape[1] < prompt.shape[1] + 16:
                with torch.no_grad():
                    logits = model(input_ids=ids, use_cache=False).logits[0, -1]
                token = int(logits.argmax())
                ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
                total += float(logits.log_softmax(dim=-1)[token])
                if token == setting.tokenizer.eos_token_id:
                    break
            text = setting.tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True).strip()
            assert answers[index].text == ("" if text == self.null_text else text)
            assert answers[index].log_probability == pytest.approx(total, abs=1e-3)

    def test_a_long_prompt_gets_its_whole_answer(
        self, setting: Setting, trained: tuple[Family, torch.nn.Module]
    ) -> None:
        """The study limited prompt and answer together, so that four prompts in five got one token."""
        family, model = trained
        prompt = setting.alone(0)
        question = prompt["input_ids"]
        assert question.shape[1] > 20
        answer = family.generate(model, prompt, setting.tokenizer, max_new_tokens=20)[0]
        assert answer.text == "Mira Wick"

    def test_an_untrained_network_is_cut_at_the_first_line_break(self, setting: Setting) -> None:
        family, model = setting.build(seed=3)
        family = family.with_prompting(Prompting(shots=0, max_tokens=64))
        breaks = line_break_ids(setting.tokenizer)
        assert breaks
        assert all("\n" in setting.tokenizer.decode([index]) for index in breaks)
        stops = [setting.tokenizer.eos_token_id, *breaks]
        assert family.layout(setting.tokenizer).target_end[0] in breaks
        written = setting.tokenizer(" Kolsk", add_special_tokens=False)["input_ids"]
        junk = setting.tokenizer(" and more", add_special_tokens=False)["input_ids"]
        batch = setting.batch([0, 1])
        for stop in stops:
            model.generate = _writes([*written, stop, *junk], [*written, *junk])
            first, second = family.generate(model, batch, setting.tokenizer, max_new_tokens=20)
            assert first.text == "Kolsk"
            assert second.text == "Kolsk and more"
            targets = torch.tensor([[*written, stop]])
            (logits,) = family.logits(model, {**setting.alone(0), "target_ids": targets})
            logits = logits[0].log_softmax(dim=-1)
            expected = sum(logits[place, token].item() for place, token in enumerate(targets[0]))
            assert first.log_probability == pytest.approx(expected, abs=1e-3)


class TestHybridSpan(TestMambaSpan):
    options = {"attention_layer": 1}
    has_attention_dropout = True


class TestHybridGenerate(TestMambaGenerate):
    options = {"attention_layer": 0, "attention_heads": 2}
    has_attention_dropout = True


def _writes(*rows: list[int]) -> Any:
    """Return a stand-in for `generate` that writes the given tokens behind the prompts, each row to its end."""
    width = max(map(len, rows))

    def generate(input_ids: torch.Tensor, pad_token_id: int, **options: Any) -> torch.Tensor:
        assert set(options["eos_token_id"]) >= {pad_token_id}
        written = [[*row, *[pad_token_id] * (width - len(row))] for row in rows]
        return torch.cat([input_ids, torch.tensor(written)], dim=1)

    return generate


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random small Mamba of 400 tokens."""
    folder = tmp_path_factory.mktemp("mamba")
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=400, hidden_size=24, state_size=4, num_hidden_layers=2)
    MambaForCausalLM(config).save_pretrained(folder)
    return folder


def test_presets_read_spans_and_checkpoints_write(checkpoint: Path) -> None:
    assert Mamba(ModelConfig(family="mamba", checkpoint="tiny")).head == "span"
    assert Mamba(ModelConfig(family="mamba", checkpoint=str(checkpoint))).head == "generate"


@pytest.mark.parametrize("head", ["span", "generate"])
def test_a_checkpoint_gives_the_states_of_transformers_own_class(checkpoint: Path, head: str) -> None:
    theirs = MambaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).backbone.eval()
    family = Mamba(ModelConfig(family="mamba", checkpoint=str(checkpoint), head=head))
    model: Any = family.build(range(400)).eval()  # type: ignore[arg-type]
    body = model.body if head == "span" else model.backbone
    ids = torch.randint(400, (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            body(input_ids=ids, use_cache=False).last_hidden_state,
            theirs(input_ids=ids, use_cache=False).last_hidden_state,
            atol=1e-5,
            rtol=1e-5,
        )
    assert "pretrained" in family.traits


def _on_meta(hidden_size: int, layers: int) -> Any:
    config = MambaConfig(vocab_size=50_280, hidden_size=hidden_size, num_hidden_layers=layers)
    with torch.device("meta"):
        return Mamba(ModelConfig(family="mamba", head="generate")).restore(config.to_dict())


def _count(module: torch.nn.Module) -> int:
    return sum(item.numel() for item in module.parameters())


@pytest.mark.facts
def test_mamba_130m_counts_129135360_parameters_in_492_6_mib() -> None:
    model = _on_meta(768, 24)
    parts = (
        *map(_count, model.backbone.layers),
        _count(model.backbone.embeddings),
        _count(model.backbone.norm_f),
    )
    assert parts == (*[3_771_648] * 24, 38_615_040, 768)
    assert _count(model) == sum(parts) == 129_135_360  # the output layer is tied
    assert weights_bytes(model) == 4 * 129_135_360
    assert round(weights_bytes(model) / 2**20, 1) == 492.6
    assert round(weights_bytes(model.bfloat16()) / 2**20, 1) == 246.3


@pytest.mark.facts
def test_mamba_790m_counts_793204224_parameters() -> None:
    assert _count(_on_meta(1536, 48)) == 793_204_224


@pytest.mark.facts
@pytest.mark.parametrize(("learning_rate", "share"), [(1e-5, 0.84), (5e-5, 0.43), (5e-4, 0.0)])
def test_bfloat16_weights_do_not_feel_a_small_step_so_masters_are_float32(
    learning_rate: float, share: float
) -> None:
    """Adam's first steps have the size of the learning rate; one below half a unit in the last place is lost."""
    generator = torch.Generator().manual_seed(0)
    weights = 0.02 * torch.randn(1_000_000, generator=generator)
    signs = torch.randint(2, weights.shape, generator=generator) * 2.0 - 1
    stored = weights.bfloat16()
    unmoved = (stored.float() + learning_rate * signs).bfloat16() == stored
    assert float(unmoved.float().mean()) == pytest.approx(share, abs=0.01)
    moved = (weights + learning_rate * signs) != weights
    assert bool(moved.all())


def test_time_scales_feel_no_weight_decay(checkpoint: Path) -> None:
    family = Mamba(ModelConfig(family="mamba", checkpoint=str(checkpoint)))
    model: Any = family.build(range(400))  # type: ignore[arg-type]
    config = TrainConfig(weight_decay=0.3)
    windows: Any = range(8)
    task = TrainTask(family, [], windows, 0, config, seed=0, device=torch.device("cpu"))
    groups = make_optimizer(model, task).param_groups
    decays = {id(item): group["weight_decay"] for group in groups for item in group["params"]}
    assert len(decays) == len(list(model.parameters()))
    spared = {
        name.rpartition("mixer.")[2] for name, item in model.named_parameters() if decays[id(item)] == 0
    }
    assert {"A_log", "D", "dt_proj.bias"} <= spared
    assert not spared & {"in_proj.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight"}


def test_the_preset_hybrid_is_tiny_with_one_attention_block_more() -> None:
    counts = {}
    for preset in ("tiny", "hybrid"):
        family = Mamba(ModelConfig(family="mamba", checkpoint=preset, head="generate"))
        counts[preset] = _count(family.build(_Tokens()))  # type: ignore[arg-type]
    assert counts["hybrid"] - counts["tiny"] == 4 * 128 * 128 + 128


@pytest.mark.parametrize("head", ["span", "generate"])
def test_a_checkpoint_given_an_attention_block_computes_what_it_did_and_trains_the_block_beside_adapters(
    checkpoint: Path, head: str
) -> None:
    options = {"attention_layer": 1, "attention_heads": 3}
    batch = _batch()
    found = []
    for more in ({}, options):
        family = Mamba(ModelConfig("mamba", str(checkpoint), head=head, dropout=0.0, options=more))
        torch.manual_seed(0)
        model = family.build(_Tokens())  # type: ignore[arg-type]
        network: Any = model.body if head == "span" else model.backbone  # type: ignore[union-attr]
        with torch.no_grad():
            found.append(network.eval()(batch["input_ids"], use_cache=False).last_hidden_state)
    assert_same_to_rounding(found[1], found[0])
    trained = Lora.from_options({}).attach(model, family)
    names = {name for name, item in trained.named_parameters() if item.requires_grad and "lora" not in name}
    parts = {name.split(".")[-2] for name in names if "self_attention" in name}
    assert parts == {"norm", "qkv_proj", "o_proj"}


class _Tokens:
    """Stands in for a tokenizer of 400 tokens."""

    eos_token_id, pad_token_id, special_tokens_map = 0, 0, {}

    def __len__(self) -> int:
        return 400


def _batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 400, (2, 13), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
