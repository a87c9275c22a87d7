"""What adapters that are kept apart from their base promise; a test class inherits `KeptAdapterContract`.

The artifact holds base and adapter in two files, no tensor in both; it loads without PEFT, and PEFT loads the
adapter's folder onto the base with the same logits.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from qa_core import registry, seeding
from qa_core.artifact import artifact
from qa_core.config import ModelConfig
from qa_core.data.batches import collate
from qa_core.data.prepare import prepare
from qa_core.memory import protocol
from tests.contracts.method import recipe
from tests.contracts.rounding import assert_same_to_rounding

FOLDER = "adapter"
FILES = ["adapter_config.json", "adapter_model.safetensors"]
BASE_FILE, ADAPTER_FILE = "model.safetensors", f"{FOLDER}/adapter_model.safetensors"


def perturb(model: torch.nn.Module) -> None:
    """Move everything that trains, as training would, so that an adapter that is ignored is seen."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for item in model.parameters():
            if item.requires_grad:
                item.add_(torch.randn(item.shape, generator=generator), alpha=0.2)


def full_size(family: str) -> tuple[Any, torch.nn.Module]:
    """Return a family and its full-size network on the meta device: DistilBERT, BERT-base, T5-base, Mamba-130m."""
    import transformers

    t5_base = {
        "d_model": 768,
        "d_ff": 3072,
        "num_layers": 12,
        "num_heads": 12,
        "d_kv": 64,
        "vocab_size": 32128,
    }
    mamba_130m = {"hidden_size": 768, "num_hidden_layers": 24, "vocab_size": 50280}
    name, values, head = {
        "distilbert": ("DistilBertForQuestionAnswering", {}, "span"),
        "bert": ("BertForQuestionAnswering", {}, "span"),
        "t5": ("T5ForConditionalGeneration", t5_base, "generate"),
        "mamba": ("MambaForCausalLM", mamba_130m, "generate"),
    }[family]
    model_class = getattr(transformers, name)
    with torch.device("meta"):
        model = model_class(model_class.config_class(**values))
    return registry.family_class(family)(ModelConfig(family, head=head)), model


def adapter_file_bytes(method: Any, family: Any, model: torch.nn.Module, folder: Path) -> int:
    """Return the size of the adapter's file of a model on the meta device, written with zeros."""
    exported = method.export(method.attach(model, family))
    own = method.own_folder(exported)
    zeros = {
        there: torch.zeros_like(exported.get_parameter(here), device="cpu")
        for here, there in own.tensors.items()
    }
    save_file(zeros, folder / own.weights_file, metadata={"format": "pt"})
    return (folder / own.weights_file).stat().st_size


def tensor_names(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


class KeptAdapterContract:
    """Set `name`, `options` (with the adapter kept apart) and `pairs`."""

    name: ClassVar[str]
    options: ClassVar[dict[str, Any]]
    pairs: ClassVar[list[tuple[str, str]]]

    def as_base(self, base: torch.nn.Module, method: Any, family: Any) -> torch.nn.Module:
        """Return the network that PEFT puts the adapter onto, given the one that the family built."""
        return base

    def ship(self, pair: tuple[str, str], small_squad: Path, cache_dir: Path, folder: Path) -> Any:
        """Write an artifact; returns family, batch, the logits before export and a fresh copy of the base."""
        config = recipe(small_squad, *pair, {self.name: self.options})
        family, (method,) = registry.make_family(config), registry.make_methods(config)
        data = prepare(config, family, cache_dir=cache_dir)
        seeding.seed_torch(4)
        base = self.as_base(family.build(data.tokenizer), method, family)
        seeding.seed_torch(4)
        model = method.attach(family.build(data.tokenizer), family)
        perturb(model)
        batch = collate(data.train, np.arange(8), data.tokenizer.pad_token_id)
        with torch.no_grad():
            expected = family.logits(model.eval(), batch)
            plain = family.logits(base.eval(), batch)
        assert (expected[0] - plain[0]).abs().max() > 0.1, "more than rounding could be"
        form = method.deployed_form(model)
        model = method.export(model)
        artifact.write(
            folder,
            model,
            config=config,
            tokenizer=data.tokenizer,
            forms={} if form is None else {self.name: form},
            own_folders=[method.own_folder(model)],
        )
        return family, batch, expected, base

    def test_base_and_adapter_are_two_files_and_no_tensor_is_in_both(
        self, small_squad: Path, cache_dir: Path, tmp_path: Path
    ) -> None:
        for pair in self.pairs:
            folder = tmp_path / "-".join(pair)
            family, _, _, base = self.ship(pair, small_squad, cache_dir, folder)
            assert sorted(path.name for path in (folder / FOLDER).iterdir()) == FILES
            in_base, in_adapter = tensor_names(folder / BASE_FILE), tensor_names(folder / ADAPTER_FILE)
            heads = {name for name in base.state_dict() if set(name.split(".")) & set(family.head_modules)}
            assert not {name for name in in_base if "lora" in name or "ia3" in name}
            assert {f"base_model.model.{name}" for name in heads} <= in_adapter
            assert not in_base & heads
            plain = {
                re.sub(r"\.matrix\.\w+$", ".weight", name).replace(".base_layer.", ".") for name in in_base
            }
            assert plain <= set(base.state_dict())
            loaded = artifact.load(folder)
            sizes = [(folder / file).stat().st_size for file in (BASE_FILE, ADAPTER_FILE)]
            assert loaded.artifact_bytes > sum(sizes)
            assert (
                sum(sizes) < protocol.weights_bytes(loaded.model) + 40_000
            )  # headers, less than a second copy

    def test_it_is_loaded_unmerged_with_the_same_logits(
        self, small_squad: Path, cache_dir: Path, tmp_path: Path
    ) -> None:
        for pair in self.pairs:
            folder = tmp_path / "-".join(pair)
            family, batch, expected, _ = self.ship(pair, small_squad, cache_dir, folder)
            model = artifact.load(folder).model
            names = [type(module).__name__ for module in model.modules()]
            assert {"LowRankLinear", "ScaledLinear"} & set(names)
            with torch.no_grad():
                found = family.logits(model, batch)
            assert_same_to_rounding(found, expected)

    def test_peft_loads_the_adapter_onto_the_base_with_the_same_logits(
        self, small_squad: Path, cache_dir: Path, tmp_path: Path
    ) -> None:
        from peft import PeftModel

        for pair in self.pairs:
            folder = tmp_path / "-".join(pair)
            family, batch, expected, base = self.ship(pair, small_squad, cache_dir, folder)
            model = PeftModel.from_pretrained(base, str(folder / FOLDER)).eval()
            with torch.no_grad():
                found = family.logits(model, batch)
            assert_same_to_rounding(found, expected)

    def test_a_copy_takes_the_folder_along_and_a_changed_adapter_is_refused(
        self, small_squad: Path, cache_dir: Path, tmp_path: Path
    ) -> None:
        self.ship(self.pairs[0], small_squad, cache_dir, tmp_path / "a")
        artifact.copy(tmp_path / "a", tmp_path / "b")
        assert artifact.verify(tmp_path / "a") == artifact.verify(tmp_path / "b")
        weights = tmp_path / "b" / ADAPTER_FILE
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(bytes(content))
        with pytest.raises(artifact.ArtifactError, match=r"adapter_model\.safetensors: altered"):
            artifact.load(tmp_path / "b")
        weights.unlink()
        with pytest.raises(
            artifact.ArtifactError, match=r"adapter_model\.safetensors: recorded .* but missing"
        ):
            artifact.load(tmp_path / "b")
