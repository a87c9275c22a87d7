"""A table of trainings with stored forms, as a table in which each form is a recipe that is trained for itself.

For the rows of the search benchmark that know no forms. The tables are paired: all recipes of one training share its
curve, so that none wins by luck. What a recipe's own rungs would have scored was not recorded: exact match there is the
training's, times the share that its form keeps at the end. Its memory there is what was planned of the form. A trial
takes the whole training and the scoring of its own form.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from sweeps.replay.curves import Curve, CurveTable, RecordedForm
from sweeps.replay.recorded import structure
from sweeps.schedulers.pareto_asha import GAIN
from sweeps.space.compile import compile_space
from sweeps.space.domains import Choice
from sweeps.space.space import Parameter, Space
from sweeps.spec.objectives import is_cost

FORM_ID = "form"  # the parameter that is added to the space
AS_TRAINED = "as trained"  # its value where a recipe has no forms


@dataclass(frozen=True)
class OneFormEach(CurveTable):
    """The table; its space has the form as one more setting, legal where it was recorded."""

    @cached_property
    def space(self) -> Space:
        """The space of the trainings, and their form."""
        base = compile_space(self.spec)
        recorded = {(structure(base, item.assignment), item.assignment[FORM_ID]) for item in self.curves}
        labels = list(dict.fromkeys(curve.assignment[FORM_ID] for curve in self.curves))
        legal = [
            {**combination, FORM_ID: label}
            for combination in base.legal
            for label in labels
            if (structure(base, combination), label) in recorded
        ]
        return Space(
            (*base.parameters, Parameter(FORM_ID, FORM_ID, Choice(tuple(labels)))),
            recipe=base.recipe,
            budget_examples=base.budget_examples,
            legal=legal,
            structural=(*base.structural, FORM_ID),
            dropped=base.dropped,
        )


def one_form_each(table: CurveTable) -> OneFormEach:
    """Return the table of recipes, those of one training side by side. What was not made has no recipe."""
    curves = [
        _of_form(curve, form)
        for curve in table.curves
        for form in curve.forms or (RecordedForm(None, final=curve.final),)
        if form.final is not None
    ]
    return OneFormEach(table.spec, tuple(curves), table.left_out, table.provenance)


def _of_form(curve: Curve, form: RecordedForm) -> Curve:
    assert form.final is not None
    label = AS_TRAINED if form.label is None else form.label
    values = {
        name: tuple(
            form.costs.get(name, form.final[name]) if is_cost(name) else value * _kept(curve, form, name)
            for value in seen
        )
        for name, seen in curve.rung_values.items()
    }
    extras = dict(curve.extras)
    if GAIN in extras and "em_percent" in values:
        lost = [a - b for a, b in zip(curve.rung_values["em_percent"], values["em_percent"], strict=True)]
        extras[GAIN] = tuple(
            None if gain is None else gain - loss for gain, loss in zip(extras[GAIN], lost, strict=True)
        )
    scoring = form.seconds or curve.seconds - curve.train_seconds[-1]
    return replace(
        curve,
        trial_id=f"{curve.trial_id} {label}",
        assignment={**curve.assignment, FORM_ID: label},
        rung_values=values,
        final=form.final,
        seconds=curve.train_seconds[-1] + scoring,
        extras=extras,
        forms=(),
    )


def _kept(curve: Curve, form: RecordedForm, name: str) -> float:
    """Return the share of the training's final quality that the form keeps."""
    assert form.final is not None
    return form.final[name] / curve.final[name] if curve.final[name] > 0 else 1.0
