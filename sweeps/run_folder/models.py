"""The models that trials left.

A trial without stored forms leaves one model, its artifact. A trial with forms leaves one for each form that is ok.
What each is called is in `model_id.py`, what a front makes of them in `sweeps/front/points.py`.
"""

from collections.abc import Iterable
from dataclasses import replace

from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.records import Record, StoredForm


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
