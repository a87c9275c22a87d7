"""One reader: what training reads, scoring reads with the same golds, and both refuse the same golds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from qa_core.data.squad import load_questions, load_table
from qa_core.data.table import QaTable
from qa_core.errors import DataError
from qa_core.scoring.scores import score_file

CONTEXT = "The Oder flows 840 km to the sea."
KM = {"text": "840 km", "answer_start": 15}
NOTHING = {"text": "", "answer_start": -1}
GOOD = {
    "an id that is a number": ({"id": 7, "answers": [KM]}, {"7": ["840 km"]}),
    "no answers beside is_impossible": ({"id": "a", "is_impossible": True}, {"a": []}),
    "an empty answer beside is_impossible": (
        {"id": "a", "is_impossible": True, "answers": [NOTHING]},
        {"a": []},
    ),
    "no answer and is_impossible false": ({"id": "a", "is_impossible": False, "answers": []}, {"a": []}),
    "two lists": ({"id": "a", "answers": {"text": ["840 km"], "answer_start": [15]}}, {"a": ["840 km"]}),
    "two empty lists": ({"id": "a", "answers": {"text": [], "answer_start": []}}, {"a": []}),
    "two lists that say nothing": (
        {"id": "a", "is_impossible": True, "answers": {"text": [""], "answer_start": [-1]}},
        {"a": []},
    ),
    "several answers": (
        {"id": "a", "answers": [KM, {"text": "the sea", "answer_start": 25}]},
        {"a": ["840 km", "the sea"]},
    ),
}
BAD = {
    "no id": ({"answers": [KM]}, "id"),
    "an id that is true": ({"id": True, "answers": [KM]}, "id"),
    "an id that is blank": ({"id": " ", "answers": [KM]}, "id"),
    "no answers": ({"id": "a"}, "answers"),
    "is_impossible with an answer": ({"id": "a", "is_impossible": True, "answers": [KM]}, "answers"),
    "is_impossible that is a word": ({"id": "a", "is_impossible": "yes", "answers": []}, "is_impossible"),
    "answers that are text": ({"id": "a", "answers": "840 km"}, "answers"),
    "lists of two lengths": ({"id": "a", "answers": {"text": ["840 km"], "answer_start": []}}, "answers"),
    "an answer that is text": ({"id": "a", "answers": ["840 km"]}, "answers[0]"),
}
# What a row may leave out or give as text, and SQuAD's articles may not.
ONLY_IN_ARTICLES = {
    "no id": ([KM], "0"),
    "answers that are text": ("840 km", "a"),
    "an answer that is text": (["840 km"], "a"),
}
Write = Callable[..., Path]


def nested(values: dict[str, Any]) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": [values]}]}]}


def flat(values: dict[str, Any]) -> dict[str, Any]:
    return {"data": [{**values, "context": CONTEXT, "title": "t"}]}


def golds_of(table: QaTable) -> dict[str, list[str]]:
    return {example.question_id: [answer.text for answer in example.answers] for example in table.examples()}


def scored(path: Path, answers: dict[str, str]) -> dict[str, float]:
    predictions = path.with_name("predictions.json")
    predictions.write_text(json.dumps(answers))
    return score_file(path, predictions)


@pytest.mark.parametrize("layout", [nested, flat])
@pytest.mark.parametrize("case", GOOD)
def test_training_and_scoring_read_the_same_golds(case: str, layout: Any, write: Write) -> None:
    values, golds = GOOD[case]
    path = write(layout({"question": "How long is it?", **values}))
    table = load_table(str(path), split="train")
    assert golds_of(table) == golds
    assert table.example(0).context == CONTEXT
    assert table.example(0).title == "t"
    ((question_id, texts),) = golds.items()
    result = scored(path, {question_id: texts[-1] if texts else ""})
    assert (result["exact"], result["total"]) == (100.0, 1)
    assert (result.get("NoAns_total"), result.get("HasAns_total")) == ((None, 1) if texts else (1, None))


@pytest.mark.parametrize("layout", [nested, flat])
@pytest.mark.parametrize("case", BAD)
def test_training_and_scoring_refuse_the_same_golds(case: str, layout: Any, write: Write) -> None:
    values, field = BAD[case]
    if layout is flat and case in ONLY_IN_ARTICLES:
        pytest.skip("a row may be so")
    if layout is flat and case == "no answers":
        values = {**values, "is_impossible": False}
    path = write(layout({"question": "How long is it?", **values}))
    place = "data[0].paragraphs[0].qas[0]" if layout is nested else "data[0]"
    messages = []
    for read in (lambda: load_table(str(path), split="train"), lambda: scored(path, {"a": "x"})):
        with pytest.raises(DataError) as refusal:
            read()
        messages.append(str(refusal.value))
    for message in messages:
        assert message.startswith(f"{path}: {place}.{field}")
        assert "; allowed: " in message


@pytest.mark.parametrize("case", ONLY_IN_ARTICLES)
def test_a_row_may_lack_an_id_and_give_its_answer_as_text(case: str, write: Write) -> None:
    assert case in BAD
    answers, question_id = ONLY_IN_ARTICLES[case]
    named = {} if case == "no id" else {"id": "a"}
    path = write(flat({"question": "How long is it?", **named, "answers": answers}))
    assert golds_of(load_table(str(path), split="train")) == {question_id: ["840 km"]}
    assert scored(path, {question_id: "840 km"})["exact"] == 100.0


def test_rows_give_the_table_that_articles_give(write: Write) -> None:
    rows = [
        {
            "id": "1",
            "title": "t",
            "context": CONTEXT,
            "question": "How long?",
            "answers": {"text": ["840 km"], "answer_start": [15]},
        },
        {"id": "2", "context": CONTEXT, "question": "Who?", "answers": {"text": [], "answer_start": []}},
    ]
    table = load_table(str(write({"version": "0.1.0", "data": rows})), split="train")
    assert golds_of(table) == {"1": ["840 km"], "2": []}
    assert (len(table.contexts), table.rows.column("title").to_pylist()) == (1, ["t", ""])
    assert (
        len(
            load_questions(
                str(write({"data": [{k: v for k, v in row.items() if k != "answers"} for row in rows]}))
            )
        )
        == 2
    )
    rows[1]["context"] = 5
    path = write({"data": rows})
    with pytest.raises(
        DataError, match=r"data\[1\]\.context \(question '2'\): found 5; allowed: text that is not blank"
    ):
        load_table(str(path), split="train")
    kept = load_table(str(path), split="train", skip_bad_examples=True)
    assert (len(kept), kept.skipped) == (1, 1)


def test_a_bad_answer_beside_a_good_one_is_dropped_and_counted_alone(write: Write, tmp_path: Path) -> None:
    moved = {"text": "840 km", "answer_start": 3}
    questions = [
        {"id": "two", "question": "How long?", "answers": [moved, KM]},
        {"id": "none", "question": "How far?", "answers": [moved, {"text": "840 km"}]},
        {"id": "good", "question": "How long is it?", "answers": [KM]},
    ]
    path = str(write({"data": [{"paragraphs": [{"context": CONTEXT, "qas": questions}]}]}))
    with pytest.raises(DataError, match=r"qas\[0\]\.answers\[0\]\.answer_start .*found 3, where it reads"):
        load_table(path, split="train")
    for cache_dir in (None, tmp_path / "cache", tmp_path / "cache"):
        table = load_table(path, split="train", skip_bad_examples=True, cache_dir=cache_dir)
        assert golds_of(table) == {"two": ["840 km"], "good": ["840 km"]}
        assert (table.skipped, table.skipped_answers) == (1, 1)
        assert table.take([0]).skipped_answers == 1


def test_a_parquet_file_may_say_is_impossible(tmp_path: Path) -> None:
    answers = [{"text": [""], "answer_start": [-1]}, {"text": ["840 km"], "answer_start": [15]}]
    columns = {
        "id": ["a", "b"],
        "context": [CONTEXT] * 2,
        "question": ["Who?", "How long?"],
        "answers": answers,
    }
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.table({**columns, "is_impossible": [True, False]}), path)
    assert golds_of(load_table(str(path), split="train")) == {"a": [], "b": ["840 km"]}
    parquet.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=r"row 0\.answers\[0\]\.text"):
        load_table(str(path), split="train")


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("rows.xlsx", b"PK", 'save the sheet as "CSV UTF-8"'),
        ("rows.txt", b"id,context\n", "suffix .csv or .tsv"),
        ("rows.json.zip", b"PK", "unpack it"),
        ("rows.pkl", b"", "write the table as Parquet"),
        ("rows.json", b'[{"id": 1}]', "found columns id; missing: context, question, answer"),
        ("saved/state.json", b"{}", "_data_files: found []"),
        ("saved/dataset_dict.json", b"{}", "splits: found None"),
        ("saved/readme.txt", b"", "Name one of its files"),
    ],
)
def test_another_layout_is_refused_with_what_to_do_about_it(
    name: str, content: bytes, hint: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    source = path.parent if name.startswith("saved") else path
    with pytest.raises(DataError) as refusal:
        load_table(str(source), split="train")
    assert hint in str(refusal.value)


def test_other_columns_are_refused_with_how_to_name_them(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.table({"ask": ["Who?"], "passage": [CONTEXT]}), path)
    with pytest.raises(
        DataError, match=r"found columns ask, passage; missing: question, answer.*question=COLUMN"
    ):
        load_table(str(path), split="train")
