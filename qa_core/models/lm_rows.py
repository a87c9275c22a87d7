"""The span head of the static-pruning study: two rows of BERT's masked-language-model decoder.

Start and end logit of a token are what the language model gives the words "yes" and "no" there: the head adds no
weight of its own, and where everything but a mask is frozen, the mask alone must make them mean start and end.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForQuestionAnswering
from transformers.initialization import no_init_weights
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform

from qa_core.errors import ConfigError
from qa_core.models import weight_ties
from qa_core.models.pretrained import build_uninitialised

START_TOKEN, END_TOKEN = "yes", "no"


class LmRowsHead(nn.Module):
    """The decoder's transform, then two rows of the decoder. Dimensions: B batch, L tokens, D width."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.rows = nn.Linear(config.hidden_size, 2)

    def forward(self, states: Tensor) -> Tensor:
        """Return logits [B, L, 2] of states [B, L, D]."""
        return self.rows(self.transform(states))


def random_reader(config: BertConfig) -> BertForQuestionAnswering:
    """Return a reader with this head, all of it drawn at random as transformers does."""
    model = BertForQuestionAnswering(config)
    head: Any = LmRowsHead(config).apply(model._init_weights)
    model.qa_outputs = head
    return model


def uninitialised_reader(config_values: dict[str, Any]) -> BertForQuestionAnswering:
    """Return the network of a configuration with this head; its weights are whatever the memory held."""
    model: Any = build_uninitialised(BertForQuestionAnswering, config_values)
    with torch.random.fork_rng(devices=[]), no_init_weights():
        model.qa_outputs = LmRowsHead(model.config)
    return model


def reader_of_language_model(language_model: Any, tokenizer: Any) -> BertForQuestionAnswering:
    """Return the reader made of a BertForMaskedLM; body and transform are shared with it, the rows are copied.

    Raises:
        ConfigError: the vocabulary lacks one of the two words.
    """
    decoder, rows = language_model.cls.predictions.decoder, []
    for token in (START_TOKEN, END_TOKEN):
        row = tokenizer.convert_tokens_to_ids(token)
        if row is None or row == tokenizer.unk_token_id:
            raise ConfigError(
                f"model.options.span_head: 'lm_rows' reads the token {token!r}, which the tokenizer lacks; "
                "allowed: 'linear', or a tokenizer with it"
            )
        rows.append(row)
    weight_ties.forget(language_model.config)  # what it says is of the decoder, which is left behind
    with torch.device("meta"):  # every weight of it is replaced
        model: Any = BertForQuestionAnswering(language_model.config)
        head = LmRowsHead(language_model.config)
    head.transform = language_model.cls.predictions.transform
    head.rows.weight = nn.Parameter(decoder.weight.detach()[rows].clone())
    head.rows.bias = nn.Parameter(decoder.bias.detach()[rows].clone())
    model.bert, model.qa_outputs = language_model.bert, head
    return model
