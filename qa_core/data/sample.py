"""The built-in corpus: generated passages about invented things, in the SQuAD v2.0 layout.

It is for runs without a hub. A passage tells facts of several types about one or two entities of a theme.
The type of the answer that a question asks for finds a little more than half of the answers; for the rest,
its relation and its entity must be read. Words and patterns are in `sample_grammar.py`. Standard library
only; a seed gives the same bytes on every machine.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from qa_core.data.sample_grammar import BUILT_IN, Relation, Theme, World

SPLITS = ("train", "dev")
TRAIN_ARTICLES_PER_THEME = 8
PASSAGES_PER_ARTICLE = {"train": 18, "dev": 9}
QUESTIONS_PER_PASSAGE = 5


@dataclass(frozen=True)
class Difficulty:
    """How passages and questions are made. Each larger share is harder."""

    dev_articles_per_theme: int = 2
    entity_counts: tuple[int, ...] = (1, 2)  # of a passage; drawn with equal chance
    facts: int = 5  # of a passage, shared out between the entities
    same_type_share: float = 0.35  # chance that a fact may be of a type that the passage has already
    shared_relations_share: float = 0.4  # chance that a fact's relation is one that the first entity has too
    joined_share: float = 0.7  # chance that two facts of an entity stand in one sentence
    pronoun_share: float = (
        0.0  # chance that a sentence after one on the same entity calls it "it" or "this person"
    )
    shared_noun_share: float = 0.25  # chance that all entities of a passage are named by one noun
    synonym_share: float = 0.0  # chance that a question uses another word for the relation than the passage
    unanswerable_share: float = 0.25
    about_other_share: float = (
        0.4  # of the unanswerable, chance that the passage gives the fact for another entity
    )
    type_told_share: float = 0.5  # of the unanswerable, chance that the passage has a value of the asked type


PLAIN = Difficulty()
HARD = Difficulty(
    dev_articles_per_theme=4,  # with so many questions, intervals over articles tell small differences
    entity_counts=(1, 2, 3),
    facts=6,
    shared_relations_share=0.5,
    pronoun_share=0.15,
    shared_noun_share=0.3,
    synonym_share=0.2,
)
STATEMENT_FORMS = 2
QUESTION_FORMS = 3

DEV_NAME_STEP = 5  # every fifth combination of a name and a noun is kept for dev
Item = TypeVar("Item")


@dataclass(frozen=True)
class _Fact:
    entity: str
    relation: Relation
    value: str
    start: int = -1  # where the value begins in the passage


def sample_squad(split: str, seed: int = 0, difficulty: Difficulty = PLAIN) -> dict[str, Any]:
    """Return the corpus as a parsed SQuAD v2.0 document.

    Args:
        split: "train" or "dev"; no entity and no passage of one occurs in the other.
        seed: another seed gives other passages over the same words.
        difficulty: HARD gives the hard corpus, over the same names.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split: found {split!r}; allowed: {', '.join(SPLITS)}")
    articles_per_theme = {"train": TRAIN_ARTICLES_PER_THEME, "dev": difficulty.dev_articles_per_theme}[split]
    rng = random.Random(f"sample/{split}/{seed}")
    articles: list[dict[str, Any]] = []
    for theme in BUILT_IN.themes:
        used_names: set[str] = set()
        for number in range(articles_per_theme):
            title = f"{theme.title}, {split} volume {number + 1}"
            articles.append(
                article(
                    rng,
                    BUILT_IN,
                    theme,
                    title=title,
                    passages=PASSAGES_PER_ARTICLE[split],
                    split=split,
                    used=used_names,
                    difficulty=difficulty,
                )
            )
    return document(articles, f"sample-{split}-{seed}")


def article(
    rng: random.Random,
    world: World,
    theme: Theme,
    *,
    title: str,
    passages: int,
    split: str,
    used: set[str],
    difficulty: Difficulty = PLAIN,
) -> dict[str, Any]:
    """Return an article of passages about a theme of a world, its questions without ids.

    Args:
        rng: advanced by what is drawn.
        split: "train" or "dev": which names may be taken.
        used: names that are taken already; those of this article are added.
    """
    paragraphs = [_paragraph(rng, world, theme, split, used, difficulty) for _ in range(passages)]
    return {"title": title, "paragraphs": paragraphs}


def document(articles: list[dict[str, Any]], prefix: str) -> dict[str, Any]:
    """Return articles as a parsed SQuAD v2.0 document; questions are numbered behind `prefix`."""
    questions = [qa for item in articles for paragraph in item["paragraphs"] for qa in paragraph["qas"]]
    for number, question in enumerate(questions):
        question["id"] = f"{prefix}-{number:05d}"
    return {"version": "v2.0", "data": articles}


def _paragraph(
    rng: random.Random, world: World, theme: Theme, split: str, used: set[str], difficulty: Difficulty
) -> dict[str, Any]:
    entities = _entities(rng, world, theme, split, used, difficulty)
    facts = _facts(rng, world, theme, entities, difficulty)
    context, facts = _write(rng, facts, difficulty, is_person=not theme.nouns)
    questions = []
    absent = _absent(world, theme, entities, facts)
    for fact in _draw(rng, facts, QUESTIONS_PER_PASSAGE):
        if absent and rng.random() < difficulty.unanswerable_share:
            fact = _pick(rng, _fitting_absent(rng, absent, facts, difficulty))
            absent.remove(fact)
        questions.append(_question(rng, fact, difficulty))
    return {"context": context, "qas": questions}


def _entities(
    rng: random.Random, world: World, theme: Theme, split: str, used: set[str], difficulty: Difficulty
) -> list[str]:
    """Draw names that share no word, except a noun shared by all; an entity stands in one passage only."""
    count = _pick(rng, difficulty.entity_counts)
    firsts, seconds = world.given_names, world.family_names
    if theme.nouns:
        firsts, seconds = world.names, theme.nouns
    shares_noun = bool(theme.nouns) and rng.random() < difficulty.shared_noun_share
    while True:
        first_indices = _draw(rng, range(len(firsts)), count)
        second_indices = _draw(rng, range(len(seconds)), count)
        if shares_noun:
            second_indices = second_indices[:1] * count
        pairs = list(zip(first_indices, second_indices, strict=True))
        names = [f"{firsts[first]} {seconds[second]}" for first, second in pairs]
        is_dev = [(first + second) % DEV_NAME_STEP == 0 for first, second in pairs]
        if all(item == (split == "dev") for item in is_dev) and not used & set(names):
            used.update(names)
            return [f"the {name}" if theme.nouns else name for name in names]


def _facts(
    rng: random.Random, world: World, theme: Theme, entities: list[str], difficulty: Difficulty
) -> list[_Fact]:
    """Give each entity its relations, mostly those that the first has too; no value occurs twice."""
    facts: list[_Fact] = []
    taken = set(entities)
    first_words: list[str] = []
    for index, entity in enumerate(entities):
        count = difficulty.facts * (index + 1) // len(entities) - difficulty.facts * index // len(entities)
        words: list[str] = []
        while len(words) < count:
            shared = [word for word in first_words if word not in words]
            is_shared = bool(shared) and rng.random() < difficulty.shared_relations_share
            fitting = shared if is_shared else [word for word in theme.relations if word not in words]
            told = {world.relations[word].pool for word in (*first_words, *words)}
            new = [word for word in fitting if world.relations[word].pool not in told]
            words.append(_pick(rng, new if new and rng.random() >= difficulty.same_type_share else fitting))
        for word in words:
            relation = world.relations[word]
            value = _pick(rng, [item for item in world.pools[relation.pool] if item not in taken])
            taken.add(value)
            facts.append(_Fact(entity, relation, value))
        first_words = first_words or words
    return facts


def _write(
    rng: random.Random, facts: list[_Fact], difficulty: Difficulty, *, is_person: bool
) -> tuple[str, list[_Fact]]:
    """Return the passage and its facts with their places."""
    context = ""
    placed = []
    previous = None
    for group in _sentences(rng, facts, difficulty):
        subject = group[0].entity
        if subject == previous and rng.random() < difficulty.pronoun_share:
            subject = "this person" if is_person else "it"
        previous = group[0].entity
        context += f"{' ' if context else ''}{subject[0].upper()}{subject[1:]} "
        for number, fact in enumerate(group):
            statement = _pick(rng, fact.relation.statements(fact.value)[:STATEMENT_FORMS])
            context += f"{' and ' if number else ''}{statement}"
            placed.append(replace(fact, start=len(context) - len(fact.value)))
        context += "."
    return context, placed


def _sentences(rng: random.Random, facts: list[_Fact], difficulty: Difficulty) -> list[list[_Fact]]:
    """Group each entity's facts by one or two, sentences in random order."""
    groups: list[list[_Fact]] = []
    for fact in facts:
        joins = bool(groups) and groups[-1][0].entity == fact.entity and len(groups[-1]) < 2
        if joins and rng.random() < difficulty.joined_share:
            groups[-1].append(fact)
        else:
            groups.append([fact])
    return _draw(rng, groups, len(groups))


def _absent(world: World, theme: Theme, entities: list[str], facts: list[_Fact]) -> list[_Fact]:
    """List what could be asked of these entities and is not told."""
    told = {(fact.entity, fact.relation.word) for fact in facts}
    return [
        _Fact(entity, world.relations[word], "")
        for entity in entities
        for word in theme.relations
        if (entity, word) not in told
    ]


def _fitting_absent(
    rng: random.Random, absent: list[_Fact], facts: list[_Fact], difficulty: Difficulty
) -> list[_Fact]:
    """Choose the kind of unanswerable question: what the passage says of another entity, or of the same type."""
    words = {fact.relation.word for fact in facts}
    pools = {fact.relation.pool for fact in facts}
    if rng.random() < difficulty.about_other_share:
        about_other = [item for item in absent if item.relation.word in words]
        if about_other:
            return about_other
    type_told = rng.random() < difficulty.type_told_share
    rest = [item for item in absent if item.relation.word not in words]
    return [item for item in rest if (item.relation.pool in pools) == type_told] or rest or absent


def _question(rng: random.Random, fact: _Fact, difficulty: Difficulty) -> dict[str, Any]:
    is_told = fact.start >= 0
    relation = fact.relation
    # The plain corpus draws nothing here: its bytes are those of before there was a hard one.
    if difficulty.synonym_share and relation.synonym and rng.random() < difficulty.synonym_share:
        relation = replace(relation, word=relation.synonym)
    return {
        "id": "",
        "question": _pick(rng, relation.questions(fact.entity)[:QUESTION_FORMS]),
        "answers": [{"text": fact.value, "answer_start": fact.start}] if is_told else [],
        "is_impossible": not is_told,
    }


# Only `random()` of the standard generator is promised to give the same numbers in every Python.


def _pick(rng: random.Random, items: Sequence[Item]) -> Item:
    return items[int(rng.random() * len(items))]


def _draw(rng: random.Random, items: Sequence[Item], count: int) -> list[Item]:
    """Return `count` distinct items in random order, or all of them when there are fewer."""
    left = list(items)
    return [left.pop(int(rng.random() * len(left))) for _ in range(min(count, len(left)))]
