"""Tables that are parsed once on a machine: equal to what the readers give, made again when anything changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qa_core.data import columns, squad
from qa_core.data.squad import load_table
from qa_core.data.table import QaTable
from qa_core.errors import DataError, StorageError
from tests.qa_core.data.test_columns import hub_rows


@pytest.fixture
def rows(document: dict) -> list[dict[str, Any]]:
    return hub_rows(document)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is parsed from here on."""
    found: list[Path] = []
    read = squad.read_json

    def counted(path: Path) -> Any:
        found.append(path)
        return read(path)

    monkeypatch.setattr(squad, "read_json", counted)
    return found


def same(first: QaTable, second: QaTable) -> bool:
    return (
        first.rows.equals(second.rows)
        and first.contexts.equals(second.contexts)
        and (first.source, first.skipped, first.data_hash)
        == (second.source, second.skipped, second.data_hash)
    )


def test_a_file_is_parsed_once_and_read_back_as_it_was_parsed(
    document: dict, write: Callable[..., Path], parsed: list[Path], tmp_path: Path
) -> None:
    path = write(document)
    fresh = load_table(str(path), split="train")
    assert same(load_table(str(path), split="train", cache_dir=tmp_path / "c"), fresh)
    del parsed[:]
    for split in ("train", "dev"):
        table = load_table(str(path), split=split, cache_dir=tmp_path / "c")
        assert same(table, fresh)
        assert [example.context for example in table.examples()] == [
            example.context for example in fresh.examples()
        ]
        assert table.is_unanswerable.tolist() == fresh.is_unanswerable.tolist()
        assert table.take([2, 0]).data_hash == fresh.take([2, 0]).data_hash
    assert parsed == []


def test_what_is_read_is_known_by_its_content_and_named_by_its_path(
    document: dict, write: Callable[..., Path], parsed: list[Path], tmp_path: Path
) -> None:
    path = write(document)
    copy = tmp_path / "copy.json"
    copy.write_bytes(path.read_bytes())
    first = load_table(str(path), split="train", cache_dir=tmp_path / "c")
    assert load_table(str(copy), split="train", cache_dir=tmp_path / "c").source == str(copy)
    assert parsed == [path]
    document["data"][0]["title"] = "Another title"
    path.write_text(json.dumps(document))
    changed = load_table(str(path), split="train", cache_dir=tmp_path / "c")
    assert parsed == [path, path]
    assert changed.data_hash != first.data_hash


def test_a_table_without_its_bad_questions_is_another_and_keeps_their_number(
    document: dict, write: Callable[..., Path], parsed: list[Path], tmp_path: Path
) -> None:
    document["data"][0]["paragraphs"][0]["qas"][0]["question"] = " "
    path = str(write(document))
    for _ in range(2):
        kept = load_table(path, split="train", skip_bad_examples=True, cache_dir=tmp_path / "c")
        assert kept.skipped == 1
    assert len(parsed) == 1
    for _ in range(2):
        with pytest.raises(DataError, match="text that is not blank"):
            load_table(path, split="train", cache_dir=tmp_path / "c")
    assert len(parsed) == 3
    assert len(list((tmp_path / "c" / "tables").glob("*.arrow"))) == 1


@pytest.mark.parametrize("damage", ["empty", "header", "cut", "flipped"])
def test_a_damaged_table_is_parsed_again(
    damage: str, document: dict, write: Callable[..., Path], parsed: list[Path], tmp_path: Path
) -> None:
    path = str(write(document))
    fresh = load_table(path, split="train", cache_dir=tmp_path / "c")
    expected = load_table(path, split="train")
    (file,) = (tmp_path / "c" / "tables").glob("*.arrow")
    content = bytearray(file.read_bytes())
    place = content.find(str(fresh.example(0).question).encode())
    content[place] ^= 1
    whole = file.read_bytes()
    damaged = {"empty": b"", "header": whole[:40], "cut": whole[:-100], "flipped": bytes(content)}
    del fresh
    file.unlink()  # tables that are mapped keep the old one
    file.write_bytes(damaged[damage])
    del parsed[:]
    assert same(load_table(path, split="train", cache_dir=tmp_path / "c"), expected)
    assert len(parsed) == 1


def test_a_parquet_file_and_a_json_file_are_kept_too(tmp_path: Path, rows: list) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    fresh = load_table(str(path), split="train")
    for _ in range(2):
        assert same(load_table(str(path), split="train", cache_dir=tmp_path / "c"), fresh)


def test_a_hub_data_set_is_checked_once_for_each_of_its_files(
    rows: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "hub"))
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split: datasets.load_from_disk(str(tmp_path / "hub"))
    )
    fresh = load_table("owner/name", split="dev")
    checked = []
    read = columns.read_rows
    monkeypatch.setattr(
        columns,
        "read_rows",
        lambda source, *given, **options: checked.append(source) or read(source, *given, **options),
    )
    for split in ("dev", "train", "dev"):
        table = load_table("owner/name", split=split, cache_dir=tmp_path / "c")
        assert table.data_hash == fresh.data_hash
        assert table.source == f"owner/name:{columns.HUB_SPLITS[split]}"
    assert checked == ["owner/name:validation"]


def test_a_cache_folder_that_cannot_be_made_is_named(
    document: dict, write: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "c").write_text("")
    with pytest.raises(StorageError, match=r"cache folder .*c/tables: cannot be written"):
        load_table(str(write(document)), split="train", cache_dir=tmp_path / "c")
