"""The tables that the search benchmark replays: their references, and what is refused."""

from dataclasses import replace

import pytest
import typer

from benchmarks import search_tables
from qa_core.data.squad import load_table
from qa_core.errors import DataError


def test_the_recorded_tables_are_measured_above_what_needs_no_training() -> None:
    tables = search_tables.chosen_tables(None, ["none"])
    assert list(tables) == ["corpus", "minilm", "shipped"]
    sources = {"corpus": "sample", "shipped": "sample:hard"}
    for name, table in tables.items():
        em, memory = (objective.worst for objective in table.spec.objectives)
        assert memory == pytest.approx(1.1 * max(item.final["memory_mb"] for item in table.curves))
        if name not in sources:
            assert em == 0.0  # every question of SQuAD v1.1 has an answer
            continue
        questions = load_table(sources[name], split="dev")
        unanswerable = float(questions.is_unanswerable.mean())
        assert em == pytest.approx(100 * unanswerable)
        assert 20 < em < 30
        if name == "corpus":
            assert min(item.final["em_percent"] for item in table.curves) < em  # some learn less than nothing


def test_questions_that_are_not_those_of_the_table_are_refused() -> None:
    (table,) = search_tables.chosen_tables(
        [search_tables.TABLES_FOLDER / "corpus.parquet"], ["none"]
    ).values()
    other = replace(table, provenance={**table.provenance, "evaluation_hash": "0"})
    with pytest.raises(DataError, match="the table was recorded on 0"):
        search_tables.with_references(other)


def test_an_unknown_synthetic_table_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="found 'x'; allowed: curves seldom cross"):
        search_tables.chosen_tables([], ["x"])
