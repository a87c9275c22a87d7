"""`new`: a commented YAML file for the user's data, memory and time on this machine.

What can be known is looked at (data, checkpoints, predicted memory), a few steps of each family are timed, and the rest
is arithmetic (`sweeps/budget/starting.py`). The file is read back and checked before it is written.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from qa_core import files
from qa_core.config import DataConfig
from qa_core.data.cache import default_cache_dir
from qa_core.data.sources import path_of, suffix_of
from qa_core.errors import ConfigError, QaError, StorageError
from sweeps.budget.hours import cells_of
from sweeps.budget.memory import MemoryForecast
from sweeps.budget.starting import (
    ANSWER_LENGTHS,
    ETA,
    FULL,
    LEAST_EXAMPLES,
    LENGTHS,
    LORA,
    SHIPPED,
    STARTS,
    Costs,
    Sizes,
    Start,
    Work,
    answer_length,
    enough_minutes,
    families_that_learn,
    mean_of,
    start_of,
    window_length,
    windows_of,
)
from sweeps.checks.readiness import check_hub
from sweeps.commands.plan import concurrent_here, hours_in_words, hours_of, silence_libraries
from sweeps.progress.shell_command import shell_command
from sweeps.space.compile import compile_space
from sweeps.space.forms import forms_of
from sweeps.spec.load import spec_of

if TYPE_CHECKING:
    from qa_core.calibration import Timing
    from qa_core.config import RunConfig
    from sweeps.budget.hours import Cell
    from sweeps.spec.sections import SweepSpec

SECONDS_PER_START = 5.0  # of training steps, to time one
BUSY = 1.3  # seconds of the clock for one of work; below it a machine counts as free
LEAST_WORK_SECONDS = 1.0  # with less, chance decides how long the clock runs
QUESTION_TOKENS = 64  # the longest question that is read
FORMS: Mapping[str, Any] = {"quantize": {"bits": [32, 8, 4], "embedding_bits": [32, 8]}}
COMMENT_COLUMNS, TERMINAL_COLUMNS = 118, 78  # of lines that are broken
PLACEHOLDER = Sizes(LENGTHS[0], LENGTHS[0], None, None)  # until the costs are known


@dataclass(frozen=True)
class Wanted:
    """What the user has: data, and limits.

    Args:
        data, evaluation: sources, as for `run --data`; evaluation None: the dev split, or a part held out.
        columns: field -> column of those with unusual names.
        max_memory_mb: for one window, in 10^6 bytes; None: no limit.
        minutes: that the sweep may take.
        checkpoints: names of the hub, or folders, to start from; none: those that are known and can be loaded here.
    """

    data: str
    evaluation: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    max_memory_mb: float | None = None
    minutes: float = 60.0
    checkpoints: Sequence[str] = ()


@dataclass(frozen=True)
class Found:
    """What was found of the data."""

    questions: int  # to train on, those of the rungs left out
    selection: int
    evaluation: int
    max_length: int
    stride: int
    windows: int
    answer_tokens: int = ANSWER_LENGTHS[0]  # the longest answer that is given


@dataclass(frozen=True)
class Plan:
    """What the file says, with what its comments tell."""

    wanted: Wanted
    found: Found
    starts: Sequence[Start]
    sizes: Sizes
    on_gpu: bool
    memory: Mapping[str, str] = field(default_factory=dict)  # family -> predicted MB, in words
    left_out: Sequence[str] = ()


def new(wanted: Wanted, out: Path, *, force: bool = False) -> int:
    """Write the file and say what is in it and what to type next.

    Raises:
        DataError: the data are refused.
        ConfigError: a limit is refused, or nothing fits it; the message names what is enough.
        StorageError: the file exists and `force` is not given, or it cannot be written.
    """
    if files.is_there(out) and not force:
        raise StorageError(f"{out}: exists already; choose another file with --out or give --force")
    for name, value in (("--minutes", wanted.minutes), ("--max-memory-mb", wanted.max_memory_mb)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name}: found {value:g}; allowed: a number above 0")
    silence_libraries()
    on_gpu = _has_gpu()
    starts, left_out = (
        (named_starts(wanted.checkpoints), []) if wanted.checkpoints else loadable(on_gpu=on_gpu)
    )
    found = look(wanted, starts[0])
    starts, memory, too_large = _fitting(Plan(wanted, found, starts, PLACEHOLDER, on_gpu))
    draft = Plan(wanted, found, starts, PLACEHOLDER, on_gpu, memory, [*left_out, *too_large])
    spec, timings, slowdown = _timed(draft)
    costs = {
        family: Costs(
            item.train_seconds_per_example, item.evaluation_seconds_per_question, item.storing_seconds
        )
        for family, item in timings.items()
    }
    work = Work(
        windows=found.windows,
        selection=found.selection,
        evaluation=found.evaluation,
        forms=max(len(forms_of(recipe, FORMS)) for recipe in _first_recipes(spec).values()),
        minutes=wanted.minutes,
        concurrent=concurrent_here(spec),
        slowdown=slowdown,
    )
    families, found_sizes = families_that_learn(costs, work)
    slow = [start for start in starts if start.family in costs and start.family not in families]
    plan = Plan(
        wanted,
        found,
        [start for start in starts if start not in slow],
        found_sizes,
        on_gpu,
        {family: need for family, need in memory.items() if family not in {start.family for start in slow}},
        [*draft.left_out, *_slow(slow, costs, work), *_few(found_sizes), *_shared(work)],
    )
    hours = _hours(plan, timings)
    text = as_yaml(plan, hours)
    files.make_folder(out.parent)
    files.write_text(out, text)
    print(f"{out}: {found_sizes.trials} trials of at most {found_sizes.examples} windows")
    for line in (*hours, *plan.left_out):
        print("\n".join(f"  {part}" for part in _broken(line, TERMINAL_COLUMNS)))
    print("next:")
    print(f"  {shell_command('qa-sweep', 'plan', '--config', out)}")
    print(f"  {shell_command('qa-sweep', 'run', '--config', out)}")
    return 0


def _few(found: Sizes) -> list[str]:
    """Return a line where trials are so short that they may learn little."""
    if found.enough_minutes is None:
        return []
    return [
        f"{found.examples} windows may teach a network little; --minutes {found.enough_minutes} allows {LEAST_EXAMPLES}"
    ]


def _slow(slow: Sequence[Start], costs: Mapping[str, Costs], work: Work) -> list[str]:
    """Return a line on the families that are left out for the time, and in how many minutes they can learn."""
    if not slow:
        return []
    names = ", ".join(f"{start.family} {start.name}" for start in slow)
    return [
        f"{names}: {'is' if len(slow) == 1 else 'are'} left out, since trials in {work.minutes:g} minutes would be too "
        f"short to learn; --minutes {enough_minutes(mean_of(list(costs.values())), work)} has all families"
    ]


def _shared(work: Work) -> list[str]:
    """Return a line where other work slows this machine down, for which the sizes allow."""
    if work.slowdown == 1.0:
        return []
    return [
        f"other work slows this machine down: a second of work took {work.slowdown:.1f} s; sizes allow for it"
    ]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def loadable(*, on_gpu: bool) -> tuple[list[Start], list[str]]:
    """Return a network for each family, and lines on those of the hub that cannot be loaded here.

    Where the hub does not answer for one name, it is not asked for the others.
    """
    chosen: dict[str, Start] = {}
    lines: list[str] = []
    is_silent = False
    for start in STARTS:
        if start.family in chosen or (start.needs_gpu and not on_gpu):
            continue
        if start.is_hub:
            try:
                if is_silent:
                    raise ConfigError("the hub does not answer")
                check_hub("hub", start.name)
            except ConfigError as error:
                is_silent = is_silent or "does not answer" in str(error)
                lines.append(f"{start.name}: cannot be loaded here; {start.family} starts from {SHIPPED}")
                continue
        chosen[start.family] = start
    if lines and not any(start.is_hub for start in chosen.values()):
        lines.append(
            "the networks of this package have read invented passages alone: other text teaches them little in a "
            "short sweep; --checkpoint NAME, a folder too, starts from a network of yours"
        )
    return list(chosen.values()), lines


def named_starts(names: Sequence[str]) -> list[Start]:
    """Return the networks that the user named, one of each family.

    Raises:
        ConfigError: one cannot be read, is of no family, or two are of one.
    """
    from transformers import AutoConfig

    chosen: dict[str, Start] = {}
    for name in names:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            check_hub("--checkpoint", name)
        try:
            config = AutoConfig.from_pretrained(
                str(folder) if folder.is_dir() else name, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"--checkpoint {name}: found no configuration that can be read ({type(error).__name__}); allowed: "
                "a name of the hub, or a folder with config.json"
            ) from error
        start = start_of(name, config.model_type, getattr(config, "hidden_size", None) or config.d_model)
        if start.family in chosen:
            raise ConfigError(
                f"--checkpoint {name}: found a second network of family {start.family}; allowed: one of each family"
            )
        chosen[start.family] = start
    return list(chosen.values())


def look(wanted: Wanted, start: Start) -> Found:
    """Read the data as a trial would, and count with a network's tokenizer; raises DataError."""
    from qa_core import registry
    from qa_core.config import ModelConfig, RunConfig
    from qa_core.data.prepare import data_sources, recipe_tokenizer
    from qa_core.data.selection import split_selection
    from sweeps.checks.lengths import answers_in_tokens, in_tokens

    cache_dir = files.check_writable(default_cache_dir())
    data = DataConfig(train=wanted.data, evaluation=wanted.evaluation, columns=dict(wanted.columns))
    sources = data_sources(data, cache_dir=cache_dir)
    train, selection = split_selection(
        sources.train, data.selection_share, seed=data.split_seed, max_questions=data.selection_questions
    )
    config = RunConfig(model=ModelConfig(start.family, start.name), data=data)
    tokenizer = recipe_tokenizer(config, registry.make_family(config), cache_dir=cache_dir)
    tokens = in_tokens(train, tokenizer).tolist()
    length = window_length(tokens)
    stride = length // 4
    each = windows_of(tokens, max_length=length, stride=stride, question_tokens=QUESTION_TOKENS // 4)
    return Found(
        len(train),
        len(selection),
        len(sources.evaluation),
        length,
        stride,
        round(each * len(train)),
        answer_length(answers_in_tokens(train, tokenizer)),
    )


def _fitting(plan: Plan) -> tuple[list[Start], dict[str, str], list[str]]:
    """Return the networks of which some stored form fits the memory, their needs, and lines on the others."""
    spec = spec_of(_settings(plan, max_memory_mb=None))
    limit = plan.wanted.max_memory_mb
    forecast = MemoryForecast.of(spec)
    needs: dict[str, list[float]] = {}
    for recipe in _first_recipes(spec).values():
        stored = [forecast.predict(form) for form in forecast.stored(recipe)]
        needs.setdefault(recipe.model.family, []).extend(value for value in stored if value is not None)
    kept, memory, lines = [], {}, []
    for start in plan.starts:
        found = needs.get(start.family, [])
        if limit is not None and found and min(found) > limit:
            lines.append(f"{start.family} {start.name}: needs {min(found):.1f} MB or more, and is left out")
            continue
        kept.append(start)
        memory[start.family] = f"{min(found):.1f} to {max(found):.1f} MB" if found else "not predicted"
    if not kept:
        least = min(value for found in needs.values() for value in found)
        raise ConfigError(
            f"--max-memory-mb: found {limit:g}; allowed: {least:.2f} or more, the smallest predicted need"
        )
    return kept, memory, lines


def _timed(plan: Plan) -> "tuple[SweepSpec, dict[str, Timing], float]":
    """Time a few steps of each family, fully fine-tuned; raises ConfigError where none can be timed.

    Returns:
        The sweep, the times by family, and how many seconds of the clock one of work takes (1 on a GPU, whose times
        are of the clock).
    """
    import torch

    from qa_core.calibration import timed_recipe

    spec = spec_of(_settings(plan))
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(spec.resources.cpus_per_trial)))
    timings: dict[str, Timing] = {}
    failed: list[str] = []
    clock, work = time.perf_counter(), time.process_time()
    try:
        for cell, recipe in _first_recipes(spec).items():
            if cell.methods != FULL:
                continue
            print(f"timing {cell.family} {cell.checkpoint}", file=sys.stderr, flush=True)
            try:
                timings[recipe.model.family] = timed_recipe(
                    recipe, cache_dir=default_cache_dir(), limit_seconds=SECONDS_PER_START
                )
            except (QaError, RuntimeError, ValueError) as error:  # of libraries too: one family lacks a time
                failed.append(f"{cell.family}: {str(error).splitlines()[0]}")
    finally:
        torch.set_num_threads(threads)
    if not timings:
        raise ConfigError(f"no family can be trained here: {'; '.join(failed)}")
    slowdown = slowdown_of(time.perf_counter() - clock, time.process_time() - work)
    return spec, timings, 1.0 if plan.on_gpu else slowdown


def slowdown_of(clock_seconds: float, work_seconds: float) -> float:
    """Return how many seconds of the clock one of work takes; 1 for a machine without much other work, or unknown."""
    if work_seconds < LEAST_WORK_SECONDS:
        return 1.0
    found = clock_seconds / work_seconds
    return found if found > BUSY else 1.0


def _first_recipes(spec: "SweepSpec") -> "dict[Cell, RunConfig]":
    from qa_core.seeding import numpy_generator

    cells = cells_of(compile_space(spec), numpy_generator(spec.seed, "new"))
    return {cell: recipes[0] for cell, recipes in cells.items()}


def _hours(plan: Plan, timings: "Mapping[str, Timing]") -> list[str]:
    """Return in lines how long the sweep takes, as `plan --calibrate` does; methods count as full fine-tuning."""
    from sweeps.schedulers.base import make_scheduler

    spec = spec_of(_settings(plan))
    scheduler = make_scheduler(spec.scheduler.name, spec.scheduler.options)
    rungs = len(scheduler.rungs(spec.budget.examples))
    questions = plan.sizes.evaluation_questions or plan.found.evaluation
    hours: dict[Cell, float] = {}
    for cell, recipe in _first_recipes(spec).items():
        timing = timings.get(recipe.model.family)
        if timing is None:
            continue
        times = max(1, len(forms_of(recipe, spec.forms)))
        seconds = timing.train_seconds_per_example * spec.budget.examples
        seconds += timing.evaluation_seconds_per_question * (rungs * plan.found.selection + times * questions)
        hours[cell] = (seconds + timing.storing_seconds * times) / 3600
    return hours_in_words(spec, hours_of(spec, compile_space(spec), scheduler, hours))


def _settings(plan: Plan, **budget: Any) -> dict[str, Any]:
    """Return what the file says, as values; `budget` replaces settings of that section."""
    from sweeps.spec.source import values_of

    values = values_of(as_yaml(plan, []), "my.yaml")
    values["budget"] = {**values["budget"], **budget}
    return values


def as_yaml(plan: Plan, hours: Sequence[str]) -> str:
    """Return the text of the file."""
    return "\n".join([*_head(plan, hours), *_budget(plan), *_recipe(plan), *_space(plan)]) + "\n"


def _head(plan: Plan, hours: Sequence[str]) -> Iterator[str]:
    found = plan.found
    yield f"# Written for {_one_line(plan.wanted.data)}: {found.questions} questions to train on,"
    yield f"# {found.selection} to score rungs, {found.evaluation} to score models; about {found.windows} windows."
    yield from (f"# {line}" for line in hours)
    for line in plan.left_out:
        yield from (f"# {part}" for part in _broken(line, COMMENT_COLUMNS))
    yield f"# What a setting means: {shell_command('qa-sweep', 'settings', 'PREFIX')}"
    yield f"# What this file does: {shell_command('qa-sweep', 'plan', '--config', 'FILE')}"
    name = "".join(
        letter if letter.isalnum() or letter in "_.-" else "-" for letter in _stem(plan.wanted.data)
    )
    yield f"name: {json.dumps(name.strip('-._') or 'sweep')}"
    yield "seed: 1"
    yield "objectives:"
    yield '  - {name: em_percent, goal: max, unit: "%"}'
    yield "  - {name: memory_mb, goal: min, unit: MB}  # of one question at a time"


def _budget(plan: Plan) -> Iterator[str]:
    found_sizes, limit = plan.sizes, plan.wanted.max_memory_mb
    yield "searcher: {name: optuna}"
    if found_sizes.grace is None:
        yield "# No trial is stopped at a rung: with so few questions or windows a score there would say little."
        yield "scheduler: {name: fifo}"
    else:
        yield "# The first rung is where scores begin to rise; an earlier one would stop trials by noise and memory."
        yield f"scheduler: {{name: pareto_asha, options: {{grace_examples: {found_sizes.grace}, eta: {ETA}}}}}"
    yield "budget:"
    yield f"  trials: {found_sizes.trials}"
    yield f"  examples: {found_sizes.examples}  # windows that a trial trains on, unless it is stopped"
    yield f"  time_minutes: {plan.wanted.minutes:g}  # then it ends, and can be resumed"
    if limit is None:
        yield "  # max_memory_mb: 20  # refuses recipes that need more for one question"
    else:
        yield f"  max_memory_mb: {limit:g}"
    if plan.on_gpu:
        yield "resources: {gpus_per_trial: auto}"


def _recipe(plan: Plan) -> Iterator[str]:
    found, wanted = plan.found, plan.wanted
    yield "recipe:"
    yield "  data:"
    yield f"    train: {_text(wanted.data)}"
    if wanted.evaluation is not None:
        yield f"    evaluation: {_text(wanted.evaluation)}"
    if wanted.columns:
        yield f"    columns: {json.dumps(dict(wanted.columns), ensure_ascii=False)}"
    if plan.sizes.evaluation_questions is not None:
        yield f"    evaluation_questions: {plan.sizes.evaluation_questions}  # drawn by seed; without this line all"
    yield f"    max_length: {found.max_length}  # tokens of a window: what 95 % of the questions need, 384 at most"
    yield f"    stride: {found.stride}"
    precision = "auto" if plan.on_gpu else "float32"
    yield f"  train: {{batch_size: 16, warmup_share: 0.1, precision: {precision}}}"
    if found.answer_tokens == ANSWER_LENGTHS[0]:
        yield f"  evaluation: {{precision: {precision}}}"
    else:
        yield "  # The longest answer that a model may give, in tokens: what 95 % of the answers need, 240 at most."
        yield f"  evaluation: {{precision: {precision}, max_answer_tokens: {found.answer_tokens}}}"
    yield "# Each trained network is stored in these forms too; each is loaded back, scored and measured."
    yield "forms:"
    yield from (f"  {method}: {json.dumps(options)}" for method, options in FORMS.items())


def _space(plan: Plan) -> Iterator[str]:
    yield "space:"
    if plan.memory:
        yield "  # Predicted memory, from the smallest of the forms above to the largest:"
    yield from (f"  #   {family}: {need}" for family, need in plan.memory.items())
    yield f"  - {{set: model.family, choice: [{', '.join(start.family for start in plan.starts)}]}}"
    if any(start.name == SHIPPED for start in plan.starts):
        yield f"  # {SHIPPED}: a small pretrained network of this package, for where no hub is reached."
    for start in plan.starts:
        yield f"  - {{set: model.checkpoint, value: {_text(start.name)}, when: {{model.family: {start.family}}}}}"
    has_adapters = any(LORA in start.rates for start in plan.starts)
    if has_adapters:
        yield "  # Combinations that cannot work, such as LoRA on a BiLSTM, are dropped."
    yield f"  - {{set: methods, choice: [{f'{FULL}, {LORA}' if has_adapters else FULL}]}}"
    yield "  # Adapters want higher rates than the networks that they adapt; small networks higher ones than large."
    for method in (FULL, LORA):
        for (low, high), families in _by_rates(plan.starts, method).items():
            when = f"{{methods: {method}, model.family: [{', '.join(families)}]}}"
            yield f"  - {{set: train.learning_rate, log_uniform: [{_rate(low)}, {_rate(high)}], when: {when}}}"
    if has_adapters:
        yield f"  - {{set: methods.lora.rank, choice: [4, 8, 16, 32], when: {{methods: {LORA}}}}}"


def _by_rates(starts: Sequence[Start], method: str) -> dict[tuple[float, float], list[str]]:
    """Return the families that share a range of learning rates."""
    shared: dict[tuple[float, float], list[str]] = {}
    for start in starts:
        if method in start.rates:
            shared.setdefault(start.rates[method], []).append(start.family)
    return shared


def _rate(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-")


def _stem(source: str) -> str:
    """Return the last part of a source's name, without the suffix by which it is read."""
    name = Path(path_of(source)).name
    return name.removesuffix(name[len(name) - len(suffix_of(name)) :])


def _text(value: str) -> str:
    """Return a text as YAML reads it back: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def _broken(text: str, columns: int) -> list[str]:
    """Return a text in lines; names stay whole."""
    return wrap(text, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())
