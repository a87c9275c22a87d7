"""Parquet files and hub data sets: the hub's column layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from qa_core.data.squad import load_table, read_squad
from qa_core.errors import DataError


def hub_rows(document: dict) -> list[dict[str, Any]]:
    return [
        {
            "id": item["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": item["question"],
            "answers": {
                "text": [answer["text"] for answer in item["answers"]],
                "answer_start": [answer["answer_start"] for answer in item["answers"]],
            },
        }
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for item in paragraph["qas"]
    ]


@pytest.fixture
def rows(document: dict) -> list[dict[str, Any]]:
    return hub_rows(document)


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[[list], str]:
    def write_rows(rows: list) -> str:
        path = tmp_path / "data.parquet"
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
        return str(path)

    return write_rows


def test_a_parquet_file_holds_the_same_data_as_the_json_file(
    document: dict, rows: list, write_parquet: Callable
) -> None:
    table = load_table(write_parquet(rows), split="train")
    assert table.data_hash == read_squad(document, "json").data_hash
    assert table.is_unanswerable.tolist() == [False, False, False, True, False, True]


def test_titles_may_be_absent_from_a_parquet_file(rows: list, write_parquet: Callable) -> None:
    for row in rows:
        del row["title"]
    assert load_table(write_parquet(rows), split="train").example(0).title == ""


def test_a_missing_column_is_named(rows: list, write_parquet: Callable) -> None:
    for row in rows:
        del row["answers"]
    with pytest.raises(
        DataError, match=r"data\.parquet: found columns id, title, context, question; missing: answer \(usual"
    ):
        load_table(write_parquet(rows), split="train")


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("context", None, "row 1.context (question 'r2'): found nothing"),
        ("question", "", "row 1.question (article 'Rivers', question 'r2'): found ''"),
        ("id", "r1", "row 1.id (article 'Rivers', question 'r1'): found 'r1'; allowed: ids that occur once"),
        (
            "answers",
            None,
            "row 1.answers (article 'Rivers', question 'r2'): found nothing; allowed: a list of",
        ),
        (
            "answers",
            {"text": ["840 km"], "answer_start": []},
            "row 1.answers (article 'Rivers', question 'r2')",
        ),
        (
            "answers",
            {"text": ["840 km"], "answer_start": [44]},
            "row 1.answers[0].answer_start (article 'Rivers'",
        ),
    ],
)
def test_a_malformed_row_is_refused_with_its_number_or_dropped_and_counted(
    rows: list, write_parquet: Callable, column: str, value: Any, expected: str
) -> None:
    rows[1][column] = value
    path = write_parquet(rows)
    with pytest.raises(DataError) as caught:
        load_table(path, split="train")
    assert str(caught.value).startswith(f"{path}: {expected}")
    kept = load_table(path, split="train", skip_bad_examples=True)
    assert (len(kept), kept.skipped) == (5, 1)


def test_a_hub_name_is_loaded_with_the_hubs_name_of_the_split(
    document: dict, rows: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    asked = []

    def load_dataset(name: str, *, split: str) -> datasets.Dataset:
        asked.append((name, split))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    table = load_table("owner/name", split="dev")
    assert asked == [("owner/name", "validation")]
    assert table.data_hash == read_squad(document, "json").data_hash
    assert table.source == "owner/name:validation"


def test_a_hub_name_may_name_a_configuration_and_a_split(rows: list, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load_dataset(*names: str, split: str) -> datasets.Dataset:
        asked.append((*names, split))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    sources = [
        load_table(name, split=split).source
        for name in ("owner/name:xquad.de", "owner/name:hi@test", "owner/name@test")
        for split in ("train", "dev")
    ]
    assert asked == [
        ("owner/name", "xquad.de", "train"),
        ("owner/name", "xquad.de", "validation"),
        *[("owner/name", "hi", "test")] * 2,
        *[("owner/name", "test")] * 2,
    ]
    assert sources[:3] == [
        "owner/name:xquad.de:train",
        "owner/name:xquad.de:validation",
        "owner/name:hi@test",
    ]


@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), ValueError("Unknown split"), OSError("timed out")]
)
def test_an_unreachable_hub_is_reported_with_the_way_round_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import datasets

    def load_dataset(name: str, *, split: str) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as caught:
        load_table("owner/name", split="train")
    message = str(caught.value)
    assert f"data set 'owner/name', split 'train': the hub gave {type(error).__name__}: {error}" in message
    assert "give a SQuAD file (.json, .json.gz), a Parquet file or `sample`" in message
    assert "named so: owner/name:CONFIGURATION, owner/name@SPLIT" in message
