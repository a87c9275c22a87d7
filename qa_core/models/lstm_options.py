"""What can be chosen about a BiLSTM reader: its presets and its options. Needs no torch.

The networks are in `qa_core/models/lstm.py` (the pointer reader) and `qa_core/models/position_reader.py` (the study's
models); what these presets keep of the study and what they correct is said in `qa_core/families/lstm.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from qa_core.errors import ConfigError, unknown

ATTENTIONS = ("dot", "multi_head", "none", "self")
RANDOM, HASHED = "random", "hashed"
DEFAULT_BUCKETS = 16384


@dataclass(frozen=True)
class StudyModel:
    """What sets one of the study's models apart, sizes aside."""

    attention: str
    pooling: str
    kernel_l2: float
    head_dropout: float


STUDY_MODELS: Mapping[str, StudyModel] = {
    "model1": StudyModel(attention="dot", pooling="flatten", kernel_l2=0.0, head_dropout=0.3),
    "model2": StudyModel(attention="dot", pooling="flatten", kernel_l2=1e-4, head_dropout=0.4),
    "model3": StudyModel(attention="multi_head", pooling="max", kernel_l2=1e-4, head_dropout=0.5),
    "model4": StudyModel(attention="self", pooling="max", kernel_l2=1e-4, head_dropout=0.5),
}
# Options that act on one of the two networks alone. None means: not given.
OF_POINTER = ("attention", "exact_match")
OF_STUDY = ("head_dropout", "mask_padding", "null_slot", "positions", "question_positions", "see_question")
SIZES = ("buckets", "embedding_size", "hidden_size", "positions", "question_positions")


@dataclass(frozen=True)
class LstmOptions:
    """Options of `lstm`; a size of None is the preset's."""

    # Of all presets.
    vectors: str = RANDOM  # random, hashed (subwords), or a GloVe or fastText text file, plain or .gz
    train_vectors: bool | None = None  # None: unless they come from a file
    buckets: int | None = None  # of hashed n-grams; None: DEFAULT_BUCKETS
    embedding_size: int | None = None  # a file decides its own
    hidden_size: int | None = None  # of one direction
    # Of the pointer reader.
    attention: str | None = None  # None: dot; `none`: the mean of the question instead
    exact_match: bool | None = None  # each context token knows whether it occurs in the question; None: yes
    # Of model1 to model4; the switches' None is True: corrected.
    positions: int | None = None  # places of the context that can be named
    question_positions: int | None = None  # words a question is padded to without mask_padding
    head_dropout: float | None = None  # before the heads, the only dropout there is; None: the study's
    mask_padding: bool | None = None
    null_slot: bool | None = None
    see_question: bool | None = None  # of model4 alone

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.attention is not None and self.attention not in ATTENTIONS:
            raise ConfigError(f"model.options.attention: {unknown('attention', self.attention, ATTENTIONS)}")
        for name in SIZES:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"model.options.{name}: found {value!r}; allowed: an integer above 0")
        if self.head_dropout is not None and not 0.0 <= self.head_dropout < 1.0:
            raise ConfigError(
                f"model.options.head_dropout: found {self.head_dropout!r}; allowed: 0 <= share < 1"
            )


def refuse_idle_options(options: LstmOptions, checkpoint: str) -> None:
    """Refuse what would change nothing: the record would name a setting that did not act; raises ConfigError.

    Those of an artifact are compared with what it was trained with when it is read (`qa_core/artifact/artifact.py`).
    """
    study = STUDY_MODELS.get(checkpoint)
    idle = dict.fromkeys(OF_STUDY, "model1 to model4")
    if checkpoint not in PRESETS:
        return
    if study is not None:
        idle = dict.fromkeys(OF_POINTER, "micro, tiny and mini")
        if study.attention != "self":
            idle["see_question"] = "model4"
    if options.vectors != HASHED:
        idle["buckets"] = "vectors: hashed"
    nothing_given = LstmOptions()
    for name, where in idle.items():
        value = getattr(options, name)
        if value != getattr(nothing_given, name):
            raise ConfigError(
                f"model.options.{name}: found {value!r}, which changes nothing with checkpoint {checkpoint!r} and "
                f"vectors {options.vectors!r}; allowed: only with {where}"
            )


def _study_sizes(*, embedding: int, hidden: int, positions: int, question_positions: int) -> dict[str, int]:
    return {
        "embedding_size": embedding,
        "hidden_size": hidden,
        "positions": positions,
        "question_positions": question_positions,
    }


PRESETS: Mapping[str, Mapping[str, int]] = {
    "micro": {"embedding_size": 48, "hidden_size": 32},
    "tiny": {"embedding_size": 64, "hidden_size": 64},
    "mini": {"embedding_size": 128, "hidden_size": 128},
    "model1": _study_sizes(embedding=1000, hidden=200, positions=1000, question_positions=200),
    "model2": _study_sizes(embedding=100, hidden=128, positions=400, question_positions=50),
    "model3": _study_sizes(embedding=300, hidden=256, positions=400, question_positions=50),
    "model4": _study_sizes(embedding=300, hidden=256, positions=400, question_positions=50),
}
