"""The models that trials left, and what each is called: `t0007`, or `t0007 int8+e8` for a stored form.

A trial without stored forms leaves one model, its artifact. A trial with forms leaves one for each form that is ok.
What a front makes of them is in `sweeps/front/points.py`.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from sweeps.run_folder.records import Record, StoredForm


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


def models_of(record: Record) -> tuple[Record, ...]:
    """Return a record once for each model that it stands for: itself, or `as_model` for each form that is ok."""
    if not record.forms:
        return (record,)
    return tuple(as_model(record, form) for form in record.forms if form.status == "ok")


def as_model(record: Record, form: StoredForm) -> Record:
    """Return the record with one form alone, whose scores, costs and artifact stand where the twin's stood."""
    device = (form.cost or {}).get("device")
    return replace(
        record,
        objectives=form.objectives or {},
        quality=form.quality,
        cost=form.cost,
        artifact=form.artifact,
        device=device if isinstance(device, str) else record.device,  # forms may be made later, and elsewhere
        forms=(form,),
    )


def id_of(model: Record) -> ModelId:
    """Return which model a record of `models_of` is."""
    return ModelId(model.trial_id, model.forms[0].label if model.forms else None)


def trials_of(models: Iterable[Record]) -> tuple[str, ...]:
    """Return the trials of several models, each once, in their order."""
    return tuple(dict.fromkeys(model.trial_id for model in models))
