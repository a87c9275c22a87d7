"""A BERT encoder in DistilBERT's layout: the same function of the tokens, one file format for the other.

DistilBERT (Sanh et al. 2019, arXiv 1910.01108, section 3) drops BERT's token-type embeddings and pooler. A BERT whose
input has token type 0 throughout computes the same hidden states when row 0 of its token types is added to its
positions. Small distilled BERTs such as MiniLM can then be read by the family `distilbert`.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers import BertModel, DistilBertConfig, DistilBertForQuestionAnswering

from qa_core.errors import ConfigError
from qa_core.models.pretrained import load_pretrained

LAYER_NAMES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
DISTILBERT_NORM_EPSILON = 1e-12  # fixed in DistilBERT's code, a setting in BERT's


def load_bert_as_distilbert(
    checkpoint: str, *, presets: Collection[str], settings: Mapping[str, Any]
) -> DistilBertForQuestionAnswering:
    """Load a BERT checkpoint into DistilBERT's span reader; the span head starts from random weights.

    Args:
        checkpoint: a folder or hub name of a BERT.
        presets: the family's own names of checkpoints, for messages.
        settings: DistilBERT settings that do not follow from the checkpoint, such as dropout.

    Raises:
        ConfigError: the checkpoint cannot be read as a BERT, or DistilBERT cannot compute what it computes.
    """
    bert: Any = load_pretrained(
        BertModel, checkpoint, presets=presets, config_changes={}, new_modules=("pooler",)
    )
    _check_representable(bert.config, checkpoint)
    config = DistilBertConfig(
        vocab_size=bert.config.vocab_size,
        max_position_embeddings=bert.config.max_position_embeddings,
        n_layers=bert.config.num_hidden_layers,
        n_heads=bert.config.num_attention_heads,
        dim=bert.config.hidden_size,
        hidden_dim=bert.config.intermediate_size,
        activation=bert.config.hidden_act,
        pad_token_id=bert.config.pad_token_id,
        **settings,
    )
    model = DistilBertForQuestionAnswering(config)
    model.distilbert.load_state_dict(_renamed(bert))
    return model


def _check_representable(config: Any, checkpoint: str) -> None:
    for name, allowed in (
        ("layer_norm_eps", (DISTILBERT_NORM_EPSILON,)),
        ("hidden_act", ("gelu", "relu")),
        ("position_embedding_type", ("absolute", None)),
    ):
        found = getattr(config, name, None)
        if found not in allowed:
            raise ConfigError(
                f"model.checkpoint: {checkpoint!r} has {name} {found!r}, which DistilBERT cannot represent "
                f"(allowed: {', '.join(map(str, allowed))})"
            )


def _renamed(bert: BertModel) -> dict[str, torch.Tensor]:
    source: Any = bert.embeddings
    positions = source.position_embeddings.weight + source.token_type_embeddings.weight[0]
    weights = {
        "embeddings.word_embeddings.weight": source.word_embeddings.weight,
        "embeddings.position_embeddings.weight": positions,
        "embeddings.LayerNorm.weight": source.LayerNorm.weight,
        "embeddings.LayerNorm.bias": source.LayerNorm.bias,
    }
    for index, layer in enumerate(bert.encoder.layer):
        for old, new in LAYER_NAMES.items():
            for part in ("weight", "bias"):
                weights[f"transformer.layer.{index}.{new}.{part}"] = getattr(layer.get_submodule(old), part)
    return {name: tensor.detach() for name, tensor in weights.items()}
