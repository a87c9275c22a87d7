"""With what a sweep can start that nobody has configured yet: networks, rates, budget and rungs.

Arithmetic and two tables; what is measured of data and machine comes from `sweeps/commands/new.py`. Rates of hub
checkpoints are those of `sweeps/configs/` and widen the known values of `sweeps/space/known_recipes.py`; those of the
package's networks were measured (`docs/LOG.md`, pretrained networks in the package).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from qa_core.errors import ConfigError

FULL, LORA = "full", "lora"
SHIPPED = "sample-tiny"
LENGTHS = (128, 256, 384)  # of a window, in tokens
# Of the longest answer that is given, in tokens; the first is the default.
ANSWER_LENGTHS = (30, 60, 120, 240)
EPOCHS = 3
LEAST_EXAMPLES, MOST_EXAMPLES = 3_000, 100_000  # of a trial that is not stopped, where the time allows them
FEWEST_EXAMPLES = 500  # with less, a trial says nothing
LEAST_TRIALS, FEWEST_TRIALS, MOST_TRIALS = 8, 4, 40
ETA = 3
LEAST_RUNG = (
    2_000  # examples at which the scores of the pretrained networks that were measured have begun to rise
)
LEAST_SELECTION = (
    50  # questions, with which a rung tells a trial from another: 1 standard error of EM is 7 % at most
)
SPENT_SHARE = (
    0.5  # of the examples of all trials to their ends, where rungs stop some: a guess, between 0.26 and 1
)
TRIAL_SECONDS = 15.0  # of a trial beside training and scoring: start of its worker, data, measurements
USED_SHARE = 0.85  # of the time; the rest is for the start of the sweep and for the last trials
# Scoring the final model at most so much of a trial's time, where the evaluation questions are many.
EVALUATION_SHARE, LEAST_EVALUATION = 0.2, 500

Rates = Mapping[str, tuple[float, float]]  # method -> lowest and highest learning rate


@dataclass(frozen=True)
class Start:
    """A network to start from, and the learning rates to search by method; `name` may be on the hub."""

    family: str
    name: str
    rates: Rates
    is_hub: bool = False
    needs_gpu: bool = False


SMALL = {FULL: (5e-4, 2e-3), LORA: (1e-3, 6e-3)}
# The first of a family that can be loaded here, and that a GPU is there for, is taken.
STARTS: tuple[Start, ...] = (
    Start("bert", "google-bert/bert-base-uncased", {FULL: (2e-5, 1e-4), LORA: (2e-4, 2e-3)}, True, True),
    Start("bert", "sentence-transformers/all-MiniLM-L6-v2", {FULL: (2e-4, 6e-4), LORA: (1e-3, 5e-3)}, True),
    Start("bert", SHIPPED, SMALL),
    Start(
        "distilbert",
        "distilbert/distilbert-base-uncased",
        {FULL: (2e-5, 1e-4), LORA: (2e-4, 2e-3)},
        True,
        True,
    ),
    Start("distilbert", SHIPPED, SMALL),
    Start("t5", "google-t5/t5-small", {FULL: (5e-5, 5e-4), LORA: (2e-4, 2e-3)}, True, True),
    Start("t5", SHIPPED, SMALL),
    Start("mamba", "state-spaces/mamba-130m-hf", {FULL: (2e-5, 2e-4), LORA: (2e-4, 2e-3)}, True, True),
    Start("mamba", SHIPPED, {FULL: (1e-3, 5e-3), LORA: (1e-3, 5e-3)}),
    Start("lstm", "tiny", {FULL: (1e-3, 4e-3)}),
)
# model_type of a configuration of transformers -> family.
FAMILY_OF = {"bert": "bert", "distilbert": "distilbert", "t5": "t5", "mamba": "mamba"}
SMALL_WIDTH = 512  # up to it a pretrained encoder wants the rates of MiniLM


def start_of(name: str, model_type: str, width: int) -> Start:
    """Return a checkpoint that a user named, with the rates of the known one that is most like it.

    Args:
        name: of the hub, or a folder.
        model_type, width: of its configuration.

    Raises:
        ConfigError: no family reads such a network.
    """
    family = FAMILY_OF.get(model_type)
    if family is None:
        raise ConfigError(
            f"--checkpoint {name}: found a network of type {model_type!r}; allowed: {', '.join(FAMILY_OF)}"
        )
    encoders = family in ("bert", "distilbert") and width <= SMALL_WIDTH
    alike = next(
        start
        for start in STARTS
        if start.is_hub and (not start.needs_gpu if encoders else start.family == family)
    )
    return Start(family, name, alike.rates)


@dataclass(frozen=True)
class Costs:
    """Seconds that were timed on this machine, of the mean recipe."""

    example: float  # of training
    question: float  # of scoring
    storing: float  # of one stored form


@dataclass(frozen=True)
class Sizes:
    """Trials, examples of each, the first rung (None: there are no rungs) and how many questions score a model.

    `enough_minutes` is what 4 trials of 3,000 windows take, if the time allows fewer; None if it allows these.
    """

    trials: int
    examples: int
    grace: int | None
    evaluation_questions: int | None  # None: all
    enough_minutes: int | None = None


def window_length(tokens: Sequence[int]) -> int:
    """Return the shortest of `LENGTHS` that holds 95 % of the questions with their contexts, else the longest."""
    need = sorted(tokens)[math.ceil(0.95 * len(tokens)) - 1] + 3  # special tokens
    return next((length for length in LENGTHS if need <= length), LENGTHS[-1])


def answer_length(tokens: Sequence[int]) -> int:
    """Return the shortest of `ANSWER_LENGTHS` holding 95 % of the answers, else the longest; without any, the first."""
    if not tokens:
        return ANSWER_LENGTHS[0]
    need = sorted(tokens)[math.ceil(0.95 * len(tokens)) - 1]
    return next((length for length in ANSWER_LENGTHS if need <= length), ANSWER_LENGTHS[-1])


def windows_of(tokens: Sequence[int], *, max_length: int, stride: int, question_tokens: int) -> float:
    """Return the mean number of windows of a question.

    Args:
        tokens: of each question with its whole context.
        question_tokens: of a question, about.
    """
    step = max(1, max_length - question_tokens - 3 - stride)
    counts = [1 + math.ceil(max(0, count + 3 - max_length) / step) for count in tokens]
    return sum(counts) / len(counts)


@dataclass(frozen=True)
class Work:
    """What each trial has to do beside training, and the time that there is.

    Attributes:
        windows: of the training data.
        selection: questions that score a trial at a rung.
        evaluation: questions that score a finished model.
        forms: in which each is stored.
        minutes: of the sweep.
        concurrent: trials at a time.
        slowdown: seconds of the clock for each second of work, where other work shares the machine.
    """

    windows: int
    selection: int
    evaluation: int
    forms: int
    minutes: float
    concurrent: int
    slowdown: float = 1.0

    @property
    def seconds_per_minute(self) -> float:
        """Seconds of work, of all trials at a time, that a minute of the clock has."""
        return 60 * USED_SHARE * self.concurrent / self.slowdown


def families_that_learn(costs: Mapping[str, Costs], work: Work) -> tuple[list[str], Sizes]:
    """Return the families of which the time allows trials of 3,000 windows, the slowest left out first, and the sizes.

    A trial that learns nothing says nothing of its family. The fastest family is always left.

    Raises:
        ConfigError: as `sizes`, of the fastest family.
    """
    kept = sorted(costs, key=lambda family: costs[family].example)
    while True:
        try:
            found = sizes(mean_of([costs[family] for family in kept]), work)
        except ConfigError:
            if len(kept) == 1:
                raise
        else:
            if found.enough_minutes is None or len(kept) == 1:
                return [family for family in costs if family in kept], found
        kept.pop()


def enough_minutes(costs: Costs, work: Work) -> int:
    """Return in how many minutes 4 trials of 3,000 windows train and are scored."""
    fixed = _seconds_beside_training(costs, work, _most_examples(work))
    whole = FEWEST_TRIALS * (LEAST_EXAMPLES * costs.example + fixed)
    return math.ceil(whole / work.seconds_per_minute)


def mean_of(costs: Sequence[Costs]) -> Costs:
    """Return the costs of the mean recipe."""
    return Costs(
        mean(item.example for item in costs),
        mean(item.question for item in costs),
        mean(item.storing for item in costs),
    )


def sizes(costs: Costs, work: Work) -> Sizes:
    """Return how much a sweep can do in its time.

    A trial gets three passes over the data, 3,000 windows at least. Where that leaves fewer than 8 trials, their
    number falls to 4 first, and then their length.

    Raises:
        ConfigError: the time is too short for 4 trials of 500 windows; names how much is enough.
    """
    most = _most_examples(work)
    seconds = work.minutes * work.seconds_per_minute
    fixed = _seconds_beside_training(costs, work, most)
    least = FEWEST_TRIALS * (FEWEST_EXAMPLES * costs.example + fixed)
    if least > seconds:
        enough = math.ceil(least / work.seconds_per_minute)
        raise ConfigError(
            f"--minutes: found {work.minutes:g}; allowed: {enough} or more, enough for {FEWEST_TRIALS} trials of "
            f"{FEWEST_EXAMPLES} windows on this machine"
        )

    def examples_at(share: float) -> int:
        trials = range(LEAST_TRIALS, FEWEST_TRIALS - 1, -1)
        affordable = [int((seconds / count - fixed) / (costs.example * share)) for count in trials]
        learn = (examples for examples in affordable if examples >= LEAST_EXAMPLES)
        return _rounded(min(most, max(FEWEST_EXAMPLES, next(learn, affordable[-1]))))

    examples, share = examples_at(SPENT_SHARE), SPENT_SHARE
    grace = _first_rung(examples) if work.selection >= LEAST_SELECTION else None
    if grace is None:  # nothing is stopped
        examples, share = examples_at(1.0), 1.0
    trials = int(seconds / (examples * costs.example * share + fixed))
    questions = _scored(costs, most, work.evaluation, work.forms)
    return Sizes(
        max(FEWEST_TRIALS, min(MOST_TRIALS, trials)),
        examples,
        grace,
        questions if questions < work.evaluation else None,
        enough_minutes(costs, work) if examples < LEAST_EXAMPLES else None,
    )


def _most_examples(work: Work) -> int:
    return min(MOST_EXAMPLES, max(LEAST_EXAMPLES, EPOCHS * work.windows))


def _seconds_beside_training(costs: Costs, work: Work, examples: int) -> float:
    """Return the seconds of a trial in which it is scored, stored and measured."""
    questions = _scored(costs, examples, work.evaluation, work.forms)
    scoring = costs.question * (2 * work.selection + work.forms * questions)
    return scoring + costs.storing * work.forms + TRIAL_SECONDS


def _first_rung(examples: int) -> int | None:
    """Return the earliest of examples / 9 and examples / 3 at which scores have begun to rise; None for neither."""
    return next((examples // part for part in (ETA**2, ETA) if examples // part >= LEAST_RUNG), None)


def _scored(costs: Costs, examples: int, evaluation: int, forms: int) -> int:
    """Return how many questions score a model without taking more than a share of its time."""
    affordable = int(EVALUATION_SHARE * examples * costs.example / (max(costs.question, 1e-9) * forms))
    return (
        evaluation if evaluation <= max(LEAST_EVALUATION, affordable) else max(LEAST_EVALUATION, affordable)
    )


def _rounded(count: int) -> int:
    """Return a count of two digits and zeros, not above it."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return count // unit * unit
