"""The comparison of speed with `Trainer` runs, and each way trains every window."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import train_throughput
from benchmarks.plain_trainer import BEST, PADDED
from qa_core import registry
from qa_core.config import ModelConfig
from qa_core.data.squad import load_table
from qa_core.data.tokenizers import trained_tokenizer


@pytest.mark.long  # a process of its own imports the whole of transformers' `Trainer`
def test_ways_to_train_are_timed_and_their_losses_stand_beside_them(
    small_squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "bert", tmp_path / "found.json"
    table = load_table(str(small_squad), split="train")
    tokenizer = trained_tokenizer("wordpiece", table, vocab_size=300, cache_dir=tmp_path / "cache")
    torch.manual_seed(1)
    model: Any = registry.family_class("bert")(ModelConfig("bert", "micro")).build(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    train_throughput.main(str(folder), str(small_squad), steps=2, batch_size=4, rounds=1, out=out)

    found = json.loads(out.read_text())
    (measured,) = found["rounds"]
    assert list(measured) == [train_throughput.OURS, BEST, PADDED]
    # About the logarithm of the tokens among which each looks: the passage, a batch's width, 384.
    losses = [one["loss"] for one in measured.values()]
    assert sorted(losses) == losses
    assert losses[-1] == pytest.approx(math.log(384), rel=0.15)
    ratio = measured[train_throughput.OURS]["per_second"] / measured[BEST]["per_second"]
    assert found["times_the_best_trainer"]["per_second"] == [pytest.approx(ratio, rel=1e-2)]
    assert "ours / trainer at its best" in capsys.readouterr().out
