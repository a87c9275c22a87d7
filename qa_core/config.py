"""The recipe: every setting of one trial, its type and its default.

A default is written here and nowhere else; a family's or a method's own options carry theirs in its own file.
So is its meaning, its unit and its range: `qa-sweep settings` prints what stands here.
`values.from_dict` reads a recipe, refusing unknown keys and wrong types with the path of the setting; `values.to_dict`
gives back what `from_dict` reads, with every default filled in, so that a stored recipe stays what it was when defaults
change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from qa_core.errors import ConfigError, unknown
from qa_core.training.schedules import DECAYS
from qa_core.values import Setting, check_ranges, refusal, require

PRECISIONS = ("auto", "float32", "bfloat16")
# Of a question that comes as a row of a table; which column holds one is said by `qa_core/data/mapping.py`.
FIELDS = ("id", "title", "context", "question", "answer", "start", "is_impossible")
HEADS = ("span", "generate")
DEVICES = ("auto", "cpu", "cuda")
# Of the evaluation questions: what picks the front, what confirms it.
PARTS = CHOOSE, CONFIRM = ("choose", "confirm")
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit")


@dataclass(frozen=True)
class ModelConfig:
    """Which model: a family, and where it starts.

    `checkpoint` is a hub name, a local folder, one of the family's named tiny configurations with random weights
    (`presets` in its file), or the name of a pretrained network of this package (`qa_core/checkpoints`).
    """

    family: Annotated[str, Setting("The kind of model.")]
    checkpoint: Annotated[
        str,
        Setting(
            "A hub name, a local folder, or one of the family's small presets, which are trained from scratch: micro, "
            "tiny and others."
        ),
    ] = "tiny"
    head: Annotated[
        str | None,
        Setting(
            "How the network answers: span points at start and end, generate writes text. null: the family's default.",
            allowed=HEADS,
        ),
    ] = None
    tokenizer: Annotated[
        str | None,
        Setting(
            "A hub name or folder of a tokenizer. null: the checkpoint's own, or one trained on the training data."
        ),
    ] = None
    vocab_size: Annotated[
        int, Setting("Size of a tokenizer that is trained on the training data.", "tokens", at_least=64)
    ] = 2048
    dropout: Annotated[
        float, Setting("Share of activations that are dropped in training.", "share", at_least=0, below=1)
    ] = 0.1
    # It makes a CPU step 2.6-3x slower: it bars the fused attention kernel.
    attention_dropout: Annotated[
        float,
        Setting(
            "Share of attention weights that are dropped in training. Above 0 it keeps out the fused attention kernel.",
            "share",
            at_least=0,
            below=1,
        ),
    ] = 0.0
    options: Annotated[
        Mapping[str, Any], Setting("The family's own options, below as model.options.NAME.")
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """Which questions: a built-in corpus, a file, a folder of `datasets`, or a hub data set name."""

    train: Annotated[
        str,
        Setting(
            "Training questions: sample or sample:hard (built in), a file (SQuAD JSON, rows in JSON or JSON lines, "
            "CSV, TSV, Parquet, Arrow), a folder of the library datasets, or the name of a hub data set."
        ),
    ] = "sample"
    evaluation: Annotated[
        str | None,
        Setting(
            "Evaluation questions, named as for data.train. null: the training source's own dev split, or where it has "
            "none, as a file has none, a part of it that is then not trained on (data.holdout_share)."
        ),
    ] = None
    holdout_share: Annotated[
        float,
        Setting(
            "Share of the training source, by whole articles or paragraphs, that is held out as evaluation questions "
            "where data.evaluation is null and the source has no dev split of its own.",
            "share",
            above=0,
            below=1,
        ),
    ] = 0.2
    columns: Annotated[
        Mapping[str, str],
        Setting(
            "Names of the columns of data.train, as {question: q, context: passage}; fields: "
            f"{', '.join(FIELDS)}. Those of a usual name need not stand here. Other sources are read by it where they "
            "have one of these columns."
        ),
    ] = field(default_factory=dict)
    train_questions: Annotated[
        int | None, Setting("How many training questions are used. null: all.", "questions", at_least=1)
    ] = None
    evaluation_questions: Annotated[
        int | None, Setting("How many evaluation questions are used. null: all.", "questions", at_least=1)
    ] = None
    cross_domain: Annotated[
        tuple[str, ...],
        Setting(
            "Sources of other domains, each once, scored once on the finished artifact. They stand in the record and "
            "decide nothing."
        ),
    ] = ()
    selection_share: Annotated[
        float,
        Setting(
            "Share of the training questions, by whole articles, on which reports at rungs are scored.",
            "share",
            above=0,
            below=1,
        ),
    ] = 0.1
    selection_questions: Annotated[
        int | None,
        Setting(
            "At most this many questions are scored at a rung. null: all of them.", "questions", at_least=1
        ),
    ] = 1000
    max_length: Annotated[
        int,
        Setting(
            "Length of a window: question, context and special tokens; data.window sets it too.", "tokens"
        ),
    ] = 384
    stride: Annotated[
        int,
        Setting(
            "How many context tokens two neighbouring windows share; data.window sets it too.",
            "tokens",
            at_least=0,
        ),
    ] = 128
    window: Annotated[
        str | None,
        Setting(
            "LENGTH/STRIDE, such as 384/128: sets both together. null: max_length and stride are used.",
            "tokens",
        ),
    ] = None
    max_question_length: Annotated[
        int, Setting("A longer question is cut to this many tokens.", "tokens", at_least=1)
    ] = 64
    unanswerable_share: Annotated[
        float,
        Setting(
            "How many of the training data's own unanswerable questions are kept.",
            "share",
            at_least=0,
            at_most=1,
        ),
    ] = 1.0
    negatives_ratio: Annotated[
        float,
        Setting(
            "Synthetic unanswerable questions for each training question.",
            "questions per question",
            at_least=0,
        ),
    ] = 0.0
    negatives_same_article_share: Annotated[
        float,
        Setting(
            "Share of the synthetic unanswerable questions that are put on another paragraph of their own article. The "
            "others are put on any article.",
            "share",
            at_least=0,
            at_most=1,
        ),
    ] = 0.0
    skip_bad_examples: Annotated[
        bool, Setting("true leaves out malformed questions and counts them; false refuses the file.")
    ] = False
    split_seed: Annotated[
        int, Setting("Seed of subsets and splits. It is the same for all trials of a sweep.")
    ] = 13

    def __post_init__(self) -> None:
        """Let `window` decide length and stride."""
        if self.window is not None:
            length, stride = _parse_window(self.window)
            object.__setattr__(self, "max_length", length)
            object.__setattr__(self, "stride", stride)


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained. The budget is counted in `examples_seen`: training windows consumed."""

    budget_examples: Annotated[
        int | None,
        Setting(
            "Training windows to consume; 0 trains nothing. In a sweep, budget.examples sets it. null: as epochs says.",
            "windows",
            at_least=0,
        ),
    ] = None
    epochs: Annotated[
        float | None,
        Setting(
            "The budget as passes over the training data; not in a sweep. null: one, unless "
            "budget_examples is set.",
            "epochs",
            at_least=0,
        ),
    ] = None
    rungs: Annotated[
        tuple[int, ...],
        Setting(
            "Windows seen at which the trial reports, rising. In a sweep, the scheduler sets them.",
            "windows",
            at_least=1,
        ),
    ] = ()
    batch_size: Annotated[int, Setting("Windows in one optimiser step.", "windows", at_least=1)] = 16
    micro_batch_tokens: Annotated[
        int,
        Setting(
            "Padded tokens in one forward pass; a larger batch is accumulated over several.",
            "tokens",
            at_least=1,
        ),
    ] = 16384
    optimizer: Annotated[
        str,
        Setting(
            "AdamW. bitsandbytes' optimiser where the name has 8bit (state in 8 bits) or paged (the state may leave a "
            "full GPU).",
            allowed=OPTIMIZERS,
        ),
    ] = "adamw"
    learning_rate: Annotated[float, Setting("Peak learning rate, reached after the warm-up.", above=0)] = 3e-5
    weight_decay: Annotated[float, Setting("Decoupled weight decay of AdamW.", at_least=0)] = 0.01
    schedule: Annotated[
        str, Setting("How the learning rate falls after the warm-up.", allowed=tuple(DECAYS))
    ] = "linear"
    warmup_share: Annotated[
        float,
        Setting(
            "Share of the budget in which the learning rate rises linearly.", "share", at_least=0, below=1
        ),
    ] = 0.1
    clip_norm: Annotated[float, Setting("Gradients are scaled down to at most this norm.", above=0)] = 1.0
    precision: Annotated[
        str,
        Setting(
            "Number format of forward and backward passes. auto: bfloat16 where the hardware computes in it, else "
            "float32.",
            allowed=PRECISIONS,
        ),
    ] = "auto"
    gradient_checkpointing: Annotated[
        bool, Setting("true stores fewer activations and computes them again: less memory, slower steps.")
    ] = False


@dataclass(frozen=True)
class EvaluationConfig:
    """How it is decoded and measured."""

    max_answer_tokens: Annotated[
        int, Setting("Longest span that a span head answers.", "tokens", at_least=1)
    ] = 30
    max_new_tokens: Annotated[
        int, Setting("Longest answer that a generating head writes.", "tokens", at_least=1)
    ] = 32
    batch_tokens: Annotated[
        int, Setting("Padded tokens in one forward pass of scoring.", "tokens", at_least=1)
    ] = 16384
    precision: Annotated[
        str, Setting("Number format of scoring, as for train.precision.", allowed=PRECISIONS)
    ] = "auto"
    latency_runs: Annotated[
        int, Setting("Timed runs behind the latency percentiles.", "runs", at_least=1)
    ] = 30
    confirm_share: Annotated[
        float,
        Setting(
            "Share of the evaluation questions, by whole articles, that choose nothing: qa-sweep confirm scores them.",
            "share",
            at_least=0,
            below=1,
        ),
    ] = 0.0
    part: Annotated[
        str,
        Setting(
            "Which part of the evaluation questions is scored: choose picks the front, confirm is set by qa-sweep "
            "confirm and needs a confirm_share.",
            allowed=PARTS,
        ),
    ] = CHOOSE


@dataclass(frozen=True)
class RunConfig:
    """The full description of one trial. `methods` maps a method's name to its options; none is full fine-tuning."""

    model: ModelConfig
    methods: Annotated[
        Mapping[str, Mapping[str, Any]],
        Setting("Methods with their options, below as methods.NAME.OPTION. None is full fine-tuning."),
    ] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: Annotated[
        int,
        Setting(
            "Seed of the trial's random numbers. In a sweep it derives from the top-level seed.", at_least=0
        ),
    ] = 0
    device: Annotated[
        str, Setting("What computes. auto: cuda where there is one, else cpu.", allowed=DEVICES)
    ] = "auto"

    def __post_init__(self) -> None:
        """Check every value that needs no file, family or method to be checked."""
        for section in ("model", "data", "train", "evaluation"):
            check_ranges(getattr(self, section), section)
        check_ranges(self, "")
        _check_data(self.data)
        _check_train(self.train)
        evaluation = self.evaluation
        without_share = evaluation.part != CHOOSE and evaluation.confirm_share == 0
        require(not without_share, "evaluation.part", evaluation.part, f"{CHOOSE} without a confirm_share")
        require(bool(self.model.checkpoint), "model.checkpoint", self.model.checkpoint, "a name or a folder")


@dataclass(frozen=True)
class Form:
    """One way to store what a recipe trains: the recipe with other options of methods that act after training.

    Attributes:
        label: unique among the forms of the recipe, and the name of a folder.
        settings: dotted path -> value, where `recipe` differs from the recipe that is trained; {} for the twin, which
            is stored as that recipe says.
        recipe: whole, so that whatever plans, predicts or checks a recipe does so for a form.
    """

    label: str
    settings: Mapping[str, Any]
    recipe: RunConfig

    @property
    def is_twin(self) -> bool:
        """Whether it is the trained recipe itself."""
        return not self.settings


def form_of(recipe: RunConfig, label: str, settings: Mapping[str, Any]) -> Form:
    """Return the form of a recipe that some settings make.

    Args:
        settings: "methods.NAME.OPTION" -> value; a method that the recipe lacks is added.
    """
    methods = {name: dict(options or {}) for name, options in recipe.methods.items()}
    for path, value in settings.items():
        _, name, option = path.split(".")
        methods.setdefault(name, {})[option] = value
    return Form(label, dict(settings), replace(recipe, methods=methods) if settings else recipe)


def _parse_window(text: str) -> tuple[int, int]:
    """Return (length, stride) of "384/128"; a length alone has no overlap."""
    length, _, stride = text.partition("/")
    try:
        return int(length), int(stride or 0)
    except ValueError:
        raise refusal("data.window", text, "LENGTH/STRIDE in tokens, such as 384/128") from None


def _check_data(data: DataConfig) -> None:
    """Check what one value alone does not say."""
    named = list(data.cross_domain)
    is_named_once = all(named) and len(set(named)) == len(named)
    require(is_named_once, "data.cross_domain", named, "names of data sources, each once")
    for name, column in data.columns.items():
        if name not in FIELDS:
            raise ConfigError(f"data.columns.{name}: {unknown('field', name, FIELDS)}")
        require(bool(column), f"data.columns.{name}", column, "the name of a column")
    twice = len(set(data.columns.values())) < len(data.columns)
    require(not twice, "data.columns", dict(data.columns), "a column of its own for each field")
    needed = data.max_question_length + 8
    room = data.max_length - needed
    allowed = f"more than max_question_length + 8 = {needed} tokens"
    require(room > 0, "data.max_length", data.max_length, allowed)
    require(data.stride < room, "data.stride", data.stride, f"0 <= overlap < {room} tokens of context")


def _check_train(train: TrainConfig) -> None:
    """Check what one value alone does not say."""
    given = [name for name in ("budget_examples", "epochs") if getattr(train, name) is not None]
    require(len(given) <= 1, "train", given, "either budget_examples or epochs, not both")
    is_rising = list(train.rungs) == sorted(set(train.rungs))
    require(is_rising, "train.rungs", list(train.rungs), "rising positive integers")
