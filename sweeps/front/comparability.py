"""Which trials compare with each other: the terms on which each was measured, and what differs between two.

A front shows trials on equal terms (`front.py`). Before a sweep is resumed, the terms of its next trials are compared
with those of finished trials; a difference is refused before anything is trained. Another commit of the project gives a
note only.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core.config import RunConfig
from qa_core.errors import ConfigError, DataError, counted
from qa_core.values import from_dict, to_dict
from sweeps.run_folder.models import id_of, trials_of
from sweeps.run_folder.records import Record, read_inside, text_at

if TYPE_CHECKING:
    from sweeps.run_folder.journal import Past
    from sweeps.space.space import Space
    from sweeps.spec.objectives import Objective

MIXED = "mixed_nodes"  # in a record's provenance: its user allowed nodes that differ
MIXED_WITH_PAST = (
    "mixed_with_past"  # the same: what differed from the trials that had finished before, in words
)
ALLOWED = "several, which --allow-mixed allowed"  # device and precision where nodes were allowed to differ
FIRST_PROTOCOL = 1  # of records that do not name the version of their measuring protocol
# Fields of a cost that depend on the model of the processor, not on its kind alone.
OF_THE_MACHINE = ("rss_peak_bytes", "latency_p50_ms", "latency_p95_ms")
# Settings of `data` that decide which questions are the evaluation set.
EVALUATION_DATA = (
    "train",
    "evaluation",
    "holdout_share",
    "columns",
    "evaluation_questions",
    "skip_bad_examples",
    "split_seed",
)
RECIPES_DRAWN = 128  # of a space, to see whether its recipes compare with each other
HASH_DIGITS = 12  # shown
TRIALS_SHOWN = 4
LABELS = {
    "evaluation": "evaluation data",
    "budget": "budget in examples",
    "protocol": "version of the measuring protocol",
    "device": "device",
    "precision": "compute precision",
}


@dataclass(frozen=True)
class Terms:
    """On what a trial was, or will be, measured. Trials compare where all of it is equal."""

    evaluation: str  # hash of the evaluation questions
    budget: int  # in `examples_seen`; 0 trains nothing, and compares with every budget
    protocol: int  # version of the measuring protocol
    device: str  # see `device_for`
    precision: str | None  # of the deployed network's computations; None: the record does not say

    def differing(self, other: "Terms") -> tuple[str, ...]:
        """Return the fields in which the two do not compare."""
        return tuple(
            name
            for name in LABELS
            if getattr(self, name) != getattr(other, name)
            and not (name == "budget" and 0 in (self.budget, other.budget))
        )

    def shown(self, name: str) -> str:
        """Return a field's value for a message."""
        value = str(getattr(self, name))
        return value[:HASH_DIGITS] if name == "evaluation" else value.removeprefix("torch.")


@dataclass(frozen=True)
class Group:
    """Finished trials on equal terms, or models of such trials, in the order of their records."""

    terms: Terms
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Machine:
    """One that will run trials."""

    device: str  # as `hardware.describe_device` names it
    computes_in_bfloat16: bool  # under precision "auto"

    def precision(self, setting: str) -> str:
        """Return the compute precision of a recipe's setting, as a cost names it."""
        is_half = setting == "bfloat16" or (setting == "auto" and self.computes_in_bfloat16)
        return f"torch.{'bfloat16' if is_half else 'float32'}"


def depends_on_machine(objectives: Iterable["Objective"]) -> bool:
    """Tell whether an objective depends on the model of the processor, and not on its kind alone."""
    from sweeps.spec.objectives import measure

    return any(measure(objective.name).field in OF_THE_MACHINE for objective in objectives)


def device_for(objectives: Iterable["Objective"], device: str) -> str:
    """Return what of a device decides whether trials compare under these objectives.

    Of a GPU its model, by which libraries choose kernels and their scratch memory; of a CPU its kind alone, unless
    an objective depends on the machine.
    """
    return device if depends_on_machine(objectives) else kind_of(device)


def kind_of(device: str) -> str:
    """Return "cpu" for every CPU, and a GPU's full name."""
    kind, _, _ = device.partition(":")
    return kind if kind == "cpu" else device


def terms_of(record: Record, objectives: Sequence["Objective"]) -> Terms:
    """Return the terms of a finished trial.

    Raises:
        DataError: its record cannot be read, or does not say what it was measured on.
    """
    evaluation, cost = read_inside(record, _evaluation_hash), record.cost or {}
    if evaluation is None or record.device is None:
        what = LABELS["evaluation" if evaluation is None else "device"]
        raise DataError(f"trial {record.trial_id}: its record does not say which {what} it had")
    protocol, precision = cost.get("protocol_version", FIRST_PROTOCOL), cost.get("precision")
    if not isinstance(protocol, int) or not isinstance(precision, str | None):
        raise DataError(
            f"trial {record.trial_id}: its record cannot be read: cost: protocol_version, precision: found "
            f"{protocol!r}, {precision!r}; allowed: a whole number and text"
        )
    return Terms(
        evaluation, record.budget_examples, protocol, device_for(objectives, record.device), precision
    )


def groups(finished: Sequence[Record], objectives: Sequence["Objective"]) -> tuple[Group, ...]:
    """Return the groups of trials that compare, the one of most trials first; of equals the one with the earliest.

    A trial that trains nothing is in each group whose other terms it shares. Where nodes were allowed to differ, device
    and precision decide nothing.

    Args:
        finished: records of finished trials, or of their models (`models_of` in `sweeps/run_folder/models.py`).
        objectives: of the sweep.

    Raises:
        DataError: a record cannot be read, or does not say what it was measured on.
    """
    terms = [terms_of(record, objectives) for record in finished]
    if any(record.provenance.get(MIXED) for record in finished):
        terms = [replace(item, device=ALLOWED, precision=ALLOWED) for item in terms]
    trained = {item for item in terms if item.budget}
    untrained = {item for item in terms if not any(not item.differing(other) for other in trained)}
    found = [
        Group(
            key, tuple(record for record, own in zip(finished, terms, strict=True) if not key.differing(own))
        )
        for key in trained | untrained
    ]
    return tuple(
        sorted(found, key=lambda group: (-len(trials_of(group.records)), *min(map(_order, group.records))))
    )


def left_out_words(group: Group, main: Group) -> str:
    """Return why the models of a group are not compared with those of the main one, and of which trials they are."""
    shown = {id_of(model) for model in main.records}
    trials = trials_of(model for model in group.records if id_of(model) not in shown)
    why = ", ".join(
        f"{LABELS[name]} {group.terms.shown(name)} instead of {main.terms.shown(name)}"
        for name in group.terms.differing(main.terms)
    )
    return f"with {why} ({_listed(trials)})"


def recipes_to_run(space: "Space", past: "Past", trials: int) -> list[RunConfig]:
    """Return what a sweep will run: the trials that have not ended, and where more are to come some of its space."""
    from qa_core.seeding import numpy_generator

    recipes = [from_dict(RunConfig, trial.recipe) for trial in past.trials if trial.record is None]
    if trials > len(past.trials):
        generator = numpy_generator(0, "recipes to run")
        drawn = RECIPES_DRAWN if space.parameters else 1
        recipes += [space.to_run_config(space.sample(generator), seed=0) for _ in range(drawn)]
    return recipes


def check(
    finished: Sequence[Record],
    recipes: Sequence[RunConfig],
    objectives: Sequence["Objective"],
    *,
    machines: Callable[[str], Iterable[Machine]],
    cache_dir: Path,
    allow_mixed: bool,
    note: Callable[[str], None],
) -> tuple[str, ...]:
    """Refuse recipes that would not compare with trials that have finished, or with each other.

    Args:
        finished: trials that are points.
        recipes: to run.
        objectives: of the sweep.
        machines: those that will run a recipe with the given `device`; none: nothing is known of it.
        cache_dir: of the workers, from which the evaluation questions are read.
        allow_mixed: whether they run all the same.
        note: told what is allowed.

    Returns:
        What differs and is allowed, in words.

    Raises:
        ConfigError: names what differs, both values, and how to go on.
        DataError: a record or the evaluation questions cannot be read.
    """
    now = _coming(recipes, objectives, machines=machines, cache_dir=cache_dir, reads_data=bool(finished))
    found = differences(finished, now, objectives)
    if found and not allow_mixed:
        raise ConfigError(
            "trials that do not compare would come onto one front:\n  "
            + "\n  ".join(found)
            + "\n  allowed: what "
            "the trials had that have finished; another sweep in another folder (--out); or --allow-mixed, which runs "
            "all the same and marks the records: the front then shows the largest group that compares"
        )
    for difference in found:
        note(f"warning: --allow-mixed: {difference}")
    return found


def recorded(finished: Sequence[Record]) -> Callable[[str], tuple[Machine, ...]]:
    """Return the machine that trials ran on for one that is not known yet: it then differs in nothing."""
    machines = [
        Machine(str(record.device), (record.cost or {}).get("precision") == "torch.bfloat16")
        for record in finished[:1]
    ]
    return lambda device: tuple(machines)


def _coming(
    recipes: Sequence[RunConfig],
    objectives: Sequence["Objective"],
    *,
    machines: Callable[[str], Iterable[Machine]],
    cache_dir: Path,
    reads_data: bool,
) -> tuple[Terms, ...]:
    """Return the terms on which recipes will be measured: one, where they compare with each other.

    Args:
        reads_data: False: the evaluation questions are read only where recipes name several.
    """
    from qa_core.data.prepare import evaluation_part
    from qa_core.memory import protocol as cost

    keys = [_evaluation_key(recipe) for recipe in recipes]
    hashes = {}
    for key, recipe in dict(zip(keys, recipes, strict=True)).items():
        is_needed = reads_data or len(set(keys)) > 1
        hashes[key] = evaluation_part(recipe, cache_dir=cache_dir)[0].data_hash if is_needed else ""
    looked = {device: tuple(machines(device)) for device in {recipe.device for recipe in recipes}}
    return tuple(
        dict.fromkeys(
            Terms(
                evaluation=hashes[key],
                budget=recipe.train.budget_examples or 0,
                protocol=cost.PROTOCOL_VERSION,
                device=device_for(objectives, machine.device),
                precision=machine.precision(recipe.evaluation.precision),
            )
            for key, recipe in zip(keys, recipes, strict=True)
            for machine in looked[recipe.device]
        )
    )


def _evaluation_key(recipe: RunConfig) -> str:
    """Return what tells recipes with other evaluation questions apart."""
    data = {name: getattr(recipe.data, name) for name in EVALUATION_DATA}
    return json.dumps([data, to_dict(recipe.evaluation)])


def differences(
    finished: Sequence[Record], now: Sequence[Terms], objectives: Sequence["Objective"]
) -> tuple[str, ...]:
    """Return in words how trials on these terms would not compare with each other, or with those of the front.

    Args:
        finished: trials that are points.
        now: terms of those to come.
        objectives: of the sweep.
    """
    first, *others = now or (None,)
    found = [_two("some of the next trials", other, "others", first) for other in others if first]
    for main in groups(finished, objectives)[:1]:
        trials = f"{counted(len(main.records), 'finished trial')} ({_listed([item.trial_id for item in main.records])})"
        allowed = main.terms.device == ALLOWED
        for terms in now:
            same = replace(terms, device=ALLOWED, precision=ALLOWED) if allowed else terms
            found.append(_two("the next trials", same, trials, main.terms))
    return tuple(dict.fromkeys(line for lines in found for line in lines))


def commit_note(finished: Sequence[Record], now: str | None) -> str | None:
    """Return a note where finished trials were run by other commits of the project; None where by this one."""
    commits: dict[str, int] = {}
    for record in finished:
        git = record.provenance.get("git")
        commit = git.get("commit") if isinstance(git, Mapping) else None
        if isinstance(commit, str) and now is not None and commit != now:
            commits[commit] = commits.get(commit, 0) + 1
    if not commits:
        return None
    listed = ", ".join(f"{count} by {commit[:9]}" for commit, count in commits.items())
    return f"the project's commit is now {now and now[:9]}; of the finished trials, {listed}"


def _two(one: str, terms: Terms, other: str, others_terms: Terms) -> list[str]:
    return [
        f"{LABELS[name]}: found {terms.shown(name)} for {one}; {others_terms.shown(name)} for {other}"
        for name in terms.differing(others_terms)
    ]


def _evaluation_hash(record: Record) -> str | None:
    value = (record.data.get("evaluation") or {}).get("data_hash")
    return None if value is None else text_at(value, "data.evaluation.data_hash")


def _order(record: Record) -> tuple[int, str]:
    return len(record.trial_id), record.trial_id


def _listed(trials: Sequence[str]) -> str:
    more = len(trials) - TRIALS_SHOWN
    return ", ".join(trials[:TRIALS_SHOWN]) + (f" and {more} more" if more > 0 else "")
