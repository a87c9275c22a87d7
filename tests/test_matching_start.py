"""Before any training, half of the heads look at equal tokens and half a few tokens back."""

from typing import Any

import pytest
import torch

from benchmarks.matching_start import OFFSETS, start_matching
from qa_core import registry
from qa_core.config import ModelConfig
from qa_core.data.trained_tokenizers import tokenizer_kind, train_tokenizer

TOKENS = 60  # in a row; the second half repeats the first


def started(family_name: str) -> tuple[Any, Any, Any]:
    from transformers import PreTrainedTokenizerFast

    family = registry.family_class(family_name)(
        ModelConfig(family=family_name, checkpoint="tiny", dropout=0.0)
    )
    words = " ".join(f"{first}{second}" for first in "abcdefghijkl" for second in "mnopqrstuv")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(family.tokenizer_kind, [words] * 3, vocab_size=600),
        **tokenizer_kind(family.tokenizer_kind).specials,
    )
    torch.manual_seed(0)
    model = family.build(tokenizer)
    start_matching(family, model)
    return family, tokenizer, model.eval()


def attention(family_name: str) -> torch.Tensor:
    """Return how much each token of the row looks at each other one, in each head of the first layer, [H, L, L]."""
    _, _, model = started(family_name)
    body = model.body if hasattr(model, "body") else model.base_model
    body.set_attn_implementation("eager")
    half = torch.randperm(100, generator=torch.Generator().manual_seed(1))[: TOKENS // 2] + 10
    ids = torch.cat([half, half])[None]
    with torch.no_grad():
        output = body(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True)
    return output.attentions[0][0]


@pytest.mark.parametrize("family_name", ["bert", "distilbert", "t5"])
def test_heads_for_tokens_find_the_other_place_of_the_same_token(family_name):
    weights = attention(family_name)
    for head in weights[: len(weights) // 2]:
        others = head.clone().fill_diagonal_(0.0)
        twins = torch.arange(TOKENS // 2)
        assert (others[TOKENS // 2 :].argmax(dim=1) == twins).float().mean() > 0.6  # by chance 0.02


@pytest.mark.parametrize("family_name", ["bert", "distilbert", "t5"])
def test_heads_for_places_look_a_few_tokens_back(family_name):
    weights = attention(family_name)
    places = weights[len(weights) // 2 :]
    for number, head in enumerate(places):
        offset = OFFSETS[0][number % 2]
        wanted = torch.arange(TOKENS)[offset:] - offset
        distances = (head[offset:].argmax(dim=1) - wanted).abs()
        assert (distances <= 2).float().mean() > 0.9


def test_networks_without_attention_are_left_as_they_are():
    family, tokenizer, model = started("mamba")
    torch.manual_seed(0)
    untouched = family.build(tokenizer)
    for name, tensor in untouched.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
