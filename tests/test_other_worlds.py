"""Pretraining text shares with the built-in corpus what every text may share, and nothing that a question asks for."""

import copy
from typing import Any

import pytest

from benchmarks import other_worlds
from qa_core.data.sample import sample_squad
from qa_core.data.sample_grammar import BUILT_IN, World

SEEN = 40  # worlds whose words are looked at
READ = 3  # worlds whose passages are


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return list(other_worlds.worlds(SEEN))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return other_worlds.questions(READ)


def test_no_world_has_a_name_or_a_relation_of_the_built_in_corpus(worlds):
    for world in worlds:
        assert not other_worlds.own_words(world) & other_worlds.own_words(BUILT_IN)
        assert not set(world.pools["person"]) & set(BUILT_IN.pools["person"])


def test_no_coined_word_stands_in_two_worlds(worlds):
    coined = [other_worlds.own_words(world) - set(other_worlds.PARTICIPLES) for world in worlds]
    assert len(set().union(*coined)) == sum(map(len, coined)) > 60 * SEEN


def test_an_english_word_means_something_else_in_each_world(worlds):
    shapes: dict[str, set[tuple[str, str, str]]] = {}
    for world in worlds:
        for relation in world.relations.values():
            shape = relation.verb, relation.preposition, relation.pool
            shapes.setdefault(relation.word, set()).add(shape)
    english = [shapes[word] for word in other_worlds.PARTICIPLES if word in shapes]
    assert len(english) > 100
    assert sum(len(found) > 1 for found in english) > 0.8 * len(english)


def test_passages_and_questions_share_no_word_that_must_not_be_shared(document):
    other_worlds.refuse_shared(document)


@pytest.mark.parametrize("kind", ["name", "relation", "passage", "question"])
def test_what_is_shared_is_refused(document, kind):
    planted = copy.deepcopy(document)
    paragraph = planted["data"][-1]["paragraphs"][-1]
    built_in = sample_squad("dev")["data"][0]["paragraphs"][0]
    if kind == "name":
        paragraph["context"] += " The kelvar harp is red."
    elif kind == "relation":
        paragraph["qas"][-1]["question"] = "Who Built the harp?"
    elif kind == "passage":
        paragraph["context"] = built_in["context"]
    else:
        paragraph["qas"][-1]["question"] = built_in["qas"][0]["question"]
    with pytest.raises(ValueError, match="shared with the built-in corpus"):
        other_worlds.refuse_shared(planted)


def test_a_world_has_the_shapes_of_the_built_in_one(worlds):
    def shapes(world: World) -> list[Any]:
        return [
            sorted(
                (relation.verb, relation.preposition, relation.pool)
                for relation in map(world.relations.__getitem__, theme.relations)
            )
            for theme in world.themes
        ]

    wanted = [sorted(pool for _, _, pool in theme) for theme in shapes(BUILT_IN)]
    for world in worlds:
        assert [sorted(pool for _, _, pool in theme) for theme in shapes(world)] == wanted
        assert [theme.nouns for theme in world.themes] == [theme.nouns for theme in BUILT_IN.themes]


def test_the_same_number_of_worlds_gives_the_same_questions_and_more_worlds_only_add_some(document):
    more = other_worlds.questions(READ + 1)
    assert more["data"][: len(document["data"])] == document["data"]
    assert len(more["data"]) > len(document["data"])
