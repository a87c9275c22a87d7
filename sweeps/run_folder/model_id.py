"""What a model of a sweep is called: `t0007`, or `t0007 int8+e8` for a stored form of a trial.

Which models a trial left is in `models.py`.
"""

from typing import NamedTuple


class ModelId(NamedTuple):
    """Which model of a sweep is meant.

    Attributes:
        trial_id: of its trial.
        form: label of the stored form; None where the trial has none, for its own artifact.
    """

    trial_id: str
    form: str | None = None

    def __str__(self) -> str:
        """Return it as it is shown; nothing reads this back."""
        return self.trial_id if self.form is None else f"{self.trial_id} {self.form}"

    @property
    def order(self) -> tuple[str, str]:
        """By what models are sorted; None is no text."""
        return self.trial_id, self.form or ""
