"""What can be chosen about a BiLSTM reader: its presets and its options. Needs no torch.

The networks are in `qa_core/models/lstm.py` (the pointer reader) and `qa_core/models/position_reader.py` (the study's
models); what these presets keep of the study and what they correct is said in `qa_core/families/lstm.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from qa_core.errors import ConfigError
from qa_core.values import Setting, check_ranges

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


@dataclass(frozen=True)
class LstmOptions:
    """Options of `lstm`; a size of None is the preset's."""

    # Of all presets.
    vectors: Annotated[
        str,
        Setting(
            "Word vectors: random, hashed (of subwords), or a GloVe or fastText text file, plain or .gz."
        ),
    ] = RANDOM
    train_vectors: Annotated[
        bool | None, Setting("Whether the vectors are trained. null: unless they come from a file.")
    ] = None
    buckets: Annotated[
        int | None, Setting(f"Rows of hashed n-grams. null: {DEFAULT_BUCKETS}.", "rows", at_least=1)
    ] = None
    embedding_size: Annotated[
        int | None, Setting("Width of a word vector. null: the preset's; a file decides its own.", at_least=1)
    ] = None
    hidden_size: Annotated[
        int | None, Setting("Width of the LSTM's states in one direction. null: the preset's.", at_least=1)
    ] = None
    # Of the pointer reader.
    attention: Annotated[
        str | None,
        Setting(
            "Attention between context and question; none: the question's mean instead. null: dot.",
            allowed=ATTENTIONS,
        ),
    ] = None
    exact_match: Annotated[
        bool | None, Setting("Whether each context token knows that it occurs in the question. null: true.")
    ] = None
    # Of model1 to model4; the switches' None is True: corrected.
    positions: Annotated[
        int | None,
        Setting(
            "Places of the context that model1 to model4 can name. null: the preset's.", "tokens", at_least=1
        ),
    ] = None
    question_positions: Annotated[
        int | None,
        Setting(
            "Words that a question is padded to without mask_padding. null: the preset's.",
            "tokens",
            at_least=1,
        ),
    ] = None
    head_dropout: Annotated[
        float | None,
        Setting(
            "Dropout before the heads of model1 to model4. null: the study's.", "share", at_least=0, below=1
        ),
    ] = None
    mask_padding: Annotated[
        bool | None,
        Setting("Whether model1 to model4 leave padding out; false is as the study coded it. null: true."),
    ] = None
    null_slot: Annotated[
        bool | None,
        Setting(
            "Whether model1 to model4 have a place for no answer; false is as the study coded it. null: true."
        ),
    ] = None
    see_question: Annotated[
        bool | None, Setting("Whether model4 reads the question; false is as the study coded it. null: true.")
    ] = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "model.options")


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
