"""Errors that a user can act on, and the wording they share.

Every message names the file, line, field or setting, what was found and what is allowed. The command line turns a
`QaError` into exit code 2; inside a trial it becomes the trial's recorded reason. Not for programming mistakes: those
are `assert`s.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class QaError(Exception):
    """Base of every error that the user's input or machine causes."""


class ConfigError(QaError):
    """A setting is unknown, of the wrong type or out of range."""


class IllegalCombination(ConfigError):
    """A family cannot carry a method, or two methods exclude each other."""


class DataError(QaError):
    """A data file is missing, malformed or inconsistent."""


class ArtifactError(QaError):
    """An artifact is incomplete, altered or of an unknown format."""


class CheckpointError(QaError):
    """A checkpoint cannot be restored into this trial."""


class PrerequisiteFailed(QaError):
    """A recipe that must be trained before another one could not be; the message says which and why."""


class NonFiniteLoss(QaError):
    """Training produced NaN or infinity; the trial ends as failed."""


class OverMemoryBudget(QaError):
    """The recipe's deployed form needs more memory than the budget allows; it is not trained."""


class StorageError(QaError):
    """A file or folder cannot be written: no space, no permission, or it exists already."""


class MissingDependency(QaError):
    """An optional package is needed; the message names the extra that installs it."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest allowed name, or "" when none is close."""
    matches = get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Word the refusal of an unknown name: what was found, the nearest name, what is allowed."""
    names = sorted(allowed)
    return f"unknown {kind} {name!r}{nearest(name, names)} (allowed: {', '.join(names) or 'none'})"


class Paused(Exception):
    """A trial was asked to pause, which is no fault. It resumes from its checkpoint."""


def counted(count: int, noun: str) -> str:
    """Return "1 trial" or "2 trials": a count with its noun, whose plural ends in s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
