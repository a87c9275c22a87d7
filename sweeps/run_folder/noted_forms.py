"""The stored forms that a trial makes instead of those that its sweep lists, as its notes in the journal say.

A trial of a sweep that confirms makes the forms of the front that it repeats (`sweeps/front/confirm.py`), and skips
none of them because a smaller one is as good. Other trials have no such note.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qa_core.errors import ConfigError, DataError
from qa_core.values import convert
from sweeps.run_folder.records import FORM_LABEL

FORMS_NOTE = "forms"
SETTING_PARTS = 3  # methods.NAME.OPTION


@dataclass(frozen=True)
class NotedForm:
    """One form: its label and settings, as those of `StoredForm`."""

    label: str
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check what a worker makes a folder and a recipe of."""
        if not FORM_LABEL.fullmatch(self.label):
            raise DataError(f"label: found {self.label!r}; allowed: the name of a form's folder")
        for path in self.settings:
            if len(path.split(".")) != SETTING_PARTS:
                raise DataError(f"settings: found {path!r}; allowed: methods.NAME.OPTION")


def as_note(forms: Sequence[NotedForm]) -> dict[str, Any]:
    """Return forms as an entry of a trial's notes."""
    return {FORMS_NOTE: [{"label": form.label, "settings": dict(form.settings)} for form in forms]}


def noted_forms(notes: Mapping[str, Any]) -> tuple[NotedForm, ...] | None:
    """Return the forms that the notes of a trial name; None where they say nothing of forms.

    Raises:
        DataError: they cannot be read.
    """
    if FORMS_NOTE not in notes:
        return None
    try:
        return tuple(convert(list[NotedForm], notes[FORMS_NOTE], f"notes.{FORMS_NOTE}", strict=True))
    except (ConfigError, DataError) as error:
        reason = str(error)
        place = "" if reason.startswith("notes.") else f"notes.{FORMS_NOTE}: "
        raise DataError(f"{place}{reason}") from error
