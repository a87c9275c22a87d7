"""Mamba: the contract for both heads, a pretrained folder, generation against a plain loop, its count."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from qa_core.config import ModelConfig
from qa_core.families.base import Family
from qa_core.families.mamba import Mamba
from qa_core.models.mamba import scan_path
from tests.contracts.family import GenerateContract, Setting, SpanContract


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
        assert scan_path(model) == "project-scan"
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


def test_mamba_130m_counts_129135360_parameters() -> None:
    config = MambaConfig(vocab_size=50_280, hidden_size=768, num_hidden_layers=24)
    with torch.device("meta"):
        model = Mamba(ModelConfig(family="mamba", head="generate")).restore(config.to_dict())
    assert sum(item.numel() for item in model.backbone.parameters()) == 129_135_360
    assert sum(item.numel() for item in model.parameters()) == 129_135_360  # the output layer is tied
