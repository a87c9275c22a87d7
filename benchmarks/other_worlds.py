"""Questions about other worlds than the built-in corpus's, for the networks that `pretrain_sample.py` makes.

Sentence patterns, types of values, and how passages are put together are those of `qa_core/data/sample.py`. Names of
things, people and places are coined anew for each world, and so are its relations, each of the shape (verb,
preposition, type of value) of a built-in one. Six in ten words for relations are coined and stand in one world alone;
the others are English participles, which mean something else in each world ("was carved in" a year here, "is carved by"
a person there). So a network cannot learn what a relation's word means. It can learn to find the words of a question in
a passage, and to tell from the patterns where the answer begins and ends.

Kinds of things (harp, ferry), years, colours, materials and measures recur, and so do function words. No name and no
word for a relation is one of the built-in corpora, whatever its capitals, and no passage or question is: see
`refuse_shared`. Coined words are of syllables, so that the pieces of a tokenizer that is trained on them also spell
words that it has not seen.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from qa_core.data.sample import HARD, PLAIN, article, document, sample_squad
from qa_core.data.sample_grammar import BUILT_IN, Theme, World

PASSAGES_PER_THEME = 12
ENGLISH_SHARE = 0.4  # of the words for relations
NAMES, GIVEN, FAMILY, PLACES = 24, 10, 10, 20


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# What stands several times is drawn more often.
ONSETS = _split(
    """b b b c c d d d f f f g g h h h j k k l l l l m m m m n n n p p p r r r r s s s s t t t v v w w w y z br bl cl
    cr dr fl fr gl gr pl pr sk st th tr wh ch sh qu"""
)
VOWELS = _split("a a a a a e e e e e i i i i o o o o u u u ai ea oo ou ow y")
CODAS = _split(
    """n n n n r r r r r l l l l s s s m m m t t d d g b ck k sk st nd ng rk rn rd ll ss th v w x"""
)
NAME_ENDINGS = _split(
    """ar er or el al il en an in on ay ey ow as is us ick ell and ard orn ane ley ham ton more mar wick dale a a o e
    ia"""
)
PARTICIPLE_ENDINGS = _split("ed ed ed ed ed t t ght n en own d")
MEASURE_ENDINGS = _split("th th gth ght an ch")
PARTICIPLES = _split(
    """accepted accused admired advised anchored appointed attacked baked banned bent blamed blessed boiled bored
    borrowed bought bound broken burned carried carted carved caught chased chosen cleaned cleared climbed conquered
    copied crossed cured cursed defended delivered destroyed dismissed docked drained drawn driven dyed
    eaten edited elected engraved examined exiled feared fed filmed fined flooded followed forged forgotten freed
    gathered governed guarded guided hammered handled hated healed hidden hired hunted insured jailed joined judged
    knitted launched leased left lifted loaded lost loved mapped marked measured melted mended milked offered
    ordered planned planted played polished posted poured praised prepared priced printed produced promoted proved
    published quoted received recorded refused remembered renamed rented replaced rescued restored returned ridden
    robbed rowed ruined ruled sailed salted saved sealed sent sewn shaped sheared shipped signed sketched smoked
    sorted stamped steered stitched stolen stored sung surveyed tamed taxed tested threatened towed traded
    translated trapped treated tuned visited warned washed weighed welded worn wounded woven wrapped written"""
)


def world(number: int, taken: set[str]) -> World:
    """Return one world; the same number and the same words taken give the same one.

    Args:
        number: which world.
        taken: lower-case words that none of its names and relations may be; those that are coined are added.
    """
    rng = random.Random(f"other worlds/{number}")

    def words(count: int, coin: Callable[[random.Random], str]) -> tuple[str, ...]:
        found: list[str] = []
        while len(found) < count:
            word = coin(rng)
            if word.lower() not in taken and word not in found:
                found.append(word)
                taken.update({word.lower()} - set(PARTICIPLES))
        return tuple(found)

    given, family = words(GIVEN, _name), words(FAMILY, _name)
    shapes = list(BUILT_IN.relations.values())
    participles = iter(words(len(shapes), _participle))
    relations = {
        word: replace(shape, word=word, synonym="")
        for shape in shapes
        for word in ([next(participles)] if shape.verb else words(1, _measure))
    }
    by_pool: dict[str, list[str]] = {}
    for word, relation in relations.items():
        by_pool.setdefault(relation.pool, []).append(word)
    themes = tuple(
        Theme(
            " ".join(words(1, _name)),
            theme.nouns,
            _of_the_types(rng, theme, by_pool),
        )
        for theme in BUILT_IN.themes
    )
    people = tuple(f"{first} {second}" for first in given for second in family)
    pools = {**BUILT_IN.pools, "person": people, "place": words(PLACES, _name)}
    return World(words(NAMES, _name), given, family, pools, relations, themes)


def worlds(count: int) -> Iterator[World]:
    """Yield worlds that share no coined word with each other or with the built-in corpus."""
    taken = set(built_in_words())
    for number in range(count):
        yield world(number, taken)


def questions(count: int) -> dict[str, Any]:
    """Return the questions of the first `count` worlds as a parsed SQuAD v2.0 document, one article for each theme."""
    articles = []
    for number, item in enumerate(worlds(count)):
        rng = random.Random(f"other worlds/{number}/passages")
        for theme in item.themes:
            title = f"{theme.title}, world {number}"
            articles.append(
                article(rng, item, theme, title=title, passages=PASSAGES_PER_THEME, split="train", used=set())
            )
    return document(articles, "worlds")


@cache
def built_in_words() -> frozenset[str]:
    """Return every word that the built-in corpora can say, but the pronouns of the hard one, in lower case."""
    pools = [text for pool in BUILT_IN.pools.values() for text in pool]
    nouns = [text for theme in BUILT_IN.themes for text in (theme.title, *theme.nouns)]
    documents = [sample_squad(split) for split in ("train", "dev")]
    texts = [text for item in documents for text in passages_and_questions(item)]
    return frozenset(_words_of([*own_words(BUILT_IN), *pools, *nouns, *texts]))


def own_words(world: World) -> set[str]:
    """Return the words, in lower case, that no other world may say: of names, people, places and relations."""
    names = (*world.names, *world.given_names, *world.family_names, *world.pools["place"])
    synonyms = [relation.synonym for relation in world.relations.values() if relation.synonym]
    return {word.lower() for word in (*names, *world.relations, *synonyms)}


def passages_and_questions(document: dict[str, Any]) -> Iterator[str]:
    """Yield the texts of a SQuAD document."""
    for part in document["data"]:
        for paragraph in part["paragraphs"]:
            yield paragraph["context"]
            yield from (question["question"] for question in paragraph["qas"])


def refuse_shared(document: dict[str, Any]) -> None:
    """Refuse questions that share with the built-in corpus what they must not.

    Raises:
        ValueError: names words, passages and questions that are shared.
    """
    texts = set(passages_and_questions(document))
    own = {text for item in _built_in_documents() for text in passages_and_questions(item)}
    shared = sorted(_words_of(texts) & own_words(BUILT_IN)) + sorted(texts & own)
    if shared:
        raise ValueError(f"shared with the built-in corpus: {len(shared)}, the first of them {shared[:5]}")


def _built_in_documents() -> list[dict[str, Any]]:
    return [
        sample_squad(split, difficulty=difficulty)
        for difficulty in (PLAIN, HARD)
        for split in ("train", "dev")
    ]


def _words_of(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text.lower())}


def _of_the_types(rng: random.Random, theme: Theme, by_pool: dict[str, list[str]]) -> tuple[str, ...]:
    """Return as many relations as the built-in theme has, of the same types."""
    left = {pool: list(words) for pool, words in by_pool.items()}
    pools = [BUILT_IN.relations[word].pool for word in theme.relations]
    return tuple(left[pool].pop(int(rng.random() * len(left[pool]))) for pool in pools)


def _any(rng: random.Random, items: Sequence[str]) -> str:
    return items[int(rng.random() * len(items))]


def _syllable(rng: random.Random) -> str:
    onset = _any(rng, ONSETS) if rng.random() < 0.85 else ""
    return onset + _any(rng, VOWELS)


def _noun(rng: random.Random) -> str:
    first = _syllable(rng) + _any(rng, CODAS)
    return first + (_syllable(rng) + _any(rng, CODAS) if rng.random() < 0.3 else "")


def _name(rng: random.Random) -> str:
    first = _syllable(rng) + _any(rng, CODAS)
    return (first + _any(rng, NAME_ENDINGS)).capitalize() if rng.random() < 0.75 else _noun(rng).capitalize()


def _participle(rng: random.Random) -> str:
    if rng.random() < ENGLISH_SHARE:
        return _any(rng, PARTICIPLES)
    if rng.random() < ENGLISH_SHARE:
        return _any(rng, PARTICIPLES)
    if rng.random() < ENGLISH_SHARE:
        return _any(rng, PARTICIPLES)
    stem = _syllable(rng) + (_any(rng, CODAS) if rng.random() < 0.7 else "")
    return stem + _any(rng, PARTICIPLE_ENDINGS)


def _measure(rng: random.Random) -> str:
    return _syllable(rng) + (_any(rng, CODAS) if rng.random() < 0.3 else "") + _any(rng, MEASURE_ENDINGS)
