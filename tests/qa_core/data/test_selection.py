"""Subsets and the selection split."""

import pytest

from qa_core.data.selection import split_confirm
from qa_core.data.squad import QaTable, read_squad, select_questions, split_selection
from qa_core.errors import DataError


def articles(table: QaTable) -> set[str]:
    return set(table.rows.column("title").to_pylist())


def paragraphs(table: QaTable) -> set[str]:
    return set(table.contexts.to_pylist())


def test_a_subset_has_its_size_keeps_the_order_and_follows_the_seed(many: QaTable) -> None:
    chosen = select_questions(many, 50, seed=3)
    positions = [many.question_ids.index(identity) for identity in chosen.question_ids]
    assert len(chosen) == 50
    assert positions == sorted(positions)
    assert select_questions(many, 50, seed=3).question_ids == chosen.question_ids
    assert select_questions(many, 50, seed=4).question_ids != chosen.question_ids


def test_a_smaller_subset_is_part_of_a_larger_one(many: QaTable) -> None:
    small, large = (set(select_questions(many, count, seed=3).question_ids) for count in (20, 90))
    assert small < large


@pytest.mark.parametrize("count", [None, 6, 7])
def test_no_count_or_a_large_one_selects_everything(table: QaTable, count: int | None) -> None:
    assert select_questions(table, count, seed=0) is table


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_whole_articles_are_held_out_and_nothing_is_lost(many: QaTable, share: float) -> None:
    train, selection = split_selection(many, share, seed=5)
    assert not articles(train) & articles(selection)
    assert sorted(train.question_ids + selection.question_ids) == sorted(many.question_ids)
    largest = max(many.rows.column("title").value_counts().field("counts").to_pylist())
    assert abs(len(selection) - share * len(many)) <= largest / 2


def test_the_split_follows_the_seed(many: QaTable) -> None:
    first, again, other = (articles(split_selection(many, 0.3, seed=seed)[1]) for seed in (5, 5, 6))
    assert first == again != other


def test_the_selection_part_is_cut_and_its_articles_stay_out_of_training(many: QaTable) -> None:
    train, selection = split_selection(many, 0.3, seed=5)
    same_train, cut = split_selection(many, 0.3, seed=5, max_questions=10)
    assert len(cut) == 10 < len(selection)
    assert set(cut.question_ids) < set(selection.question_ids)
    assert same_train.data_hash == train.data_hash


def untitled(document: dict) -> QaTable:
    for article in document["data"]:
        article["title"] = ""
    return read_squad(document, "untitled")


@pytest.mark.parametrize("seed", range(8))
def test_paragraphs_are_held_out_where_there_are_no_titles(document: dict, seed: int) -> None:
    train, selection = split_selection(untitled(document), 0.34, seed=seed)
    assert not paragraphs(train) & paragraphs(selection)
    assert (len(train), len(selection)) == (4, 2)


@pytest.mark.parametrize("share", [0.01, 0.99])
@pytest.mark.parametrize("seed", range(4))
def test_neither_part_is_ever_empty(table: QaTable, share: float, seed: int) -> None:
    train, selection = split_selection(table, share, seed=seed)
    assert len(train) > 0
    assert len(selection) > 0


def test_one_article_is_split_by_paragraph_and_one_paragraph_is_refused(table: QaTable) -> None:
    train, selection = split_selection(table.take([2, 3, 4, 5]), 0.5, seed=0)
    assert (len(train), len(selection)) == (2, 2)
    with pytest.raises(DataError, match="small: found one paragraph; allowed: at least two"):
        split_selection(table.take([0, 1]), 0.5, seed=0)


@pytest.mark.parametrize("share", [0.01, 0.4])
@pytest.mark.parametrize("seed", range(6))
def test_a_paragraph_under_two_titles_is_on_one_side_only(document: dict, seed: int, share: float) -> None:
    copied = {**document["data"][0]["paragraphs"][0]}
    copied["qas"] = [{**copied["qas"][1], "id": "copy"}]
    document["data"].append({"title": "Copies", "paragraphs": [copied]})
    train, selection = split_selection(read_squad(document, "doubled"), share, seed=seed)
    assert len(selection) > 0
    assert not paragraphs(train) & paragraphs(selection)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_whole_articles_are_set_aside_to_confirm_and_nothing_is_lost(many: QaTable, share: float) -> None:
    choosing, confirming = split_confirm(many, share, seed=5)
    assert not articles(choosing) & articles(confirming)
    assert sorted(choosing.question_ids + confirming.question_ids) == sorted(many.question_ids)
    largest = max(many.rows.column("title").value_counts().field("counts").to_pylist())
    assert abs(len(confirming) - share * len(many)) <= largest / 2
    assert split_confirm(many, share, seed=5)[1].question_ids == confirming.question_ids


def test_what_confirms_is_drawn_on_its_own_not_as_the_selection_part_is(many: QaTable) -> None:
    selection, confirming = split_selection(many, 0.3, seed=5)[1], split_confirm(many, 0.3, seed=5)[1]
    assert articles(selection) != articles(confirming)


def test_one_paragraph_cannot_be_set_aside(table: QaTable) -> None:
    with pytest.raises(DataError, match=r"found one paragraph; allowed with evaluation\.confirm_share"):
        split_confirm(table.take([0, 1]), 0.5, seed=0)
