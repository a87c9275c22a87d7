"""`records.jsonl`: one JSON line for each trial that ended, the source of truth of a sweep.

Lines are only ever appended. Stored forms that are made after a trial's record was written stand in `forms.jsonl`, and
`load` adds them to the record. Everything else (tables, plots, the tracking server) is derived from them. What
a front makes of records is in `sweeps/front/front.py`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from qa_core import files
from qa_core.errors import ConfigError, DataError, unknown
from qa_core.schema import as_json
from qa_core.values import from_dict
from sweeps.run_folder import json_lines
from sweeps.run_folder.layout import MORE_FORMS_FILE

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, SCHEMA_VERSION)  # 1: without `forms`
FIRST_PROTOCOL_VERSION = (
    1  # of `qa_core/memory/protocol.py`, in records that do not name it: memory with eight windows
)
STATUSES = ("ok", "stopped", "failed", "oom")
FORM_STATUSES = ("ok", "skipped", "failed")
TRIAL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # the name of its folder too
FORM_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # the name of its folder too
Value = TypeVar("Value")


@dataclass(frozen=True)
class StoredForm:
    """One stored form of a trained network: how it was made, and what it came to.

    The twin is the network as its recipe stores it. It is a form only where the sweep lists it.
    """

    label: (
        str  # unique within the trial, and the name of its folder: "float32", "int8", "int8+e8", "nf4+packed"
    )
    settings: Mapping[
        str, Any
    ]  # dotted path -> value, where the form differs from the recipe; {} for the twin
    status: str  # ok, skipped, failed
    reason: str | None = None  # None only for ok
    objectives: Mapping[str, float] | None = None  # as `Record.objectives`
    quality: Mapping[str, Any] | None = None  # as `Record.quality`
    cost: Mapping[str, Any] | None = None  # as `Record.cost`
    # `TwinDifference` of `qa_core/schema.py`; None for the twin
    against_twin: Mapping[str, Any] | None = None
    artifact: str | None = None  # folder, relative to the run's folder; the twin's is the trial's own

    def __post_init__(self) -> None:
        """Check what every reader relies on."""
        if not FORM_LABEL.fullmatch(self.label):
            raise DataError(
                f"label: found {self.label!r}; allowed: letters, digits, '_', '.', '+' and '-', no sign at the start"
            )
        if self.status not in FORM_STATUSES:
            raise DataError(f"form {self.label}: {unknown('status', str(self.status), FORM_STATUSES)}")
        if self.status == "ok" and self.objectives is None:
            raise DataError(f"form {self.label}: status 'ok' needs objectives")
        if self.status != "ok" and not self.reason:
            raise DataError(f"form {self.label}: status {self.status!r} needs a reason")


@dataclass(frozen=True)
class Record:
    """How one trial ended. None means: not reached, for the reason in `reason`.

    Where the sweep lists forms, objectives, quality, cost and artifact are those of the unquantised twin, and the
    points of the trial are its forms.
    """

    trial_id: str
    status: str  # ok: the whole budget was spent and the artifact measured; stopped, failed, oom
    reason: str | None  # None only when the status is ok
    seed: int
    assignment: Mapping[str, Any]  # parameter id -> value
    config: Mapping[str, Any]  # the whole recipe, defaults filled in
    examples_seen: int
    budget_examples: int
    curve: Sequence[Mapping[str, Any]]  # the reports at rungs, in order
    device: str | None
    started_at: str  # ISO 8601, UTC
    finished_at: str
    seconds: float
    traceback: str | None = None
    objectives: Mapping[str, float] | None = None  # final values by name
    quality: Mapping[str, Any] | None = None
    cost: Mapping[str, Any] | None = None
    cross_domain: Mapping[str, Any] = field(
        default_factory=dict
    )  # source -> data hash and quality; decides nothing
    data: Mapping[str, Any] = field(default_factory=dict)  # hashes, sources, counts
    prerequisites: Mapping[str, Any] = field(
        default_factory=dict
    )  # method -> its teacher: recipe, quality, cost
    artifact: str | None = None  # folder, relative to the run's folder
    notes: Mapping[str, Any] = field(
        default_factory=dict
    )  # the searcher's, given back to it when it is rebuilt
    starts: int = 1  # times that a worker took the trial up: more than 1 when it went on from a checkpoint
    provenance: Mapping[str, Any] = field(default_factory=dict)
    forms: Sequence[StoredForm] = ()  # from the smallest up; none where the sweep lists none
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Check what every reader relies on."""
        if not TRIAL_ID.fullmatch(self.trial_id):
            raise DataError(
                f"trial_id: found {self.trial_id!r}; allowed: letters, digits, '_', '.' and '-', no '.' at the start"
            )
        if self.status not in STATUSES:
            raise DataError(f"record {self.trial_id}: {unknown('status', str(self.status), STATUSES)}")
        if self.status == "ok" and (self.objectives is None or self.examples_seen < self.budget_examples):
            raise DataError(
                f"record {self.trial_id}: status 'ok' needs objectives and the whole budget, found "
                f"objectives={self.objectives}, examples_seen={self.examples_seen} of {self.budget_examples}"
            )
        if self.status != "ok" and not self.reason:
            raise DataError(f"record {self.trial_id}: status {self.status!r} needs a reason")
        labels = [form.label for form in self.forms]
        if len(set(labels)) != len(labels):
            raise DataError(f"record {self.trial_id}: forms: found {labels}; allowed: each label once")


def protocol_version(record: Record) -> int:
    """Return the version of the protocol that a record's costs were measured by; 1 where it names none."""
    return int((record.cost or {}).get("protocol_version", FIRST_PROTOCOL_VERSION))


def to_dict(record: Record) -> dict[str, Any]:
    """Return the record as plain JSON values."""
    return as_json(record)


def append(path: Path, record: Record) -> None:
    """Append one record and force it to the disk; a line torn by an earlier crash is cut off first.

    Raises:
        DataError: a value is not finite or not JSON.
        StorageError: the file cannot be written.
    """
    json_lines.append(path, to_dict(record), what=f"record {record.trial_id}")


@dataclass(frozen=True)
class Loaded:
    """The records of a file, in order, and what was odd about it."""

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def load(path: Path) -> Loaded:
    """Read all records. A last line without its end, torn by a crash, is left out with a note.

    Raises:
        DataError: the file is missing, or a line is malformed or of an unknown schema version.
    """
    found, notes = json_lines.read(path)
    loaded = Loaded(tuple(_record(values, place) for place, values in found), notes)
    more = path.with_name(MORE_FORMS_FILE)
    return _with_more_forms(loaded, more) if files.is_there(more) else loaded


def append_forms(path: Path, trial_id: str, forms: Sequence[StoredForm]) -> None:
    """Add stored forms to the trial of a record, whose own line stays as it is.

    Args:
        path: `RunFolder.more_forms`. A form with the settings of an earlier one takes its place.

    Raises:
        as `append`.
    """
    values = {"trial_id": trial_id, "forms": as_json(list(forms)), "schema_version": SCHEMA_VERSION}
    json_lines.append(path, values, what=f"forms of {trial_id}")


def _with_more_forms(loaded: Loaded, path: Path) -> Loaded:
    found, notes = json_lines.read(path)
    by_id = {record.trial_id: record for record in loaded.records}
    for place, values in found:
        _check_version(values, place)
        try:
            more = from_dict(_MoreForms, values, strict=True)
            if more.trial_id not in by_id:
                raise DataError(f"trial_id: found {more.trial_id!r}; allowed: a trial with a record")
            record = by_id[more.trial_id]
            changed = [dict(form.settings) for form in more.forms]
            kept = [form for form in record.forms if dict(form.settings) not in changed]
            by_id[more.trial_id] = replace(record, forms=(*kept, *more.forms))
        except (ConfigError, DataError) as error:
            raise DataError(f"{place}: {error}") from error
    return Loaded(tuple(by_id[record.trial_id] for record in loaded.records), (*loaded.notes, *notes))


@dataclass(frozen=True)
class _MoreForms:
    """A line of `forms.jsonl`."""

    trial_id: str
    forms: Sequence[StoredForm]
    schema_version: int


def read_inside(record: Record, read: Callable[[Record], Value]) -> Value:
    """Return what a reader makes of a record, whose inner parts may hold anything.

    Raises:
        DataError: the reader cannot; names the trial.
    """
    try:
        return read(record)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"trial {record.trial_id}: its record cannot be read: {problem}") from error


def text_at(value: Any, name: str) -> str:
    """Return a value that is text; raises TypeError with the name of its place, for `read_inside`."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: found {value!r}; allowed: text")
    return value


def _record(values: Mapping[str, Any], place: str) -> Record:
    _check_version(values, place)
    try:
        return from_dict(Record, values, strict=True)
    except (ConfigError, DataError) as error:
        raise DataError(f"{place}: {error}") from error


def _check_version(values: Mapping[str, Any], place: str) -> None:
    version = values.get("schema_version")
    if version not in READABLE_VERSIONS or isinstance(version, bool):
        readable = " and ".join(map(str, READABLE_VERSIONS))
        raise DataError(f"{place}: schema_version: found {version!r}; this version reads {readable}")
