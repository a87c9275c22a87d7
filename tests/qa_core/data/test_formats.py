"""Every format of data gives the same table: equal questions, contexts, answers and places, and an equal data hash."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from qa_core.data import squad
from qa_core.data.objects import read_object, write_table
from qa_core.data.placing import find_answer
from qa_core.data.sources import has_own_dev_split
from qa_core.data.squad import is_file_source, load_questions, load_table
from qa_core.data.table import QaTable
from qa_core.errors import DataError
from qa_core.scoring.scores import score_file
from tests.qa_core.data.one_table import CONTEXTS, NAMES, ROWS, TEN, WRITERS, delimited

LAYOUTS = {
    "squad.json": "SQuAD JSON",
    "flat.json": "JSON, a row for each question",
    "list.json": "JSON, a row for each question",
    "lines.jsonl": "JSON lines",
    "commas.csv": "CSV, separated by commas",
    "tabs.tsv": "TSV, separated by tabs",
    "columns.parquet": "Parquet",
    "columns.arrow": "Arrow table",
    "saved": "folder of the library datasets",
    "splits": "folder of the library datasets",
    "lines.json": "JSON lines",
    "packed.jsonl.gz": "JSON lines",
    "packed.csv.gz": "CSV, separated by commas",
    "EXCEL.CSV": "CSV, separated by semicolons",
}


def data_hash() -> str:
    """The hash of the table itself, whatever it stands in."""
    digest = hashlib.sha256()
    for row in ROWS:
        context = hashlib.sha256(row["context"].encode()).hexdigest()
        values = [row["id"], row["title"], context, row["question"], *row["answers"].values()]
        digest.update(json.dumps(values).encode() + b"\n")
    return digest.hexdigest()[:16]


@pytest.fixture(params=WRITERS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    WRITERS[request.param](path)
    return path


def content(table: QaTable) -> list[dict[str, Any]]:
    return [
        {
            "id": example.question_id,
            "title": example.title,
            "context": example.context,
            "question": example.question,
            "answers": {
                "text": [answer.text for answer in example.answers],
                "answer_start": [answer.start for answer in example.answers],
            },
        }
        for example in table.examples()
    ]


def test_there_are_ten_formats_and_more() -> None:
    assert len(TEN) == 10
    assert LAYOUTS.keys() == WRITERS.keys()


def test_every_file_gives_the_table(file: Path, tmp_path: Path) -> None:
    fresh = load_table(str(file), split="train")
    assert content(fresh) == ROWS
    assert fresh.contexts.to_pylist() == list(CONTEXTS)
    assert fresh.data_hash == data_hash()
    assert fresh.reading.layout == LAYOUTS[file.name]
    assert fresh.source == str(file)
    for _ in range(2):  # made, then read back
        kept = load_table(str(file), split="dev", cache_dir=tmp_path / "cache")
        assert content(kept) == ROWS
        assert kept.reading == fresh.reading


def test_a_table_in_the_cache_is_not_parsed_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_table(str(file), split="train", cache_dir=tmp_path / "cache")
    monkeypatch.setattr(squad, "_read_file", lambda *arguments, **named: pytest.fail("it is parsed again"))
    assert content(load_table(str(file), split="train", cache_dir=tmp_path / "cache")) == ROWS


def test_questions_without_their_answers_and_scores_come_from_every_file(file: Path, tmp_path: Path) -> None:
    blind = load_questions(str(file))
    assert [row["answers"]["text"] for row in content(blind)] == [[]] * 4
    assert blind.question_ids == ["r1", "r2", "t1", "b1"]
    predictions = tmp_path / "predictions"
    predictions.write_text(json.dumps({"r1": "Odra Hills", "r2": "", "t1": "Ina", "b1": "A week"}))
    scores = score_file(file, predictions)
    assert (scores["exact"], scores["total"], scores["NoAns_exact"]) == (75.0, 4, 100.0)


def test_objects_in_memory_give_the_table_and_a_file_that_has_it(tmp_path: Path) -> None:
    import datasets
    import pandas as pd

    arrow = pa.Table.from_pylist(ROWS)
    objects = [
        arrow,
        arrow.to_batches()[0],
        pd.DataFrame(ROWS),
        datasets.Dataset.from_list(ROWS),
        ROWS,
        iter(ROWS),
    ]
    for table in map(read_object, objects):
        assert content(table) == ROWS
        assert table.data_hash == data_hash()
    write_table(table, tmp_path / "written.parquet")
    assert content(load_table(str(tmp_path / "written.parquet"), split="train")) == ROWS


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("text", "table: found str; allowed: a pandas data frame"),
        (7, "table: found int"),
        ({"id": ["a"]}, "table: found dict"),
        ([1], "table: row 0: found int"),
        ([], "table: found columns without names; missing: context, question, answer"),
    ],
)
def test_other_objects_are_refused(table: Any, expected: str) -> None:
    with pytest.raises(DataError) as refusal:
        read_object(table)
    assert str(refusal.value).startswith(expected)


def test_a_frame_of_pandas_may_have_gaps_where_there_is_no_answer() -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "Question": ["Who?", "When?"],
            "Context": ["Ann came.", "Ann came."],
            "answer_text": ["Ann", None],
            "answer_start": [0.0, float("nan")],
        },
        index=[7, 7],
    )
    rows = content(read_object(frame))
    assert [row["answers"] for row in rows] == [
        {"text": ["Ann"], "answer_start": [0]},
        {"text": [], "answer_start": []},
    ]


# Answers as text alone


@pytest.mark.parametrize(
    ("text", "context", "start", "found", "how", "places"),
    [
        ("art", "party art, art", 6, "art", "exact", 2),
        ("art", "smart art", 6, "art", "exact", 1),
        ("art", "a party", 3, "art", "exact", 1),
        ("ART", "a party, Art", 9, "Art", "in other letter case", 1),
        ("in  Bonn", "He is in\nbonn", 6, "in\nbonn", "with other white space", 1),
        (" 61 m ", "It is 61 m tall", 6, "61 m", "exact", 1),
        ("$5 (five)", "for $5 (five) or $5 (five)", 4, "$5 (five)", "exact", 2),
        ("İzmir", "from İZMİR to İzmir", 14, "İzmir", "exact", 1),
        ("北京", "在北京市", 1, "北京", "exact", 1),
        ("a.c", "abc a.c", 4, "a.c", "exact", 1),
    ],
)
def test_an_answer_is_found_where_it_stands(
    text: str, context: str, start: int, found: str, how: str, places: int
) -> None:
    place = find_answer(text, context)
    assert place is not None
    assert (place.start, place.text, place.how, place.places) == (start, found, how, places)
    assert context[place.start : place.start + len(place.text)] == place.text


def test_an_answer_that_is_not_there_is_not_found() -> None:
    assert find_answer("Bonn", "in Berlin") is None
    assert find_answer("a b", "ab") is None


TEXT_ALONE = (
    "query,Passage,gold,note\r\n"
    'Who?,"Ann, the art\r\nparty art.",art,x\r\n'
    "When?,In 1912.,,\r\n"
    ",,,\r\n"
    "Where?,Ann was in  Bonn and in Bonn.,IN BONN,\r\n"
    'What?,"A ""mill""",Mill,\r\n'
)


def test_answers_as_text_are_placed_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_bytes(TEXT_ALONE.encode())
    table = load_table(str(path), split="train")
    assert [row["answers"] for row in content(table)] == [
        {"text": ["art"], "answer_start": [9]},
        {"text": [], "answer_start": []},
        {"text": ["in Bonn"], "answer_start": [21]},
        {"text": ["mill"], "answer_start": [3]},
    ]
    reading = table.reading
    assert reading.columns == {"context": "Passage", "question": "query", "answer": "gold"}
    assert (reading.guessed, reading.unused) == (("context", "question", "answer"), ("note",))
    assert reading.is_numbered
    assert table.question_ids == ["0", "1", "2", "3"]
    assert reading.answers == {"exact": 1, "in other letter case": 2, "at several places": 1}


def test_an_ambiguous_answer_takes_the_first_place_and_an_absent_one_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    rows = [
        {"question": "Who?", "context": "Ann met Ann.", "answer": "Ann"},
        {"question": "Who?", "context": "Ann met Ben.", "answer": ["Ben", "Bob"]},
        {"question": "Who?", "context": "Ann met Ben.", "answer": "Cid"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError) as refusal:
        load_table(str(path), split="train")
    assert str(refusal.value) == (
        f"{path}: line 2.answer[1] (question '1'): found 'Bob'; allowed: text of the context, in any letter case and "
        "with any white space"
    )
    for _ in range(2):
        table = load_table(str(path), split="train", skip_bad_examples=True, cache_dir=tmp_path / "cache")
        assert [row["answers"]["answer_start"] for row in content(table)] == [[0], [8]]
        assert (table.skipped, table.skipped_answers) == (1, 1)
        assert table.reading.answers == {"exact": 2, "at several places": 1, "nowhere in their context": 2}
        assert table.reading.malformed[1].startswith("line 3.answer[0] (question '2'): found 'Cid'")


def test_several_answers_may_have_places_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text(
        'question,context,answers,answer_start\nWho?,Ann met Ann.,"[""Ann"", ""Ann""]","[8, 0]"\n'
    )
    table = load_table(str(path), split="train")
    assert content(table)[0]["answers"] == {"text": ["Ann", "Ann"], "answer_start": [8, 0]}


def test_answers_as_python_prints_them_are_read_from_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    cell = str({"text": ["it's"], "answer_start": [0]}).replace('"', '""')
    path.write_text(f'question,context,answers\nWhat?,it\'s so,"{cell}"\nWhat?,[1] is a note,[1]\n')
    answers = [row["answers"] for row in content(load_table(str(path), split="train"))]
    assert answers == [{"text": ["it's"], "answer_start": [0]}, {"text": ["[1]"], "answer_start": [0]}]


# Columns


def test_columns_are_named_guessed_and_said(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("q,passage,gold,from,key,none\nWho?,Ann met Ann.,Ann,8,k7,true\nWho?,Ann.,,,k8,TRUE\n")
    given = {"question": "q", "start": "from", "id": "key", "is_impossible": "none"}
    with pytest.raises(DataError, match=r"my\.csv: line 2\.gold .*no answers where is_impossible is true"):
        load_table(str(path), split="train", columns=given)
    del given["is_impossible"]
    table = load_table(str(path), split="train", columns=given)
    assert table.question_ids == ["k7", "k8"]
    assert table.example(0).answers[0].start == 8
    assert table.is_unanswerable.tolist() == [False, True]
    assert table.reading.guessed == ("context", "answer")
    assert table.reading.unused == ("none",)


def test_rows_of_json_may_have_other_names_and_lack_some(tmp_path: Path) -> None:
    path = tmp_path / "my.json"
    rows = [
        {"q": "Who?", "text": "Ann.", "a": "Ann", "title": "T"},
        {"q": "When?", "text": "Ann.", "a": None},
    ]
    path.write_text(json.dumps({"data": rows}))
    table = load_table(str(path), split="train", columns={"question": "q", "context": "text", "answer": "a"})
    assert [row["title"] for row in content(table)] == ["T", ""]
    assert table.is_unanswerable.tolist() == [False, True]
    del rows[1]["a"]
    path.write_text(json.dumps(rows))
    with pytest.raises(
        DataError, match=r"my\.json: \[1\]\.a .*found nothing; allowed: a list of objects.*also text or a"
    ):
        load_table(str(path), split="train", columns={"question": "q", "context": "text", "answer": "a"})


def test_the_columns_named_are_part_of_what_the_cache_knows_a_table_by(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("question,context,answer,other\nWho?,Ann met Ben.,Ann,Ben\n")
    for name in ("answer", "other", "answer"):
        table = load_table(str(path), split="train", columns={"answer": name}, cache_dir=tmp_path / "cache")
        assert table.example(0).answers[0].text == {"answer": "Ann", "other": "Ben"}[name]


# Folders of the library datasets, and what is a file


def test_splits_of_a_folder_are_named_or_follow_from_the_use(tmp_path: Path) -> None:
    import datasets

    parts = {
        name: datasets.Dataset.from_list([{**ROWS[0], "id": name}])
        for name in ("train", "validation", "test")
    }
    folder = tmp_path / "splits"
    datasets.DatasetDict(parts).save_to_disk(folder)
    read = {
        (source, split): load_table(source, split=split).question_ids
        for source in (str(folder), f"{folder}@test")
        for split in ("train", "dev")
    }
    assert read == {
        (str(folder), "train"): ["train"],
        (str(folder), "dev"): ["validation"],
        (f"{folder}@test", "train"): ["test"],
        (f"{folder}@test", "dev"): ["test"],
    }
    assert has_own_dev_split(str(folder)) is True
    assert has_own_dev_split(f"{folder}@test") is False
    assert has_own_dev_split("sample") is True
    assert has_own_dev_split("owner/name") is None
    assert has_own_dev_split("owner/name@train") is False
    with pytest.raises(
        DataError, match=r"found no split 'dev'; allowed: .*splits@train, .*@validation, .*@test"
    ):
        load_table(f"{folder}@dev", split="train")
    assert is_file_source(f"{folder}@dev")


def test_a_folder_names_no_file_outside_of_itself(tmp_path: Path) -> None:
    WRITERS["saved"](tmp_path / "saved")
    state = tmp_path / "saved" / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": "../other.arrow"}]}))
    with pytest.raises(DataError, match=r"state\.json: _data_files: found \['\.\./other\.arrow'\]"):
        load_table(str(tmp_path / "saved"), split="train")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "dataset_dict.json").write_text('{"splits": ["../saved"]}')
    with pytest.raises(DataError, match=r"dataset_dict\.json: splits: found \['\.\./saved'\]"):
        load_table(str(tmp_path / "splits"), split="train")


def test_a_parquet_file_of_text_answers_is_read(tmp_path: Path) -> None:
    path = tmp_path / "my.parquet"
    columns = {"question": ["Who?", "Who?"], "context": ["Ann."] * 2, "answer": ["Ann", None]}
    parquet.write_table(pa.table(columns), path)
    assert load_table(str(path), split="train").is_unanswerable.tolist() == [False, True]
    columns["answer"] = [["Ann", "Ann."], []]
    parquet.write_table(pa.table(columns), path)
    table = load_table(str(path), split="train")
    assert [row["answers"]["text"] for row in content(table)] == [["Ann", "Ann."], []]


def test_the_cells_that_the_library_reads_are_limited_again_after_a_file(tmp_path: Path) -> None:
    import csv

    before = csv.field_size_limit()
    long = {**ROWS[0], "context": CONTEXTS[0] + " and" * 200_000}
    path = tmp_path / "long.csv"
    path.write_bytes(delimited(",", [long]))
    assert len(load_table(str(path), split="train").example(0).context) > 8 * 10**5
    assert csv.field_size_limit() == before
    assert NAMES == ("id", "title", "context", "question", "answers")
