"""A network of a micro preset that needs no trained tokenizer, and a batch of windows for it."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from qa_core import registry
from qa_core.config import ModelConfig
from qa_core.families.base import Family


class Tokens(SimpleNamespace):
    """Of a tokenizer, what a network is built from."""

    def __len__(self) -> int:
        return 300


TOKENIZER: Any = Tokens(pad_token_id=0, unk_token_id=1, cls_token_id=2, sep_token_id=3)


def micro_network(
    name: str = "bert", *, checkpoint: str = "micro", **options: Any
) -> tuple[Family, nn.Module]:
    """Return a family with these options, without dropout, and its network, drawn from seed 0."""
    torch.manual_seed(0)
    model = ModelConfig(name, checkpoint=checkpoint, dropout=0.0, options=options)
    family = registry.family_class(name)(model)
    return family, family.build(TOKENIZER)


def span_batch(rows: int = 3, length: int = 20) -> dict[str, torch.Tensor]:
    """Return windows with questions of 7 tokens and answers behind them."""
    generator = torch.Generator().manual_seed(1)
    types = (torch.arange(length) > 6).long().expand(rows, length)
    return {
        "input_ids": torch.randint(4, 300, (rows, length), generator=generator),
        "attention_mask": torch.ones(rows, length, dtype=torch.long),
        "token_type_ids": types,
        "span_mask": types.bool(),
        "null_positions": torch.zeros(rows, dtype=torch.long),
        "start_positions": torch.tensor([8, 9, 10]),
        "end_positions": torch.tensor([9, 11, 10]),
    }
