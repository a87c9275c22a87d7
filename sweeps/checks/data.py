"""Checks of a sweep's data before anything is trained: refusals, counts, ceilings and warnings.

`look_at_data` reads every source that a trial could use. It refuses data that cannot be trained on, and evaluation on
training data. Everything else that the user should know is returned as lines, which `validate`, `plan` and `run` print.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core import registry
from qa_core.config import DataConfig, RunConfig
from qa_core.errors import ConfigError, DataError, QaError
from qa_core.values import from_dict, to_dict
from sweeps.budget.earlier_answers import EarlierAnswers
from sweeps.checks import lengths
from sweeps.space.space import Space

if TYPE_CHECKING:
    from qa_core.data.reading import Reading
    from qa_core.data.table import QaTable
    from qa_core.families.base import Family
    from qa_core.scoring.ceiling import Ceiling
    from sweeps.spec.sections import SweepSpec

LEAST_CEILING_PERCENT = 99.0  # of exact match; below it there is a warning
WORTH_NAMING_PERCENT = 0.1  # a share of questions
CHANCE_SHARE = 0.01  # of questions that stand in the training data with an answer, on other paragraphs
# What decides the tokens and the longest answer of a recipe, and the data.
READER_PATHS = (
    "model.family",
    "model.checkpoint",
    "model.head",
    "model.tokenizer",
    "model.vocab_size",
    "data.train",
    "data.evaluation",
    "evaluation.max_answer_tokens",
    "evaluation.max_new_tokens",
)


@dataclass
class DataReport:
    """What was found, in lines for the user.

    Args:
        sources: one line about each source: split, name, questions, what was skipped; others about columns that were
            guessed, answers that were looked for, and questions that are held out.
        overlaps: one line about each source that shares texts with the training data.
        ceilings: one line about each source: the highest exact match with each tokenizer of the space.
        lengths: where they are asked for, one line about each tokenizer: tokens of the training questions and contexts.
        warnings: what makes scores lower or higher than they should be.
    """

    sources: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    ceilings: list[str] = field(default_factory=list)
    lengths: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def sections(self) -> dict[str, list[str]]:
        """Return all lines but the warnings, by title."""
        return {
            "data": self.sources,
            "also in the training data": self.overlaps,
            "tokens of a question with its context, by tokenizer": self.lengths,
            "highest exact match that can be reached, by tokenizer": self.ceilings,
        }


@dataclass(frozen=True)
class _Source:
    role: str  # train or dev
    name: str
    table: "QaTable"
    whole_hash: str = ""  # of all questions of a training source, of which a part may be held out
    held_out: Mapping[str, Any] | None = None  # how, of questions that come out of the training source


def look_at_data(
    spec: "SweepSpec", space: Space, *, cache_dir: Path, counts_tokens: bool = False
) -> DataReport:
    """Read and check every data source of a sweep.

    Args:
        space: of the spec; says which tokenizers and longest answers its recipes have.
        counts_tokens: tell the lengths too.
        cache_dir: where tables, trained tokenizers and ceilings are kept; trials take them from there.

    Raises:
        ConfigError: one source is trained on and scored on.
        DataError: a source is missing or malformed, or too small to be split.
        StorageError: the cache folder cannot be written to.
    """
    report = DataReport()
    seen: dict[tuple[str, str], _Source] = {}
    for data in data_settings(spec):
        train, *others = _read(spec, data, seen, cache_dir)
        _check_splits(spec, data, train.table, others[0].table)
        for position, other in enumerate(others):
            if other.held_out is None:
                _refuse_one_source(spec, train, other, "cross_domain" if position else "evaluation")
            _add_overlap(report, train, other)
    report.sources = [line for source in seen.values() for line in _described(source)]
    _add_ceilings(report, space, list(seen.values()), cache_dir, counts_tokens)
    return report


def report_of(spec: "SweepSpec", space: Space, *, cache_dir: Path, earlier: EarlierAnswers) -> DataReport:
    """Return what `look_at_data` found in an earlier call where the sources are unchanged, else what it finds.

    Raises:
        ConfigError, DataError, StorageError: as `look_at_data`.
    """
    recipes = [to_dict(config) for config in reader_configs(space)]
    parts = [{name: recipe[name] for name in ("model", "data", "evaluation")} for recipe in recipes]
    settings = [to_dict(data) for data in data_settings(spec)]
    share = (spec.recipe.get("evaluation") or {}).get("confirm_share")
    found = earlier.answer(
        ["data report", parts, settings, share],
        lambda: asdict(look_at_data(spec, space, cache_dir=cache_dir)),
        is_lasting=lambda found: not any("not known" in line for line in found["ceilings"]),
    )
    return DataReport(**found)


def data_settings(spec: "SweepSpec") -> Iterator[DataConfig]:
    """Yield the data settings of the recipe, with each searched source once."""
    shared = dict(spec.recipe.get("data") or {})
    searched = {entry.path: entry.choice for entry in spec.space if entry.choice}
    for train in searched.get("data.train") or [shared.get("train")]:
        for evaluation in searched.get("data.evaluation") or [shared.get("evaluation")]:
            named = {"train": train, "evaluation": evaluation}
            given = {name: value for name, value in named.items() if value is not None}
            yield from_dict(DataConfig, {**shared, **given}, path="recipe.data")


def _read(
    spec: "SweepSpec", data: DataConfig, seen: dict[tuple[str, str], _Source], cache_dir: Path
) -> list[_Source]:
    """Return the training source, then those that are scored on; each is read once."""
    from qa_core.data.prepare import data_sources, load_other

    sources = data_sources(data, cache_dir=cache_dir)
    train = _Source("train", data.train, sources.train, sources.whole.data_hash)
    name = data.evaluation or data.train
    evaluation = _Source("dev", name, sources.evaluation, held_out=sources.held_out)
    seen.setdefault(("train", data.train), train)
    seen.setdefault(("dev" if sources.held_out is None else "held out", name), evaluation)
    for other in data.cross_domain:
        if ("dev", other) not in seen:
            seen["dev", other] = _Source("dev", other, load_other(other, data, cache_dir=cache_dir))
    return [train, evaluation, *(seen["dev", other] for other in data.cross_domain)]


def _check_splits(spec: "SweepSpec", data: DataConfig, train: "QaTable", evaluation: "QaTable") -> None:
    """Split as every trial will, so that data too small for it end here; raises DataError."""
    from qa_core.data.selection import select_questions, split_confirm, split_selection

    seed = data.split_seed
    chosen = select_questions(train, data.train_questions, seed=seed)
    split_selection(chosen, data.selection_share, seed=seed, max_questions=data.selection_questions)
    share = (spec.recipe.get("evaluation") or {}).get("confirm_share")
    if share:
        split_confirm(select_questions(evaluation, data.evaluation_questions, seed=seed), share, seed=seed)


def _refuse_one_source(spec: "SweepSpec", train: _Source, other: _Source, setting: str) -> None:
    if other.table.data_hash not in (train.table.data_hash, train.whole_hash):
        return
    same = "the same source" if train.name == other.name else f"the same questions as {train.name!r}"
    raise ConfigError(
        f"{spec.where('recipe', 'data', setting)}: data.{setting}: found {other.name!r}, {same}, on which data.train "
        "trains; allowed: questions that no model was trained on"
    )


def _add_overlap(report: DataReport, train: _Source, other: _Source) -> None:
    """Put the texts that both sources have into the report, with a warning where they are more than chance."""
    from qa_core.data.overlap import overlap, repeated

    found = overlap(other.table, train.table)
    answered = repeated(other.table, train.table) if found.questions else 0
    name = "held-out part" if other.held_out else other.name
    line = (
        f"{name}: {found.paragraphs} of its {found.of_paragraphs} paragraphs and {found.questions} of its "
        f"{found.of_questions} questions stand in {train.name} too, which is trained on; {answered} with the same "
        "answer"
    )
    if line not in report.overlaps and (found.paragraphs or found.questions):
        report.overlaps.append(line)
        if found.paragraphs or answered > CHANCE_SHARE * found.of_questions:
            report.warnings.append(f"{line}; a score on it says less about text that a model has not seen")


def _described(source: _Source) -> Iterator[str]:
    table, held = source.table, source.held_out
    if held is not None:
        yield (
            f"dev: {len(table)} of the {held['of_questions']} questions of {source.name}, held out by "
            f"whole {held['unit']}s (data.holdout_share {held['share']:g}, data.split_seed {held['seed']}): none is "
            "trained on"
        )
        return
    counts = {"skipped": table.skipped, "malformed answers of others left out": table.skipped_answers}
    more = "".join(f", {count} {what}" for what, count in counts.items() if count)
    yield f"{source.role}: {source.name}: {len(table)} questions{more}"
    yield from (f"{source.role}: {source.name}: {line}" for line in remarks(table.reading))


def remarks(reading: "Reading") -> Iterator[str]:
    """Yield what was guessed about a source and what was left out of it, a line each."""
    if reading.guessed:
        named = ", ".join(f"{field} from the column {reading.columns[field]!r}" for field in reading.guessed)
        yield f"guessed: {named} (data.columns names others)"
    if reading.is_numbered:
        yield "there is no column of ids: questions are numbered from 0"
    if found := found_answers(reading):
        yield f"answers without places were looked for in their contexts: {found}"
    yield from (f"left out: {line}" for line in reading.malformed)


def found_answers(reading: "Reading") -> str:
    """Return in words how answers given as text alone were found, "" where there are none."""
    from qa_core.data.placing import ABSENT, AMBIGUOUS

    first = {AMBIGUOUS: f"{AMBIGUOUS}, of which the first was taken", ABSENT: ABSENT}
    return ", ".join(f"{count} {first.get(how, how)}" for how, count in reading.answers.items() if count)


def _add_ceilings(
    report: DataReport, space: Space, sources: Sequence[_Source], cache_dir: Path, counts_tokens: bool
) -> None:
    """Find the ceiling of each source under each reader, and put lines and warnings into the report."""
    readers: dict[tuple[str, str], _Reader] = {}
    tokenizers = _Tokenizers(cache_dir)
    for config in reader_configs(space):
        reader = _Reader.of(config, tokenizers)
        known = readers.setdefault((reader.label, reader.key), reader)
        known.families.setdefault(config.model.family)
        known.max_length = config.data.max_length
    for source in sources:
        words = []
        for reader in readers.values():
            if reader.failure is not None:
                continue
            ceiling = reader.ceiling(source.table, cache_dir)
            drawn = "" if ceiling.questions == ceiling.of_questions else f" of {ceiling.questions} drawn"
            words.append(f"{reader.named} {ceiling.em_percent:.1f}{drawn}")
            report.warnings += _ceiling_warnings(source, reader, ceiling)
        if words:
            report.ceilings.append(f"{source.role}: {source.name}: {', '.join(words)}")
    if counts_tokens:
        trained = next(source.table for source in sources if source.role == "train")
        for reader in readers.values():
            if reader.failure is None:
                counts = lengths.in_tokens(trained, reader.tokenizer)
                line = lengths.in_words(counts, over=reader.max_length, setting="data.max_length")
                report.lengths.append(f"{reader.named}: {line}")
    failed = dict.fromkeys(
        f"{reader.label}: not known: {reader.failure}" for reader in readers.values() if reader.failure
    )
    report.ceilings += failed


def reader_configs(space: Space) -> Iterator[RunConfig]:
    """Yield one recipe for each combination of `READER_PATHS` that is legal; of ranges, both ends."""
    seen = set()
    paths = {item.id: item.path for item in space.parameters}
    for combination in space.legal:
        for assignment in _assignments(space, combination, {}, 0):
            key = tuple(
                (paths[name], repr(value))
                for name, value in assignment.items()
                if paths[name] in READER_PATHS
            )
            if key not in seen:
                seen.add(key)
                yield space.to_run_config(assignment, seed=0)


def _assignments(
    space: Space, combination: Any, assignment: dict[str, Any], index: int
) -> Iterator[dict[str, Any]]:
    if index == len(space.parameters):
        yield dict(assignment)
        return
    parameter = space.parameters[index]
    if not parameter.is_active(assignment):
        yield from _assignments(space, combination, assignment, index + 1)
        return
    if parameter.id in combination:
        values: tuple[Any, ...] = (combination[parameter.id],)
    else:
        values = parameter.domain.extremes()
        values = values if parameter.path in READER_PATHS else values[:1]
    for value in values:
        yield from _assignments(space, combination, {**assignment, parameter.id: value}, index + 1)


class _Tokenizers:
    """The recipes' tokenizers, each loaded or trained once; a hub that does not answer is asked once."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._found: dict[tuple[Any, ...], Any] = {}

    def of(self, config: RunConfig, family: "Family") -> Any:
        """Return the tokenizer, or the error that says why there is none."""
        from qa_core.data.prepare import recipe_tokenizer

        model = config.model
        key = (
            (family.tokenizer_kind, model.vocab_size, config.data.train)
            if _is_trained(config, family)
            else (family.place_of(model.tokenizer or model.checkpoint),)
        )
        if key not in self._found:
            try:
                self._found[key] = recipe_tokenizer(config, family, cache_dir=self._cache_dir)
            except (ConfigError, DataError) as error:
                self._found[key] = error
        return self._found[key]


def _is_trained(config: RunConfig, family: "Family") -> bool:
    """Tell whether the recipe's tokenizer is trained on its data."""
    return config.model.tokenizer is None and family.is_preset


@dataclass
class _Reader:
    """A tokenizer, the layout of its windows and the longest answer: all that decides a ceiling."""

    label: str
    key: str
    limit: int
    limit_setting: str
    is_trained: bool  # on the data
    tokenizer: Any = None
    layout: Any = None
    failure: str | None = None
    families: dict[str, None] = field(default_factory=dict)
    max_length: int = 0

    @classmethod
    def of(cls, config: RunConfig, tokenizers: _Tokenizers) -> "_Reader":
        from qa_core.data.tokenizers import tokenizer_hash

        model, family = config.model, registry.make_family(config)
        generates = family.head == "generate"
        name = "max_new_tokens" if generates else "max_answer_tokens"
        limit = getattr(config.evaluation, name)
        is_trained = _is_trained(config, family)
        label = (
            f"{family.tokenizer_kind} of {model.vocab_size}"
            if is_trained
            else model.tokenizer or model.checkpoint
        )
        label += ", writing" if generates else ""
        found = tokenizers.of(config, family)
        try:
            if isinstance(found, QaError):
                raise found
            layout = family.layout(found)
        except (ConfigError, DataError) as error:
            why = str(error).splitlines()[0]
            return cls(label, why, limit, f"evaluation.{name}", is_trained, failure=why)
        key = f"{tokenizer_hash(found)} {generates} {limit}"
        return cls(label, key, limit, f"evaluation.{name}", is_trained, found, layout)

    @property
    def named(self) -> str:
        return f"{self.label} ({', '.join(self.families)})"

    def ceiling(self, table: "QaTable", cache_dir: Path) -> "Ceiling":
        from qa_core.scoring.ceiling import find_ceiling

        return find_ceiling(table, self.tokenizer, self.layout, limit=self.limit, cache_dir=cache_dir)


def _ceiling_warnings(source: _Source, reader: _Reader, ceiling: "Ceiling") -> list[str]:
    if ceiling.em_percent >= LEAST_CEILING_PERCENT:
        return []
    reasons = []
    if ceiling.not_cut_percent >= WORTH_NAMING_PERCENT:
        other = (
            "model.vocab_size, or another tokenizer in model.tokenizer"
            if reader.is_trained
            else "model.tokenizer"
        )
        reasons.append(
            f"{ceiling.not_cut_percent:.1f} % of the questions have no answer that its tokens give back (see {other})"
        )
    if ceiling.too_long_percent >= WORTH_NAMING_PERCENT:
        reasons.append(
            f"{ceiling.too_long_percent:.1f} % only answers longer than {reader.limit_setting} = {ceiling.limit} tokens"
        )
    return [
        f"{source.role}: {source.name}: exact match cannot pass {ceiling.em_percent:.1f} with {reader.named}: "
        f"{'; '.join(reasons)}"
    ]
