"""The recipe: every setting of one trial, its type and its default.

A default is written here and nowhere else; a family's or a method's own options carry theirs in its own file.
`from_dict` refuses unknown keys and wrong types with the path of the setting; `to_dict` gives back what `from_dict`
reads, with every default filled in, so that a stored recipe stays what it was when defaults change.
"""

import math
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from qa_core.errors import ConfigError, unknown
from qa_core.training.schedules import DECAYS

PRECISIONS = ("auto", "float32", "bfloat16")
HEADS = ("span", "generate")
DEVICES = ("auto", "cpu", "cuda")
PARTS = CHOOSE, CONFIRM = (
    "choose",
    "confirm",
)  # of the evaluation questions: what picks the front, what confirms it
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit")
Record = TypeVar("Record")


@dataclass(frozen=True)
class ModelConfig:
    """Which model: a family and a hub name, a local folder or one of the family's named tiny configurations."""

    family: str
    checkpoint: str = "tiny"
    head: str | None = None  # None: the family's default for this checkpoint
    tokenizer: str | None = None  # None: the checkpoint's own, or one trained on the training data
    vocab_size: int = 2048  # of a tokenizer trained on the training data
    dropout: float = 0.1
    # Dropout on attention weights makes a CPU step 2.6-3x slower (it bars the fused attention kernel).
    attention_dropout: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """Which questions: `sample` (the built-in corpus), a SQuAD or Parquet file, or a hub data set name."""

    train: str = "sample"
    evaluation: str | None = (
        None  # None: the source's own dev split; a file has none, so there it must be named
    )
    train_questions: int | None = None  # None: all
    evaluation_questions: int | None = None
    # Sources of other domains, scored once on the finished artifact: told in the record, never compared on a front.
    cross_domain: tuple[str, ...] = ()
    selection_share: float = 0.1
    selection_questions: int | None = 1000
    max_length: int = 384
    stride: int = 128
    window: str | None = None  # "LENGTH/STRIDE", such as 384/128: decides the two above together
    max_question_length: int = 64
    unanswerable_share: float = 1.0  # of the training data's own unanswerable questions: how many are kept
    negatives_ratio: float = 0.0  # synthetic unanswerable questions for each training question
    negatives_same_article_share: float = 0.0  # of these: on another paragraph of the article, not on any
    skip_bad_examples: bool = False
    split_seed: int = 13  # of subsets and splits: the same for all trials of a sweep

    def __post_init__(self) -> None:
        """Let `window` decide length and stride."""
        if self.window is not None:
            length, stride = _parse_window(self.window)
            object.__setattr__(self, "max_length", length)
            object.__setattr__(self, "stride", stride)


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained. The budget is counted in `examples_seen`: training windows consumed."""

    budget_examples: int | None = None  # at most one of budget_examples and epochs; neither: one epoch
    epochs: float | None = None
    rungs: tuple[int, ...] = ()  # examples_seen at which the trial reports
    batch_size: int = 16  # windows in one optimiser step
    micro_batch_tokens: int = 16384  # padded tokens in one forward pass; a larger batch is accumulated
    optimizer: str = (
        "adamw"  # bitsandbytes' where 8bit (state) or paged (its state may leave a full GPU) is named
    )
    learning_rate: float = 3e-5
    weight_decay: float = 0.01
    schedule: str = "linear"  # of the learning rate, after the warm-up: see schedules.py
    warmup_share: float = 0.1
    clip_norm: float = 1.0
    precision: str = "auto"  # auto: bfloat16 where the hardware computes in it
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class EvaluationConfig:
    """How it is decoded and measured."""

    max_answer_tokens: int = 30
    max_new_tokens: int = 32
    batch_tokens: int = 16384
    precision: str = "auto"
    latency_runs: int = 30
    confirm_share: float = 0.0  # of the evaluation questions, by whole articles, that choose nothing
    part: str = CHOOSE  # which part is scored: `qa-sweep confirm` takes the other one


@dataclass(frozen=True)
class RunConfig:
    """The full description of one trial. `methods` maps a method's name to its options; none is full fine-tuning."""

    model: ModelConfig
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    device: str = "auto"  # auto: cuda where there is one, else cpu

    def __post_init__(self) -> None:
        """Check every value that needs no file, family or method to be checked."""
        _check_model(self.model)
        _check_data(self.data)
        _check_train(self.train)
        _check_evaluation(self.evaluation)
        _require(self.seed >= 0, "seed", self.seed, "an integer of at least 0")
        _require(self.device in DEVICES, "device", self.device, ", ".join(DEVICES))


def from_dict(record: type[Record], values: Any, *, path: str = "") -> Record:
    """Build a dataclass from plain values.

    Args:
        record: the dataclass, e.g. `RunConfig`.
        values: a mapping as read from YAML or JSON.
        path: where the mapping stands in its file, for messages ("train.learning_rate").

    Raises:
        ConfigError: a key is unknown (the nearest name is suggested) or missing, or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or record.__name__}: expected a mapping, found {values!r}")
    known = {item.name: item for item in fields(record)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(f"{_join(path, str(key))}: {unknown('setting', str(key), known)}")
    hints = typing.get_type_hints(record)
    arguments = {}
    for name, item in known.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], _join(path, name))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{_join(path, name)}: missing, and it has no default")
    return record(**arguments)


def to_dict(record: Any) -> dict[str, Any]:
    """Return the nested plain values of a config; `from_dict(type(record), to_dict(record)) == record`."""
    return {item.name: _plain(getattr(record, item.name)) for item in fields(record)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _convert(hint: Any, value: Any, path: str) -> Any:
    if is_dataclass(hint):
        return from_dict(hint, value, path=path)  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        inner = [item for item in arguments if item is not type(None)]
        return _convert(inner[0], value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}: expected a list, found {value!r}")
        return tuple(_convert(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: expected a mapping, found {value!r}")
        return {str(key): _convert(arguments[1], item, _join(path, str(key))) for key, item in value.items()}
    return _scalar(hint, value, path)


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and (is_number or isinstance(value, str)):  # YAML 1.1 reads 3e-4 as text
        with suppress(ValueError, OverflowError):
            if math.isfinite(number := float(value)):
                return number
        raise ConfigError(f"{path}: expected a finite number, found {value!r}")
    if hint is int and is_number and (isinstance(value, int) or value.is_integer()):
        return int(value)
    if hint in (str, bool) and isinstance(value, hint):
        return value
    raise ConfigError(f"{path}: expected {getattr(hint, '__name__', hint)}, found {value!r}")


def _require(condition: bool, path: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{path}: found {value!r}; allowed: {allowed}")


def _parse_window(text: str) -> tuple[int, int]:
    """Return (length, stride) of "384/128"; a length alone has no overlap."""
    length, _, stride = text.partition("/")
    try:
        return int(length), int(stride or 0)
    except ValueError:
        raise ConfigError(
            f"data.window: found {text!r}; allowed: LENGTH/STRIDE in tokens, such as 384/128"
        ) from None


def _check_model(model: ModelConfig) -> None:
    _require(bool(model.checkpoint), "model.checkpoint", model.checkpoint, "a name or a folder")
    _require(model.head is None or model.head in HEADS, "model.head", model.head, " or ".join(HEADS))
    _require(model.vocab_size >= 64, "model.vocab_size", model.vocab_size, "an integer of at least 64")
    for name in ("dropout", "attention_dropout"):
        value = getattr(model, name)
        _require(0.0 <= value < 1.0, f"model.{name}", value, "0 <= share < 1")


def _check_data(data: DataConfig) -> None:
    _require(0.0 < data.selection_share < 1.0, "data.selection_share", data.selection_share, "0 < share < 1")
    for name in ("train_questions", "evaluation_questions", "selection_questions"):
        value = getattr(data, name)
        _require(value is None or value > 0, f"data.{name}", value, "an integer above 0, or null for all")
    _require(data.max_question_length >= 1, "data.max_question_length", data.max_question_length, "1 or more")
    named = list(data.cross_domain)
    is_named_once = all(named) and len(set(named)) == len(named)
    _require(is_named_once, "data.cross_domain", named, "names of data sources, each once")
    room = data.max_length - data.max_question_length - 8
    _require(
        room > 0,
        "data.max_length",
        data.max_length,
        f"more than max_question_length + 8 = {data.max_question_length + 8} tokens",
    )
    _require(0 <= data.stride < room, "data.stride", data.stride, f"0 <= overlap < {room} tokens of context")
    _require(data.negatives_ratio >= 0, "data.negatives_ratio", data.negatives_ratio, "0 or more")
    for name in ("unanswerable_share", "negatives_same_article_share"):
        value = getattr(data, name)
        _require(0.0 <= value <= 1.0, f"data.{name}", value, "0 <= share <= 1")


def _check_train(train: TrainConfig) -> None:
    given = [name for name in ("budget_examples", "epochs") if getattr(train, name) is not None]
    _require(len(given) <= 1, "train", given, "either budget_examples or epochs, not both")
    for name in ("budget_examples", "epochs"):
        value = getattr(train, name)
        _require(value is None or value >= 0, f"train.{name}", value, "0 (trains nothing) or more")
    for name in ("batch_size", "micro_batch_tokens", "learning_rate", "clip_norm"):
        _require(getattr(train, name) > 0, f"train.{name}", getattr(train, name), "a number above 0")
    _require(train.weight_decay >= 0, "train.weight_decay", train.weight_decay, "0 or more")
    _require(0.0 <= train.warmup_share < 1.0, "train.warmup_share", train.warmup_share, "0 <= share < 1")
    _require(train.optimizer in OPTIMIZERS, "train.optimizer", train.optimizer, ", ".join(OPTIMIZERS))
    _require(train.schedule in DECAYS, "train.schedule", train.schedule, ", ".join(DECAYS))
    _require(train.precision in PRECISIONS, "train.precision", train.precision, ", ".join(PRECISIONS))
    ordered = list(train.rungs) == sorted(set(train.rungs)) and all(rung > 0 for rung in train.rungs)
    _require(ordered, "train.rungs", list(train.rungs), "rising positive integers")


def _check_evaluation(evaluation: EvaluationConfig) -> None:
    for name in ("max_answer_tokens", "max_new_tokens", "batch_tokens", "latency_runs"):
        _require(getattr(evaluation, name) > 0, f"evaluation.{name}", getattr(evaluation, name), "above 0")
    precision = evaluation.precision
    _require(precision in PRECISIONS, "evaluation.precision", precision, ", ".join(PRECISIONS))
    share, part = evaluation.confirm_share, evaluation.part
    _require(0.0 <= share < 1.0, "evaluation.confirm_share", share, "0 <= share < 1")
    _require(part in PARTS, "evaluation.part", part, " or ".join(PARTS))
    _require(part == CHOOSE or share > 0.0, "evaluation.part", part, f"{CHOOSE} without a confirm_share")
