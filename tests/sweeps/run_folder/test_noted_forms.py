"""The forms that the notes of a trial name are read as they were written, and refused where they lead elsewhere."""

from typing import Any

import pytest

from qa_core.errors import DataError
from sweeps.run_folder.noted_forms import NotedForm, as_note, noted_forms

INT8 = NotedForm("int8", {"methods.quantize.bits": 8})


def test_noted_forms_are_read_back_and_none_differ_from_no_word_of_them() -> None:
    assert noted_forms({"confirms": "t0", **as_note([INT8, NotedForm("float32", {})])}) == (
        INT8,
        NotedForm("float32", {}),
    )
    assert noted_forms(as_note([])) == ()
    assert noted_forms({"confirms": "t0"}) is None


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ("int8", r"notes.forms: found 'int8'; allowed: a list"),
        ([{"label": "int8"}], r"notes.forms\[0\].settings: missing"),
        ([{"label": "../../x", "settings": {}}], r"notes.forms: label: found '../../x'"),
        ([{"label": ".x", "settings": {}}], r"notes.forms: label: found '.x'"),
        (
            [{"label": "x", "settings": {"bits": 8}}],
            r"notes.forms: settings: found 'bits'; allowed: methods.NAME",
        ),
    ],
)
def test_notes_of_others_are_refused_with_what_was_found(note: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        noted_forms({"forms": note})
