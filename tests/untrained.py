"""An artifact that no training is needed for: a micro BERT as it was drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.data.squad import load_table
from qa_core.data.tokenizers import prepare_tokenizer
from qa_core.values import from_dict


def write_untrained_bert(
    folder: Path, questions: Path | str, *, data: Mapping[str, Any], vocab_size: int = 300, seed: int = 0
) -> Path:
    """Write a micro BERT, drawn from a seed, whose tokenizer has read these questions; returns the folder.

    It computes in float32 on any machine: in bfloat16 the same question gets another score in another batch.

    Args:
        data: the recipe's, such as lengths of windows.
    """
    model = {"family": "bert", "checkpoint": "micro", "vocab_size": vocab_size}
    config = from_dict(RunConfig, {"model": model, "data": data, "evaluation": {"precision": "float32"}})
    family = registry.make_family(config)
    table = load_table(str(questions), split="dev")
    tokenizer = prepare_tokenizer(family, table, folder.parent)
    torch.manual_seed(seed)
    artifact.write(folder, family.build(tokenizer), config=config, tokenizer=tokenizer, forms={})
    return folder
