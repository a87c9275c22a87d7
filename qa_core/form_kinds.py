"""What is known of a stored form at a rung: its kind, and what it will need. Of its quality nothing is.

A rung scores the network as its recipe stores it, once. What a form will answer is not known there; but two trainings
that are as good at a rung lose alike when they are rounded alike. So forms of different trainings are compared only
within one kind: number formats of matrices and tables, and what they are computed in. Layout and merging keep the
values and make no kind. A form whose values are those that the rung scores (of `qlora`, or of `quantize` as a method)
is never of one kind with a form that is rounded after training. The comparison is in `sweeps/schedulers/forms.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qa_core.methods.base import Method
from qa_core.schema import FormAtRung

if TYPE_CHECKING:
    from qa_core.memory.forms import FormMemory

UNROUNDED = "float32"
AS_SCORED = "scored at rungs: "  # before the values' word in a kind


def kind_of(stored: Sequence[Method], trained: Sequence[Method]) -> str:
    """Return the kind of a form.

    Args:
        stored: the methods of the form's recipe, in their order.
        trained: those of the recipe that is trained, whose stored form a rung scores.
    """
    values = _values(stored)
    return AS_SCORED + values if values == _values(trained) else values


def form_at_rung(label: str | None, kind: str, memory: "FormMemory") -> FormAtRung:
    """Return a form as reports name it; `label` is None for what a recipe without forms is stored as."""
    assert memory.artifact_bytes is not None, "it is planned of a whole recipe"
    return FormAtRung(
        label=label,
        kind=kind,
        memory_mb=memory.measured_bytes / 1e6,
        memory_batch8_mb=memory.measured_batch8_bytes / 1e6,
        inference_peak_bytes=memory.measured_bytes,
        weights_bytes=memory.weights_bytes,
        artifact_bytes=memory.artifact_bytes,
    )


def _values(methods: Sequence[Method]) -> str:
    return "+".join(word for method in methods if (word := method.rounding) is not None) or UNROUNDED
