"""The same run leaves the same bytes in any process: every file of an artifact, however sets are ordered there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.training.deployment import exported
from qa_core.values import from_dict
from tests.contracts.family import eight_questions

RECIPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tied": ("t5", "generate", {}),
    "tied-int8": ("t5", "generate", {"quantize": {"bits": 8, "embedding_bits": 8}}),
    "adapter-apart": ("t5", "generate", {"lora": {"merge": False, "targets": "all_linear"}}),
    "vectors-apart": ("bert", "span", {"ia3": {"merge": False}}),
    "nf4-base": ("mamba", "generate", {"qlora": {"rank": 2}}),
    "packed": ("distilbert", "span", {"static_prune": {"density": 0.3}, "quantize": {"bits": 4}}),
    "recurrent": ("lstm", "span", {"quantize": {"bits": 8}}),
}


def write_all(folder: Path) -> dict[str, dict[str, str]]:
    """Write an artifact of each recipe; returns its name -> file -> SHA-256, the manifest's own included."""
    hashes = {}
    for name, (family_name, head, methods) in RECIPES.items():
        model = {"family": family_name, "head": head, "checkpoint": "micro", "vocab_size": 400}
        config = from_dict(RunConfig, {"model": model, "methods": methods})
        family, acting = registry.make_family(config), registry.make_methods(config)
        tokenizer = trained_tokenizer(
            family.tokenizer_kind, eight_questions(), vocab_size=400, cache_dir=folder / "cache"
        )
        torch.manual_seed(0)
        network = family.build(tokenizer)
        for method in acting:
            network = method.attach(network, family)
        final, forms = exported(network, acting)
        own = [item for method in acting if (item := method.own_folder(final)) is not None]
        artifact.write(folder / name, final, config=config, tokenizer=tokenizer, forms=forms, own_folders=own)
        paths = sorted(item for item in (folder / name).rglob("*") if item.is_file())
        hashes[name] = {str(item.relative_to(folder)): _sha256(item) for item in paths}
    return hashes


def _sha256(path: Path) -> str:
    from hashlib import sha256

    return sha256(path.read_bytes()).hexdigest()


@pytest.mark.long
def test_two_processes_that_order_sets_differently_write_equal_files(tmp_path: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path; from tests.qa_core import test_same_bytes as written; "
    )
    code += "print(json.dumps(written.write_all(Path(sys.argv[1]))))"
    found = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert found[0] == found[1]
    assert set(found[0]) == set(RECIPES)
    for name, files in found[0].items():
        assert {f"{name}/model.safetensors", f"{name}/manifest.json", f"{name}/tokenizer.json"} <= set(files)
