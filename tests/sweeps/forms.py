"""Records of trials with stored forms, made by hand."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sweeps.run_folder.records import Record, StoredForm

BITS, TABLE_BITS = "methods.quantize.bits", "methods.quantize.embedding_bits"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "float32": {},
    "int8": {BITS: 8},
    "int8+e8": {BITS: 8, TABLE_BITS: 8},
    "nf4": {BITS: 4},
}


def stored(label: str, em: float, memory: float, **changes: Any) -> StoredForm:
    """Return a form that is ok, by its label, with exact match in percent and memory in MB."""
    twin = {} if label == "float32" else {"em_difference_percent": -1.5, "low": -3.25, "high": 0.25}
    values: dict[str, Any] = {
        "label": label,
        "settings": SETTINGS[label],
        "status": "ok",
        "objectives": {"em_percent": em, "memory_mb": memory},
        "quality": {"em_percent": em},
        "cost": {"inference_peak_bytes": round(memory * 1e6), "device": "cpu: some processor"},
        "against_twin": twin or None,
    }
    return StoredForm(**{**values, **changes})


def without(label: str, status: str, reason: str) -> StoredForm:
    """Return a form that was skipped or failed."""
    return StoredForm(label, SETTINGS[label], status, reason)


def with_forms(record: Record, *forms: StoredForm) -> Record:
    """Return a record with forms, each with the name of its folder."""
    trial = f"trials/{record.trial_id}"
    placed = [
        replace(
            form, artifact=f"{trial}/forms/{form.label}/artifact" if form.settings else f"{trial}/artifact"
        )
        if form.status == "ok"
        else form
        for form in forms
    ]
    return replace(record, forms=tuple(placed))
