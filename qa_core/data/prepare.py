"""From a recipe to the data of its trial: the one place where reading, splitting and windowing are put in
order.

Everything follows from the data settings, the family's tokenizer and `data.split_seed`, so that the trials of a
sweep share data and cache; only the demonstrations of a prompted network are drawn by the trial's own seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core.config import CHOOSE, DataConfig, RunConfig
from qa_core.data.columns import MissingSplit
from qa_core.data.demonstrations import draw_demonstrations
from qa_core.data.holdout import Holdout, hold_out
from qa_core.data.layout import WindowLayout
from qa_core.data.mapping import ForeignColumns
from qa_core.data.negatives import add_negatives, keep_unanswerable
from qa_core.data.overlap import overlap
from qa_core.data.selection import split_confirm
from qa_core.data.sources import has_own_dev_split
from qa_core.data.squad import QaTable, load_table, select_questions, split_selection
from qa_core.data.tokenizers import prepare_tokenizer, ready_tokenizer, tokenizer_hash
from qa_core.data.windows import WindowLengths, WindowSet, build_windows, no_windows
from qa_core.families.base import Family, Found

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, eq=False)
class TrialData:
    """What a trial trains and is scored on.

    `family` is that of the recipe with the demonstrations that were drawn, and `found` what its network is built with.
    `facts` are JSON values for the record: for each of `train`, `selection`, `evaluation` and the
    `cross_domain` sources its source, data hash, and counts of questions, paragraphs, unanswerable and skipped
    questions and windows. For `evaluation` they also name the part that is scored, the hash of both parts, and how they
    were held out of the training source, None where they were not. Beside them stand how many unanswerable questions of
    each kind are trained on, and the demonstrations. The windows of an evaluation or cross-domain set are None until
    they are asked for; a prompted network has no training windows.
    """

    family: Family
    found: Found
    tokenizer: "PreTrainedTokenizerFast"
    layout: WindowLayout
    train: WindowSet
    train_table: QaTable
    selection: WindowSet
    selection_table: QaTable
    evaluation_table: QaTable
    lengths: WindowLengths
    cache_dir: Path
    facts: dict[str, Any]
    cross_domain_tables: Mapping[str, QaTable] = field(default_factory=dict)  # by source

    def evaluation(self) -> WindowSet:
        """Return the windows of the evaluation set; only the final evaluation asks for them."""
        windows = self._windows(self.evaluation_table)
        self.facts["evaluation"]["windows"] = len(windows)
        return windows

    def cross_domain(self, source: str) -> WindowSet:
        """Return the windows of a cross-domain set; only the final evaluation asks for them."""
        windows = self._windows(self.cross_domain_tables[source])
        self.facts["cross_domain"][source]["windows"] = len(windows)
        return windows

    def count_windows(self) -> None:
        """Complete `facts` where the final evaluation has been before, in another process."""
        self.evaluation()
        for source in self.cross_domain_tables:
            self.cross_domain(source)

    def _windows(self, table: QaTable) -> WindowSet:
        return build_windows(
            table, self.tokenizer, self.layout, lengths=self.lengths, cache_dir=self.cache_dir
        )


def prepare(
    config: RunConfig,
    family: Family,
    *,
    cache_dir: Path,
    tokenizer: "PreTrainedTokenizerFast | None" = None,
) -> TrialData:
    """Read, split and window the data of a recipe.

    Without evaluation data a part of the training source is held out first. The training source is cut to
    `data.train_questions`, then split into train and selection part by article.
    The train part alone loses unanswerable questions and gains synthetic ones, as the recipe says; from it come
    the demonstrations of a prompted network.

    Args:
        config: the recipe.
        family: says which tokenizer and which layout.
        cache_dir: shared by all trials of the machine.
        tokenizer: to take in place of the recipe's own; None for that.

    Raises:
        ConfigError: the tokenizer cannot be had.
        DataError: a source is missing or malformed.
        StorageError: the cache folder cannot be written to.
    """
    data = config.data
    sources = data_sources(data, cache_dir=cache_dir)
    evaluation_table, whole_hash = _evaluation_part(config, sources.evaluation)
    cross_domain_tables = {
        source: load_other(source, data, cache_dir=cache_dir) for source in data.cross_domain
    }
    source_table = sources.train
    split_table, selection_table = _split(data, source_table)
    # Trained before unanswerable questions go and come: trials that differ in them share one tokenizer.
    tokenizer = prepare_tokenizer(family, split_table, cache_dir) if tokenizer is None else tokenizer
    found = family.prepare(tokenizer, data, cache_dir=cache_dir)
    train_table, mixture = _mixed(split_table, data)
    if family.prompting is not None:
        family = _with_demonstrations(family, train_table, tokenizer, seed=config.seed)
    layout = family.layout(tokenizer)
    lengths = WindowLengths(data.max_length, data.stride, data.max_question_length)

    def windows(table: QaTable) -> WindowSet:
        return build_windows(table, tokenizer, layout, lengths=lengths, cache_dir=cache_dir)

    train = windows(train_table) if family.prompting is None else no_windows()  # nobody trains on them
    selection = windows(selection_table)
    facts = {
        "train": {**_table_facts(train_table), "windows": len(train)},
        "selection": {**_table_facts(selection_table), "windows": len(selection)},
        "evaluation": {
            **_table_facts(evaluation_table),
            "windows": None,
            "part": config.evaluation.part,
            "whole_data_hash": whole_hash,
            "held_out": sources.held_out,
        },
        "cross_domain": {
            source: {
                **_table_facts(table),
                "windows": None,
                **_in_train(table, source_table),
            }
            for source, table in cross_domain_tables.items()
        },
        **mixture,
        "demonstrations": _demonstration_facts(family, layout),
        **{f"evaluation_{name}": count for name, count in _in_train(evaluation_table, source_table).items()},
        "tokenizer_hash": tokenizer_hash(tokenizer),
        "split_seed": data.split_seed,
        "versions": {name: version(name) for name in ("tokenizers", "transformers", "pyarrow")},
        **found.facts,
    }
    return TrialData(
        family,
        found,
        tokenizer,
        layout,
        train,
        train_table,
        selection,
        selection_table,
        evaluation_table,
        lengths,
        cache_dir,
        facts,
        cross_domain_tables,
    )


def evaluation_part(config: RunConfig, *, cache_dir: Path) -> tuple[QaTable, str]:
    """Return the evaluation questions that the recipe is scored on, and the data hash of all of them.

    With an `evaluation.confirm_share` they are those that choose the front, or those that `qa-sweep confirm` takes.

    Raises:
        DataError, StorageError: as for `prepare`.
    """
    data = config.data
    own = _own_evaluation(data, cache_dir)
    if own is None:
        return _evaluation_part(config, data_sources(data, cache_dir=cache_dir).evaluation)
    return _evaluation_part(config, select_questions(own, data.evaluation_questions, seed=data.split_seed))


def _evaluation_part(config: RunConfig, whole: QaTable) -> tuple[QaTable, str]:
    share = config.evaluation.confirm_share
    if share == 0.0:
        return whole, whole.data_hash
    choosing, confirming = split_confirm(whole, share, seed=config.data.split_seed)
    return choosing if config.evaluation.part == CHOOSE else confirming, whole.data_hash


def recipe_tokenizer(config: RunConfig, family: Family, *, cache_dir: Path) -> "PreTrainedTokenizerFast":
    """Return the tokenizer that `prepare` takes, by the same cache; the questions are read only to train one.

    Raises:
        ConfigError, DataError, StorageError: as for `prepare`.
    """
    found = ready_tokenizer(family)
    if found is not None:
        return found
    data = config.data
    has_evaluation = data.evaluation is not None or has_own_dev_split(data.train)
    source = _whole(data, cache_dir) if has_evaluation else data_sources(data, cache_dir=cache_dir).train
    return prepare_tokenizer(family, _split(data, source)[0], cache_dir)


def scored_questions(data: DataConfig, *, cache_dir: Path) -> tuple[int, int]:
    """Return how many questions a trial answers at each rung, and how many at its end, other domains included.

    Raises:
        ConfigError, DataError: as for `prepare`.
    """
    sources = data_sources(data, cache_dir=cache_dir)
    selection = len(_split(data, sources.train)[1])
    others = (load_other(source, data, cache_dir=cache_dir) for source in data.cross_domain)
    return selection, selection + len(sources.evaluation) + sum(map(len, others))


@dataclass(frozen=True, eq=False)
class DataSources:
    """The questions that a recipe may train on and those that it is evaluated on.

    `held_out` says how the second were taken from the training source, in JSON values; None: they were not. `whole` is
    the training source as it was read.
    """

    train: QaTable
    evaluation: QaTable
    whole: QaTable
    held_out: dict[str, Any] | None = None


def data_sources(data: DataConfig, *, cache_dir: Path) -> DataSources:
    """Read the training source and the evaluation questions, held out of it where they come from nowhere else.

    Raises:
        DataError, StorageError: as for `prepare`.
    """
    whole = _whole(data, cache_dir)
    table, held = _own_evaluation(data, cache_dir), None
    if table is None:
        held = hold_out(whole, data.holdout_share, seed=data.split_seed)
        table = held.evaluation
    evaluation = select_questions(table, data.evaluation_questions, seed=data.split_seed)
    if held is None:
        return DataSources(whole, evaluation, whole)
    return DataSources(held.train, evaluation, whole, _holdout_facts(held, data, of_questions=len(whole)))


def _whole(data: DataConfig, cache_dir: Path) -> QaTable:
    return load_table(
        data.train,
        split="train",
        skip_bad_examples=data.skip_bad_examples,
        columns=data.columns,
        cache_dir=cache_dir,
    )


def load_other(source: str, data: DataConfig, *, cache_dir: Path) -> QaTable:
    """Read a source that is not trained on; `data.columns` names its columns where it has one of those.

    Raises:
        DataError, StorageError: as for `load_table`. MissingSplit: a training source without a dev split.
    """
    options: dict[str, Any] = {
        "split": "dev",
        "skip_bad_examples": data.skip_bad_examples,
        "cache_dir": cache_dir,
    }
    if not data.columns:
        return load_table(source, **options)
    try:
        return load_table(source, columns=data.columns, **options)
    except ForeignColumns:
        return load_table(source, **options)


def _own_evaluation(data: DataConfig, cache_dir: Path) -> QaTable | None:
    """Return the evaluation source that is named, or the training source's own dev split; None: it has none."""
    if data.evaluation is not None:
        return load_other(data.evaluation, data, cache_dir=cache_dir)
    has_split = has_own_dev_split(data.train)
    if has_split is False:
        return None
    try:
        return load_other(data.train, data, cache_dir=cache_dir)
    except MissingSplit:
        if has_split:
            raise
        return None


def _holdout_facts(held: Holdout, data: DataConfig, *, of_questions: int) -> dict[str, Any]:
    return {
        "share": data.holdout_share,
        "seed": data.split_seed,
        "unit": held.unit,
        "questions": len(held.evaluation),
        "of_questions": of_questions,
    }


def _split(data: DataConfig, source: QaTable) -> tuple[QaTable, QaTable]:
    """Return the train part and the selection part of those questions of the training source that are used."""
    chosen = select_questions(source, data.train_questions, seed=data.split_seed)
    return split_selection(
        chosen, data.selection_share, seed=data.split_seed, max_questions=data.selection_questions
    )


def _mixed(table: QaTable, data: DataConfig) -> tuple[QaTable, dict[str, Any]]:
    """Return the train part with the unanswerable questions that the recipe wants, and what it has of each kind."""
    own = keep_unanswerable(table, data.unanswerable_share, seed=data.split_seed)
    mixed, synthetic = add_negatives(
        own,
        data.negatives_ratio,
        same_article_share=data.negatives_same_article_share,
        seed=data.split_seed,
    )
    return mixed, {
        "synthetic_unanswerable": sum(synthetic.values()),
        "unanswerable_by_kind": {"real": int(own.is_unanswerable.sum()), **synthetic},
        "unanswerable_left_out": len(table) - len(own),
    }


def _with_demonstrations(
    family: Family, table: QaTable, tokenizer: "PreTrainedTokenizerFast", *, seed: int
) -> Family:
    assert family.prompting is not None
    prompting = replace(family.prompting, demonstrations=())
    layout = family.with_prompting(prompting).layout(tokenizer)
    drawn = draw_demonstrations(table, tokenizer, layout, prompting=prompting, seed=seed)
    return family.with_prompting(replace(prompting, demonstrations=drawn))


def _demonstration_facts(family: Family, layout: WindowLayout) -> dict[str, Any] | None:
    """Return which questions stand before every prompt, and their tokens; None for a network that is trained."""
    if family.prompting is None:
        return None
    shown = family.prompting.demonstrations
    return {"question_ids": [example.question_id for example in shown], "tokens": len(layout.prefix)}


def _table_facts(table: QaTable) -> dict[str, Any]:
    return {
        "source": table.source,
        "data_hash": table.data_hash,
        "questions": len(table),
        "paragraphs": len(table.contexts),
        "unanswerable": int(table.is_unanswerable.sum()),
        "skipped": table.skipped,
        "skipped_answers": table.skipped_answers,
        "layout": table.reading.layout,
        "columns": dict(table.reading.columns),
        "answers_found": dict(table.reading.answers),
    }


def _in_train(table: QaTable, source: QaTable) -> dict[str, int]:
    found = overlap(table, source)
    return {"contexts_in_train": found.paragraphs, "questions_in_train": found.questions}
