"""Which weights of a checkpoint are one tensor: loaded, predicted without loading, and kept in an artifact."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, MambaConfig, MambaForCausalLM, T5Config
from transformers import T5ForConditionalGeneration as T5Network

from qa_core.artifact import artifact
from qa_core.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainConfig
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.errors import ConfigError
from qa_core.families.base import Family
from qa_core.memory import forms as form_memory
from qa_core.memory import protocol as cost
from qa_core.memory.protocol import Protocol
from qa_core.models import weight_ties
from qa_core.registry import family_class, make_family, make_methods
from qa_core.training.deployment import exported as exported_form
from tests.contracts.family import eight_questions, fit
from tests.qa_core.memory.test_training import measured, predicted

CPU = torch.device("cpu")
KINDS = {"t5": "unigram", "mamba": "bytes", "bert": "wordpiece", "distilbert": "wordpiece"}
# What a T5 says of itself and what its weights are: the flag of config.json decides nothing.
T5_FLAGS = (None, True, False)


def tokenizer_of(name: str, cache_dir: Path) -> Any:
    return trained_tokenizer(KINDS[name], eight_questions(), vocab_size=400, cache_dir=cache_dir)


def t5_folder(folder: Path, tokenizer: Any, *, untied: bool, flag: bool | None = None, **sizes: Any) -> str:
    """Write a small random T5, its output layer its own or the table of words, and any flag in its config.json."""
    torch.manual_seed(0)
    defaults = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **{**defaults, **sizes})
    network = T5Network(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    document = json.loads((folder / "config.json").read_text())
    document.pop("tie_word_embeddings", None)
    document.pop("scale_decoder_outputs", None)
    document |= {} if flag is None else {"tie_word_embeddings": flag}
    (folder / "config.json").write_text(json.dumps(document))
    if untied:
        _add(folder, {"lm_head.weight": torch.randn(len(tokenizer), config.d_model)})
    return str(folder)


def _add(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path, metadata={"format": "pt"})


def family_of(name: str, checkpoint: str, **model: Any) -> Family:
    return family_class(name)(ModelConfig(name, checkpoint=checkpoint, **model))


def both_networks(family: Family, tokenizer: Any) -> tuple[Any, Any]:
    """Return the loaded network and its skeleton without memory."""
    with torch.device("meta"):
        skeleton = family.build(tokenizer)
    return family.build(tokenizer), skeleton


def shared_names(network: torch.nn.Module) -> set[frozenset[str]]:
    names: dict[int, set[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values()}


@pytest.mark.parametrize("flag", T5_FLAGS, ids=str)
@pytest.mark.parametrize("untied", [True, False], ids=["untied", "tied"])
@pytest.mark.parametrize("head", ["generate", "span"])
def test_a_t5_is_predicted_recorded_and_rebuilt_as_its_weights_are_whatever_its_flag_says(
    head: str, untied: bool, flag: bool | None, tmp_path: Path, cache_dir: Path
) -> None:
    tokenizer = tokenizer_of("t5", cache_dir)
    family = family_of("t5", t5_folder(tmp_path, tokenizer, untied=untied, flag=flag), head=head)
    loaded, skeleton = both_networks(family, tokenizer)
    rebuilt = family.restore(json.loads(json.dumps(family.architecture(loaded))))
    assert shared_names(loaded) == shared_names(skeleton) == shared_names(rebuilt)
    assert family.architecture(skeleton) == family.architecture(loaded)
    expected = ["lm_head.weight"] if untied and head == "generate" else None
    assert family.architecture(loaded).get(weight_ties.APART) == expected
    if head == "generate":
        assert (loaded.lm_head.weight is not loaded.shared.weight) == untied
        assert (
            loaded.config.scale_decoder_outputs == rebuilt.config.scale_decoder_outputs == (flag is not False)
        )


@pytest.mark.parametrize("methods", [{}, {"lora": {}}, {"quantize": {"bits": 8, "embedding_bits": 8}}])
@pytest.mark.parametrize("head", ["generate", "span"])
def test_an_untied_t5_is_trained_exported_and_loaded_back_in_the_memory_that_was_predicted(
    head: str, methods: dict[str, Any], tmp_path: Path, cache_dir: Path
) -> None:
    tokenizer = tokenizer_of("t5", cache_dir)
    folder = t5_folder(tmp_path / "checkpoint", tokenizer, untied=True, flag=False)
    config = RunConfig(
        ModelConfig("t5", checkpoint=folder, head=head),
        methods=methods,
        evaluation=EvaluationConfig(precision="float32", max_new_tokens=3),
    )
    family = make_family(config)
    acting = make_methods(config)
    torch.manual_seed(0)
    model = family.build(tokenizer)
    for method in acting:
        model = method.attach(model, family)
    protocol = Protocol(family, tokenizer, 48, config.evaluation, CPU)
    batch = protocol.batch("cpu", rows=4)
    losses = fit(family, model, dict(batch), steps=4)
    assert losses[-1] < losses[0]
    planned = form_memory.planned_form(config, make_family(config), make_methods(config), tokenizer=tokenizer)
    foreseen = form_memory.predicted_form_bytes(
        family, planned.architecture, planned.forms, protocol=protocol
    )
    exported, forms = exported_form(model, acting)
    artifact.write(tmp_path / "artifact", exported, config=config, tokenizer=tokenizer, forms=forms)
    loaded = artifact.load(tmp_path / "artifact")
    with torch.inference_mode():
        expected, found = (family.logits(item.eval(), batch) for item in (exported, loaded.model))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert cost.inference_peak_bytes(loaded.model, protocol) == foreseen[0]


def _mamba_folder(folder: Path, tokenizer: Any, *, flag: bool, stored: str) -> str:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, state_size=4, num_hidden_layers=1)
    network = MambaForCausalLM(config)
    network.save_pretrained(folder)
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, "tie_word_embeddings": flag}))
    table = network.backbone.embeddings.weight.detach()
    other = {"equal": table.clone(), "another": torch.randn_like(table)}
    _add(folder, {"lm_head.weight": other[stored]} if stored in other else {})
    return str(folder)


@pytest.mark.parametrize(
    ("flag", "stored", "is_tied"),
    [
        (True, "none", True),
        (True, "equal", True),
        (True, "another", False),
        (False, "another", False),
        (False, "equal", False),
    ],
)
def test_a_mamba_is_predicted_recorded_and_rebuilt_as_it_is_loaded(
    flag: bool, stored: str, is_tied: bool, tmp_path: Path, cache_dir: Path
) -> None:
    tokenizer = tokenizer_of("mamba", cache_dir)
    folder = _mamba_folder(tmp_path, tokenizer, flag=flag, stored=stored)
    family = family_of("mamba", folder, head="generate")
    loaded, skeleton = both_networks(family, tokenizer)
    rebuilt = family.restore(json.loads(json.dumps(family.architecture(loaded))))
    assert (loaded.lm_head.weight is loaded.backbone.embeddings.weight) == is_tied
    assert shared_names(loaded) == shared_names(skeleton) == shared_names(rebuilt)


def test_a_mamba_that_claims_an_output_layer_and_stores_none_is_refused(
    tmp_path: Path, cache_dir: Path
) -> None:
    tokenizer = tokenizer_of("mamba", cache_dir)
    family = family_of(
        "mamba", _mamba_folder(tmp_path, tokenizer, flag=False, stored="none"), head="generate"
    )
    with pytest.raises(ConfigError, match=r"lacks 1 weights of MambaForCausalLM.*'lm_head.weight'"):
        family.build(tokenizer)


def _bert_folder(folder: Path, tokenizer: Any, *, untied: bool) -> str:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    network = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes))  # type: ignore[arg-type]
    network.save_pretrained(folder)
    if untied:
        _add(folder, {"cls.predictions.decoder.weight": torch.randn(len(tokenizer), 16)})
    return str(folder)


@pytest.mark.parametrize("untied", [True, False], ids=["untied", "tied"])
def test_rows_of_a_language_model_come_from_its_own_output_layer(
    untied: bool, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qa_core.models import lm_rows

    tokenizer = tokenizer_of("bert", cache_dir)
    known = [token for token in tokenizer.get_vocab() if token.isalpha()][:2]
    monkeypatch.setattr(lm_rows, "START_TOKEN", known[0])
    monkeypatch.setattr(lm_rows, "END_TOKEN", known[1])
    folder = _bert_folder(tmp_path, tokenizer, untied=untied)
    family = family_of("bert", folder, options={"span_head": "lm_rows"})
    loaded, skeleton = both_networks(family, tokenizer)
    stored = load_file(Path(folder) / "model.safetensors")
    table = stored["cls.predictions.decoder.weight" if untied else "bert.embeddings.word_embeddings.weight"]
    wanted = table[tokenizer.convert_tokens_to_ids(known)]
    torch.testing.assert_close(loaded.qa_outputs.rows.weight.detach(), wanted, rtol=0, atol=0)
    assert weight_ties.APART not in family.architecture(loaded)  # the reader has no output layer
    assert family.architecture(loaded) == family.architecture(skeleton)


def test_a_sharded_checkpoint_is_read_through_its_index(tmp_path: Path, cache_dir: Path) -> None:
    tokenizer = tokenizer_of("t5", cache_dir)
    folder = Path(t5_folder(tmp_path, tokenizer, untied=True))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {
        "one.safetensors": ["lm_head.weight"],
        "two.safetensors": sorted(tensors.keys() - {"lm_head.weight"}),
    }
    for file, names in shards.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, names in shards.items() for name in names}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded, skeleton = both_networks(family_of("t5", str(folder), head="generate"), tokenizer)
    assert loaded.config.untied_weights == skeleton.config.untied_weights == ["lm_head.weight"]


def test_an_index_that_points_out_of_its_folder_is_not_followed(tmp_path: Path, cache_dir: Path) -> None:
    tokenizer = tokenizer_of("t5", cache_dir)
    folder = Path(t5_folder(tmp_path / "inside", tokenizer, untied=True))
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {
        "weight_map": {"lm_head.weight": "../outside.safetensors", "shared.weight": "../outside.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with torch.device("meta"):
        skeleton: Any = family_of("t5", str(folder), head="generate").build(tokenizer)
    assert weight_ties.APART not in vars(skeleton.config)


@pytest.mark.parametrize(
    ("names", "apart"),
    [(["shared.weight", "lm_head.weight"], ["lm_head.weight"]), (["shared.weight"], []), (None, [])],
    ids=["both-stored", "one-stored", "unreachable"],
)
def test_of_a_hub_checkpoint_that_is_not_on_this_machine_the_header_decides(
    names: list[str] | None, apart: list[str], monkeypatch: pytest.MonkeyPatch, cache_dir: Path
) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    class Header:
        weight_map = dict.fromkeys(names or (), "model.safetensors")

    def fetched(checkpoint: str) -> Header:
        if names is None:
            raise OfflineModeIsEnabled("offline")
        return Header()

    monkeypatch.setattr(weight_ties, "get_safetensors_metadata", fetched)
    monkeypatch.setattr(weight_ties, "try_to_load_from_cache", lambda *args: None)
    sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    with torch.device("meta"):
        skeleton = T5Network(T5Config(vocab_size=50, **sizes))
    assert weight_ties.apart_in_checkpoint(skeleton, "somebody/some-t5") == apart


PRETRAINED = [
    ("t5", "generate", "tied"),
    ("t5", "generate", "untied"),
    ("t5", "span", "tied"),
    ("mamba", "generate", "tied"),
    ("mamba", "span", "tied"),
    ("bert", "span", "tied"),
    ("distilbert", "span", "tied"),
]


@pytest.mark.parametrize(("name", "head", "ties"), PRETRAINED, ids=lambda item: item)
def test_training_a_pretrained_folder_is_predicted_as_it_is_measured(
    name: str, head: str, ties: str, tmp_path: Path, cache_dir: Path, small_squad: Path
) -> None:
    tokenizer = tokenizer_of(name, cache_dir)
    if name == "t5":
        t5_folder(tmp_path, tokenizer, untied=ties == "untied")
    elif name == "mamba":
        _mamba_folder(tmp_path, tokenizer, flag=True, stored="none")
    else:
        _bert_folder(tmp_path, tokenizer, untied=False)
    tokenizer.save_pretrained(tmp_path)
    options = {"from_bert": True} if name == "distilbert" else {}
    config = RunConfig(
        ModelConfig(name, checkpoint=str(tmp_path), head=head, options=options),
        data=DataConfig(train=str(small_squad), max_length=48, max_question_length=16, stride=8),
        train=TrainConfig(budget_examples=60, batch_size=6, precision="float32"),
        evaluation=EvaluationConfig(precision="float32", max_new_tokens=2, batch_tokens=400),
    )
    assert predicted(config, cache_dir).first_step_bytes == measured(config, cache_dir)
