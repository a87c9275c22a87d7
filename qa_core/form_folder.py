"""Where the files of a trial's stored forms lie in its folder.

Paths alone. What a form is, says `Form` in `qa_core/config.py`; what it comes to, `FormResult` in `qa_core/schema.py`.
"""

from dataclasses import dataclass
from pathlib import Path

FORMS_FOLDER = "forms"  # in the trial's folder
TWIN_FILE = "twin.json"  # in the forms' folder
ARTIFACT, ANSWERS_FILE, OUTCOME_FILE = "artifact", "answers.parquet", "outcome.json"


@dataclass(frozen=True)
class FormFolder:
    """The folder of one form. Its outcome is written last: where it is, all else is there."""

    path: Path

    @property
    def artifact(self) -> Path:
        """Folder of the model as it ships in this form."""
        return self.path / ARTIFACT

    @property
    def answers(self) -> Path:
        """The answers that its scores are made of."""
        return self.path / ANSWERS_FILE

    @property
    def outcome(self) -> Path:
        """What it came to, as JSON."""
        return self.path / OUTCOME_FILE
