"""A part of one file held out to evaluate on: by article or paragraph, by seed, never a context in both parts."""

import json
from pathlib import Path
from typing import Any

import pytest

from qa_core.config import DataConfig
from qa_core.data.holdout import hold_out
from qa_core.data.objects import read_object
from qa_core.data.prepare import data_sources
from qa_core.data.table import QaTable
from qa_core.errors import DataError


def rows(count: int, *, titles: int = 0) -> list[dict[str, Any]]:
    """Two questions on each paragraph; `titles` articles, 0 for none."""
    return [
        {
            "title": f"Article {number % titles}" if titles else "",
            "context": f"Paragraph {number} is of Ann.",
            "question": f"Who {name} {number}?",
            "answer": "Ann",
        }
        for number in range(count)
        for name in ("met", "saw")
    ]


def contexts(table: QaTable) -> set[str]:
    return set(table.contexts.to_pylist())


@pytest.mark.parametrize(("share", "expected"), [(0.2, 8), (0.5, 20), (0.01, 2), (0.99, 38)])
def test_whole_paragraphs_are_held_out_where_there_are_no_articles(share: float, expected: int) -> None:
    table = read_object(rows(20))
    held = hold_out(table, share, seed=1)
    assert (held.unit, len(held.evaluation)) == ("paragraph", expected)
    assert contexts(held.train) | contexts(held.evaluation) == contexts(table)
    assert not contexts(held.train) & contexts(held.evaluation)
    assert sorted(held.train.question_ids + held.evaluation.question_ids) == sorted(table.question_ids)


def test_whole_articles_are_held_out_and_the_seed_decides_which() -> None:
    table = read_object(rows(30, titles=6))
    held = {seed: hold_out(table, 0.3, seed=seed) for seed in range(8)}
    titles = {seed: set(found.evaluation.rows.column("title").to_pylist()) for seed, found in held.items()}
    for seed, found in held.items():
        assert found.unit == "article"
        assert len(titles[seed]) == 2
        assert titles[seed].isdisjoint(found.train.rows.column("title").to_pylist())
        again = hold_out(table, 0.3, seed=seed)
        assert again.evaluation.question_ids == found.evaluation.question_ids
    assert len({frozenset(found) for found in titles.values()}) > 2


def test_no_paragraph_is_in_both_parts_whatever_its_form_and_title() -> None:
    table = read_object(
        [
            {"title": title, "context": context, "question": f"Who {title}?", "answer": "Ann"}
            for title, context in (
                ("A", "It is Ann."),
                ("B", "it  is Ann. "),
                ("B", "Of Ann."),
                ("C", "of\nAnn."),
                ("D", "By Ann."),
                ("E", "To Ann."),
            )
        ]
    )
    together = {"A", "B", "C"}
    for seed in range(10):
        for share in (0.2, 0.5, 0.8):
            held = hold_out(table, share, seed=seed)
            found = set(held.evaluation.rows.column("title").to_pylist())
            assert found
            assert found & together in (set(), together)


@pytest.mark.parametrize("contexts", [["It is Ann."], ["It is Ann.", "it is  Ann."]])
def test_one_paragraph_cannot_be_held_out(contexts: list[str]) -> None:
    table = read_object([{"context": text, "question": "Who?", "answer": "Ann"} for text in contexts])
    with pytest.raises(
        DataError, match=r"table: found one paragraph.*allowed without data\.evaluation: at least two"
    ):
        hold_out(table, 0.2, seed=0)


def test_the_sources_of_a_recipe_are_one_file_in_two_parts(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text("\n".join(map(json.dumps, rows(20))))
    data = DataConfig(train=str(path), split_seed=3)
    found = data_sources(data, cache_dir=tmp_path / "cache")
    assert (len(found.whole), len(found.train), len(found.evaluation)) == (40, 32, 8)
    assert found.held_out == {
        "share": 0.2,
        "seed": 3,
        "unit": "paragraph",
        "questions": 8,
        "of_questions": 40,
    }
    assert not contexts(found.train) & contexts(found.evaluation)
    fewer = data_sources(
        DataConfig(train=str(path), split_seed=3, evaluation_questions=5), cache_dir=tmp_path
    )
    assert len(fewer.evaluation) == 5
    assert fewer.train.question_ids == found.train.question_ids
    named = data_sources(DataConfig(train=str(path), evaluation="sample"), cache_dir=tmp_path / "cache")
    assert (len(named.train), named.held_out) == (40, None)


def test_columns_that_are_named_are_those_of_every_source_that_has_one_of_them(tmp_path: Path) -> None:
    train, dev, other = (tmp_path / name for name in ("train.csv", "dev.csv", "other.csv"))
    train.write_text("ask,context,answer\nWho?,Ann.,Ann\nWho?,Is Ann.,Ann\n")
    dev.write_text("ask,text,answer\nWho?,Ben.,Ben\n")
    other.write_text("question,context,answer\nWho?,Cid.,Cid\n")
    columns = {"question": "ask"}
    data = DataConfig(train=str(train), evaluation=str(other), columns=columns)
    assert data_sources(data, cache_dir=tmp_path / "c").evaluation.example(0).context == "Cid."
    data = DataConfig(train=str(train), evaluation=str(dev), columns={**columns, "context": "context"})
    with pytest.raises(DataError, match=r"dev\.csv: data\.columns\.context: found no column 'context'"):
        data_sources(data, cache_dir=tmp_path / "c")
    data = DataConfig(train=str(other), columns=columns)
    with pytest.raises(
        DataError, match=r"other\.csv: data\.columns\.question: found no column 'ask'.*allowed: quest"
    ):
        data_sources(data, cache_dir=tmp_path / "c")
    with pytest.raises(DataError, match=r"sample: data\.columns: found .*allowed: nothing for articles"):
        data_sources(DataConfig(columns=columns), cache_dir=tmp_path / "c")


def test_a_hub_data_set_without_a_dev_split_is_held_out_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def load_dataset(name: str, *, split: str) -> datasets.Dataset:
        if split != "train":
            raise ValueError(f"Unknown split \"{split}\". Should be one of ['train'].")
        return datasets.Dataset.from_list(rows(10))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("owner/name", "owner/name@train"):
        found = data_sources(DataConfig(train=name), cache_dir=tmp_path)
        assert (len(found.train), len(found.evaluation)) == (16, 4)
        assert found.held_out is not None
