"""Parquet files that are refused: damaged bytes, other columns, and every column with what it cannot hold."""

import io
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from tests.malformed.cases import CONTEXT, OUT, Case, files

SWEEP = ("run", "--config", "tiny.yaml", "--data", "bad.parquet", "--eval-data", "good.json", "--out", OUT)
ANSWERS = {"text": ["Mara Voss"], "answer_start": [29]}
ROW: dict[str, Any] = {
    "id": "q0",
    "title": "Mills",
    "context": CONTEXT,
    "question": "Who built it?",
    "answers": ANSWERS,
}


def table_bytes(**columns: Any) -> bytes:
    """Return a Parquet file of one valid row with these columns put in place of its own; None takes one away."""
    values = {name: [value] for name, value in ROW.items()} | columns
    kept = {name: value for name, value in values.items() if value is not None}
    buffer = io.BytesIO()
    parquet.write_table(pa.table(kept), buffer)
    return buffer.getvalue()


GOOD = table_bytes()
NOT_UTF8 = GOOD.replace(b"Who built", b"Who \xffuilt")
BROKEN_INSIDE = GOOD[:4] + b"\xff" * 200 + GOOD[204:]
# name, content, what the refusal says beside the file
BAD: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("an empty file", b"", ("allowed: a complete Parquet file",)),
    ("text", b"id,context\n", ("allowed: a complete Parquet file",)),
    ("a JSON file", b'{"data": []}' * 9, ("allowed: a complete Parquet file",)),
    ("its magic alone", b"PAR1PAR1", ("allowed: a complete Parquet file",)),
    ("cut in the middle", GOOD[: len(GOOD) // 2], ("allowed: a complete Parquet file",)),
    ("cut by a byte", GOOD[:-1], ("allowed: a complete Parquet file",)),
    ("a footer of wrong length", GOOD[:-8] + b"\xff\xff\xff\x7fPAR1", ("allowed: a complete Parquet file",)),
    ("a footer of zeros", GOOD[:-300] + bytes(292) + GOOD[-8:], ("allowed: a complete Parquet file",)),
    ("damaged pages", BROKEN_INSIDE, ("allowed: a complete Parquet file",)),
    ("text that is not UTF-8", NOT_UTF8, ("utf-8", "allowed: a complete Parquet file")),
    ("a column's name that is not UTF-8", GOOD.replace(b"question", b"qu\xffstion"), ("utf-8",)),
    ("no context column", table_bytes(context=None), ("missing: context",)),
    ("no question column", table_bytes(question=None), ("missing: question",)),
    ("no answers column", table_bytes(answers=None), ("missing: answer ", "--columns answer=")),
    ("flat answers", table_bytes(answers=None, text=[["a"]]), ("missing: answer ",)),
    ("no rows", table_bytes(**{name: pa.array([], pa.string()) for name in ROW}), ("found no questions",)),
    ("a null id", table_bytes(id=pa.array([None], pa.string())), ("row 0.id", "found nothing")),
    ("an id that is a fraction", table_bytes(id=[0.5]), ("row 0.id", "found 0.5")),
    ("an id of bytes", table_bytes(id=[b"q0"]), ("row 0.id", "found b'q0'")),
    ("an id of bytes that are not UTF-8", table_bytes(id=[b"\xff\xfe"]), ("row 0.id",)),
    ("a title that is a number", table_bytes(title=[7]), ("row 0.title", "found 7", "question 'q0'")),
    ("a null context", table_bytes(context=pa.array([None], pa.string())), ("row 0.context",)),
    ("a context of numbers", table_bytes(context=[1871]), ("row 0.context", "found 1871")),
    ("a context that is a list", table_bytes(context=[[CONTEXT]]), ("row 0.context",)),
    ("a blank question", table_bytes(question=["  "]), ("row 0.question", "not blank")),
    ("a null question", table_bytes(question=pa.array([None], pa.string())), ("row 0.question",)),
    (
        "answers that are text of elsewhere",
        table_bytes(answers=["Mara Foss"]),
        ("row 0.answers[0]", "'Mara Foss'"),
    ),
    ("answers that are numbers", table_bytes(answers=[1871]), ("row 0.answers", "found 1871", "two lists")),
    (
        "null answers",
        table_bytes(answers=pa.array([None], pa.struct([("text", pa.string())]))),
        ("row 0.answers", "found nothing"),
    ),
    (
        "answers without places",
        table_bytes(answers=[{"text": ["Mara Voss"]}]),
        ("row 0.answers", "text and answer_start"),
    ),
    (
        "answers of other length",
        table_bytes(answers=[{"text": ["Mara Voss"], "answer_start": [29, 29]}]),
        ("row 0.answers", "equal length"),
    ),
    (
        "places that are text",
        table_bytes(answers=[{"text": ["Mara Voss"], "answer_start": ["29"]}]),
        ("row 0.answers[0].answer_start", "found '29'"),
    ),
    (
        "places that are fractions",
        table_bytes(answers=[{"text": ["Mara Voss"], "answer_start": [29.0]}]),
        ("row 0.answers[0].answer_start", "found 29.0"),
    ),
    (
        "null places",
        table_bytes(answers=[{"text": ["Mara Voss"], "answer_start": [None]}]),
        ("row 0.answers[0].answer_start",),
    ),
    (
        "a place behind the end",
        table_bytes(answers=[{"text": ["Mara Voss"], "answer_start": [2**40]}]),
        ("row 0.answers[0].answer_start", "it occurs at 29"),
    ),
    (
        "a text that does not match",
        table_bytes(answers=[{"text": ["Mara Foss"], "answer_start": [29]}]),
        ("row 0.answers[0]", "does not occur"),
    ),
    (
        "one id twice",
        table_bytes(**{name: [value, value] for name, value in ROW.items()}),
        ("row 1.id", "it stands at row 0 already"),
    ),
]
CASES = [
    Case(f"parquet: {name}", SWEEP, files(bad_parquet=content), ("bad.parquet", *says))
    for name, content, says in BAD
]
