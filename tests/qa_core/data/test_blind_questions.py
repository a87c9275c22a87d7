"""Questions without gold answers: from a file of JSON lines, or a text such as the standard input."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from qa_core.data.squad import load_questions, read_questions
from qa_core.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"id": "b", "question": "Who?", "context": "Ada wrote it."},
    {"id": "c", "question": "When?", "context": "In 1843.", "answers": "of another kind"},
    {"id": 12, "question": "Where?", "context": "Ada wrote it."},
]


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def asked(table: Any) -> list[tuple[str, str, str]]:
    return [(item.question_id, item.question, item.context) for item in table.examples()]


def test_nothing_of_an_answer_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n" + lines(ROWS))
    expected = [("b", "Who?", "Ada wrote it."), ("c", "When?", "In 1843."), ("12", "Where?", "Ada wrote it.")]
    assert asked(load_questions(str(path))) == expected
    packed = tmp_path / "q.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert asked(load_questions(str(packed))) == expected


def test_a_text_is_read_as_the_file_of_the_same_content(tmp_path: Path, small_squad: Path) -> None:
    path = tmp_path / "q.ndjson"
    path.write_bytes(lines(ROWS))
    assert asked(read_questions(path.read_bytes(), "text")) == asked(load_questions(str(path)))
    document = small_squad.read_bytes()
    assert asked(read_questions(document, "text")) == asked(load_questions(str(small_squad)))


def test_one_line_is_a_question_and_no_document() -> None:
    assert asked(read_questions(lines(ROWS[:1]), "text")) == [("b", "Who?", "Ada wrote it.")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"[1]", r"line 2: found \[1\]; allowed: "),
        (b"{", "line 2, column 2: .*; allowed: one JSON object on each line"),
        (
            b'{"id": "z", "question": "a"}',
            r"line 2\.context.*: found nothing; allowed: text that is not blank",
        ),
        (b'{"id": "b", "question": "a", "context": "a"}', r"line 2\.id.*'b'.*it stands at line 1 already"),
        (b'{"id": [], "question": "a", "context": "a"}', r"line 2\.id: found \[\]"),
    ],
)
def test_a_bad_line_is_named_or_left_out_and_counted(line: bytes, words: str, tmp_path: Path) -> None:
    content = lines(ROWS[:1]) + line + b"\n" + lines(ROWS[2:])
    path = tmp_path / "q.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"q\\.jsonl: {words}"):
        load_questions(str(path))
    with pytest.raises(DataError, match=f"text: {words}"):
        read_questions(content, "text")
    for table in (
        load_questions(str(path), skip_bad_examples=True),
        read_questions(content, "text", skip_bad_examples=True),
    ):
        assert ([item[0] for item in asked(table)], table.skipped) == (["b", "12"], 1)


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(DataError, match="text: found an empty file"):
        read_questions(b"  \n\n", "text")


def test_malformed_questions_of_a_document_are_left_out_too(tmp_path: Path, small_squad: Path) -> None:
    document = json.loads(small_squad.read_text())
    document["data"][0]["paragraphs"][0]["qas"][0]["question"] = ""
    path = tmp_path / "q.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"qas\[0\]\.question"):
        load_questions(str(path))
    table = load_questions(str(path), skip_bad_examples=True)
    assert (len(table), table.skipped) == (59, 1)
