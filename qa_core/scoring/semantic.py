"""How near an answer is to a gold answer in meaning: the cosine of two sentence embeddings.

Any encoder that transformers can load will do: a folder or a hub name. A text's embedding is the mean of the last
hidden states over its own tokens (Reimers and Gurevych 2019, section 3), in float32; layers that sentence-transformers
would put behind it (`Dense`, other poolings) are not applied.

Limits. The value says whether two texts are about alike things, not whether the answer is true: "1906" and "1907",
"before" and "after", an entity and its rival in one passage are near each other. It has no natural zero, and its
scale is the encoder's own: compare models under one encoder, never values of two encoders. Short answers, names
and numbers above all, are what such encoders know least. It stands beside EM and F1 and replaces neither; no human
judgement has been set against it here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qa_core import files
from qa_core.data.text import normalize_answer
from qa_core.data.tokenizers import load_tokenizer
from qa_core.errors import ConfigError
from qa_core.models.pretrained import LOAD_ERRORS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH_TEXTS = 128
LONGEST_TEXT = 512  # tokens; shorter where the encoder has fewer positions
ALLOWED = "a folder or a hub name of an encoder with safetensors weights"
UNUSED_WEIGHTS = ("pooler.",)  # of some encoders; the mean needs none of them


@dataclass(frozen=True, eq=False)
class SentenceEncoder:
    """A network that turns a text into one vector. `max_tokens`: longer texts are cut there."""

    source: str
    model: torch.nn.Module
    tokenizer: "PreTrainedTokenizerFast"
    max_tokens: int
    device: torch.device

    def embed(self, texts: Sequence[str], *, batch_texts: int = BATCH_TEXTS) -> torch.Tensor:
        """Return the unit vectors of the texts, in their order, [texts, D] float32 on the CPU.

        Raises:
            ConfigError: a vector is zero or not finite, which no cosine can be taken of.
        """
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # batches of like lengths
        parts = []
        with torch.inference_mode():
            for start in range(0, len(order), batch_texts):
                parts.append(self._means([texts[index] for index in order[start : start + batch_texts]]))
        vectors = torch.cat(parts)[torch.from_numpy(np.argsort(order))]  # [texts, D]
        lengths = vectors.norm(dim=1, keepdim=True)
        if not bool((lengths.isfinite() & (lengths > 0)).all()):
            raise ConfigError(
                f"{self.source}: found embeddings that are zero or not finite; allowed: {ALLOWED}"
            )
        return vectors / lengths

    def _means(self, texts: list[str]) -> torch.Tensor:
        encoded = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        mask = encoded["attention_mask"]  # [B, L]
        states = self.model(
            input_ids=encoded["input_ids"], attention_mask=mask
        ).last_hidden_state  # [B, L, D]
        weights = mask[:, :, None].to(states.dtype)
        return ((states * weights).sum(1) / weights.sum(1).clamp(min=1)).float().cpu()


def load_encoder(source: str, *, setting: str, device: torch.device) -> SentenceEncoder:
    """Load an encoder in float32; of a model with encoder and decoder, the encoder.

    Args:
        source: a folder or a hub name.
        setting: what names it, for messages.
        device: where it computes.

    Raises:
        ConfigError: it cannot be found or read, lacks weights, or gives no hidden states for tokens.
    """
    from transformers import AutoModel

    tokenizer = load_tokenizer(source, setting=setting)
    folder = Path(source).expanduser()
    try:
        for path in sorted(folder.glob("*.safetensors")):
            files.check_safetensors(path)
        loaded: Any = AutoModel.from_pretrained(
            str(folder) if files.is_there(folder) else source,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        lines = str(error).strip().splitlines() or ["no message"]
        reason = f"{type(error).__name__}: {lines[0]}"
        raise ConfigError(
            f"{setting}: found {source!r}, which cannot be loaded ({reason}); allowed: {ALLOWED}"
        ) from error
    model, found = loaded
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(UNUSED_WEIGHTS))
    if missing:
        raise ConfigError(
            f"{setting}: found {source!r}, which lacks {len(missing)} weights ({missing[0]}, ...); allowed: "
            f"{ALLOWED}"
        )
    config = model.config
    if config.is_encoder_decoder:
        model = model.get_encoder()
    positions = getattr(config, "max_position_embeddings", None) or LONGEST_TEXT
    max_tokens = min(LONGEST_TEXT, positions, tokenizer.model_max_length)
    encoder = SentenceEncoder(source, model.eval().to(device), tokenizer, max_tokens, device)
    try:
        encoder.embed(["a trial"])
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"{setting}: found {source!r}, which gives no hidden states for text ({error}); allowed: {ALLOWED}"
        ) from error
    return encoder


def semantic_scores(
    answers: Sequence[str],
    golds: Sequence[Sequence[str]],
    encoder: SentenceEncoder,
    *,
    batch_texts: int = BATCH_TEXTS,
) -> np.ndarray:
    """Return the greatest cosine of each answer with one of its golds, [Q] float64 from -1 to 1.

    A text that normalises to nothing counts as "", as for the scorer, and golds that do are left out unless none
    remains. "" against "" is 1, "" against text is 0; neither is embedded.

    Args:
        answers: one for each question, "" for "no answer".
        golds: the gold texts of each question; none means that "" is right.
        encoder: see `load_encoder`.
        batch_texts: texts in one forward pass; distinct texts are embedded once.
    """
    pairs = [
        (answer if normalize_answer(answer) else "", [gold for gold in texts if normalize_answer(gold)])
        for answer, texts in zip(answers, golds, strict=True)
    ]
    place = _distinct(text for answer, kept in pairs if answer and kept for text in (answer, *kept))
    vectors = encoder.embed(list(place), batch_texts=batch_texts).double() if place else torch.empty(0)
    scores = []
    for answer, kept in pairs:
        if answer and kept:
            cosines = vectors[[place[gold] for gold in kept]] @ vectors[place[answer]]  # [golds]
            scores.append(float(cosines.max().clamp(-1.0, 1.0)))
        else:
            scores.append(float(not answer and not kept))
    return np.array(scores, dtype=np.float64)


def _distinct(texts: Iterable[str]) -> dict[str, int]:
    """Number the distinct texts in order of first use."""
    place: dict[str, int] = {}
    for text in texts:
        place.setdefault(text, len(place))
    return place
