"""What is refused because it cannot succeed: devices, checkpoints, tokenizers and memory budgets that are not there."""

import json
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from qa_core.errors import ConfigError
from sweeps import cli
from sweeps.budget.memory import MemoryForecast
from sweeps.checks import readiness
from sweeps.front.choosing import at_least
from sweeps.space.compile import compile_space
from sweeps.spec.load import load_spec
from sweeps.spec.sections import SweepSpec
from tests.sweeps.from_scratch import FROM_SCRATCH


def check(spec: SweepSpec, cache: Path, *, is_cluster: bool = False) -> None:
    forecast = MemoryForecast(cache_dir=cache, max_memory_mb=spec.budget.max_memory_mb, listed=spec.forms)
    readiness.check(spec, compile_space(spec), forecast, is_cluster=is_cluster)


def from_checkpoint(checkpoint: Any, family: str = "bert", **recipe: Any) -> SweepSpec:
    values = load_spec(FROM_SCRATCH).as_dict()
    model = {"family": family, "checkpoint": str(checkpoint)}
    return SweepSpec.model_validate(
        {**values, "recipe": {**values["recipe"], "model": model, **recipe}, "space": []}
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT as transformers stores it, with its tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("checkpoint")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=512, **sizes)).save_pretrained(folder)
    return folder


def test_what_is_there_passes(checkpoint: Path, tmp_path: Path) -> None:
    check(load_spec(FROM_SCRATCH), tmp_path)
    check(from_checkpoint(checkpoint), tmp_path)


@pytest.mark.parametrize("family", ["bert", "distilbert", "mamba", "t5"])
def test_a_network_of_the_package_passes_without_a_question_to_the_hub(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        readiness, "check_hub", lambda setting, name: pytest.fail(f"{setting}: asked for {name}")
    )
    # To build each costs seconds before the first trial: that they load is held by the tests of the networks.
    monkeypatch.setattr(MemoryForecast, "why", lambda forecast, recipe: pytest.fail("it was built"))
    for is_cluster in (False, True):
        check(from_checkpoint("sample-tiny", family), tmp_path, is_cluster=is_cluster)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            {"model.safetensors": None},
            "which has no model.safetensors; allowed: a folder with safetensors weights",
        ),
        ({"model.safetensors": b"torn"}, "whose weights cannot be opened: SafetensorError"),
        (
            {"model.safetensors": None, "pytorch_model.bin": b"x"},
            "which has no model.safetensors, but pytorch_model.bin",
        ),
        ({"config.json": None}, "cannot be loaded"),
        (
            {"config.json": json.dumps({"model_type": "gpt2"}).encode()},
            "is of type 'gpt2'; this family reads",
        ),
        (
            {"tokenizer.json": None, "vocab.txt": None, "tokenizer_config.json": None},
            "none of the files of a tokenizer",
        ),
    ],
)
def test_a_folder_that_lacks_what_a_trial_needs_is_refused(
    spoil: dict[str, bytes | None], expected: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for item in checkpoint.iterdir():
        (folder / item.name).write_bytes(item.read_bytes())
    for name, content in spoil.items():
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=expected) as refused:
        check(from_checkpoint(folder), tmp_path)
    assert "model.checkpoint" in str(refused.value)


def test_a_path_that_is_not_here_is_refused_but_left_to_the_nodes_of_a_cluster(tmp_path: Path) -> None:
    spec = from_checkpoint(tmp_path / "absent")
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        check(spec, tmp_path)
    check(spec, tmp_path, is_cluster=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", ["run", "validate", "plan"])
def test_a_device_that_is_not_here_is_refused_by_every_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, "--set", "recipe.device=cuda"]) == 2
    shown = capsys.readouterr()
    assert "recipe.device: found 'cuda', but torch sees no CUDA device here" in shown.err
    assert "valid" not in shown.out
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_random_weights_is_not_left_untrained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget\.examples: found 0, and bert micro has random weights"):
        check(load_spec(FROM_SCRATCH, ["budget.examples=0", "scheduler={name: fifo}"]), tmp_path)


def test_a_device_of_a_cluster_is_left_to_its_nodes(tmp_path: Path) -> None:
    check(load_spec(FROM_SCRATCH, ["recipe.device=cuda"]), tmp_path, is_cluster=True)


def test_a_memory_budget_that_no_recipe_fits_names_the_smallest_need(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        check(load_spec(FROM_SCRATCH, ["budget.max_memory_mb=0.5"]), tmp_path)
    message = str(refused.value)
    assert "budget.max_memory_mb: found 0.5; allowed: at least " in message
    need = float(message.partition("at least ")[2].partition(",")[0])
    check(load_spec(FROM_SCRATCH, [f"budget.max_memory_mb={need + 0.01}"]), tmp_path)


def test_a_memory_budget_is_held_against_the_smallest_stored_form(tmp_path: Path) -> None:
    def need(*overrides: str) -> float:
        with pytest.raises(ConfigError) as refused:
            check(load_spec(FROM_SCRATCH, ["budget.max_memory_mb=0.2", *overrides]), tmp_path)
        return float(str(refused.value).partition("allowed: at least ")[2].partition(",")[0])

    forms = "forms.quantize.bits=[32, 8, 4]"
    least = need(forms)
    assert least < need()
    check(load_spec(FROM_SCRATCH, [f"budget.max_memory_mb={least + 0.01}", forms]), tmp_path)


FAMILIES = [
    {"set": "model.family", "choice": ["bert", "lstm", "t5"]},
    {"set": "model.checkpoint", "value": "sample-micro", "when": {"model.family": "bert"}},
    {"set": "model.checkpoint", "value": "sample-tiny", "when": {"model.family": "t5"}},
    {"set": "model.checkpoint", "value": "micro", "when": {"model.family": "lstm"}},
    {"set": "model.options.hidden_size", "choice": [16, 4, 8], "when": {"model.family": "lstm"}},
    {"set": "data.max_length", "choice": [96, 80]},
]
METHODS = [
    {"set": "model.family", "choice": ["bert"]},
    {"set": "model.checkpoint", "choice": ["micro"]},
    {"set": "methods", "choice": ["lora", "full", "static_prune", "ia3"]},
    {"set": "methods.static_prune.density", "uniform": [0.2, 0.9], "when": {"methods": "static_prune"}},
    {"set": "methods.lora.rank", "choice": [8, 2], "when": {"methods": "lora"}},
    {"set": "data.max_length", "choice": [96, 80]},
]


def small_budget(space: list[dict[str, Any]], forms: dict[str, Any]) -> SweepSpec:
    values = load_spec(FROM_SCRATCH, ["budget.max_memory_mb=0.001"]).as_dict()
    data = {name: value for name, value in values["recipe"]["data"].items() if name != "max_length"}
    recipe = {**values["recipe"], "data": data}
    return SweepSpec.model_validate({**values, "recipe": recipe, "space": space, "forms": forms})


@pytest.mark.parametrize("forms", [{}, {"quantize": {"bits": [32, 4], "embedding_bits": [32, 8]}}])
@pytest.mark.parametrize("space", [FAMILIES, METHODS])
def test_the_smallest_need_is_that_of_a_walk_through_all_recipes(
    space: list[dict[str, Any]], forms: dict[str, Any], tmp_path: Path
) -> None:
    spec = small_budget(space, forms)
    compiled, forecast = compile_space(spec), MemoryForecast.of(spec)
    needs = [
        forecast.smallest(recipe)
        for combination in compiled.legal
        for recipe in readiness._towards_less(compiled, combination, forecast.smallest)
    ]
    assert len(needs) > 5
    least = min(need for need in needs if need is not None)
    with pytest.raises(ConfigError) as refused:
        check(spec, tmp_path)
    assert f"allowed: at least {at_least(least)}, the smallest need" in str(refused.value)


def test_what_is_known_to_need_more_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def smallest(forecast: MemoryForecast, recipe: Any, *objective: str) -> float | None:
        asked.append((recipe.model.family, *recipe.methods))
        return predicted(forecast, recipe, *objective)

    predicted = MemoryForecast.smallest
    monkeypatch.setattr(MemoryForecast, "smallest", smallest)
    for space in (FAMILIES, METHODS[:-1]):
        with pytest.raises(ConfigError, match="smallest need"):
            check(small_budget(space, {}), tmp_path)
    assert ("lstm",) in asked
    assert ("t5",) not in asked  # its table of words alone is larger than the network found first
    assert ("bert", "ia3") not in asked  # vectors are added to a network that was predicted


# Names of the hub; no question leaves this machine


def hub(
    monkeypatch: pytest.MonkeyPatch, *, cached: bool = False, answer: BaseException | None = None
) -> list[Any]:
    asked: list[Any] = []

    def head(url: str, *, timeout: float) -> None:
        asked.append((url, timeout))
        if answer is not None:
            raise answer

    found = "somewhere/config.json" if cached else None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: found)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", head)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return asked


def test_a_name_in_the_cache_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub(monkeypatch, cached=True) == []
    readiness.check_hub("model.checkpoint", "owner/name")


def test_a_hub_that_does_not_answer_is_asked_once_and_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, answer=ConnectionError("no route"))
    started = time.monotonic()
    with pytest.raises(
        ConfigError, match=r"'owner/name', which is not in the cache, and the hub does not answer"
    ):
        readiness.check_hub("model.checkpoint", "owner/name")
    assert time.monotonic() - started < 2
    assert [timeout for _, timeout in asked] == [readiness.HUB_SECONDS]
    assert asked[0][0].endswith("/owner/name/resolve/main/config.json")


def test_without_a_hub_a_name_must_be_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch)
    readiness.check_hub("model.checkpoint", "owner/name")
    assert len(asked) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        readiness.check_hub("model.checkpoint", "owner/name")
    assert len(asked) == 1


def test_a_word_that_is_no_name_of_the_hub_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ConfigError, match="which is no name of the hub"):
        readiness.check_hub("model.checkpoint", "owner name!")
