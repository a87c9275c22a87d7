"""Words and sentence patterns of the built-in corpus: pools of values, relations, kinds of entity.

Every name is coined. A statement and the questions about it share the relation's main word, so that matching
words finds the kind of fact and the entity's name finds the right one. In the hard corpus a question may use another
word with the same meaning, which only training tells. `sample.py` puts passages together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Relation:
    """One kind of fact: "The Kelvar harp was built by Oren Vask" is of ("built", "was", "by", "person").

    A relation without a verb is a measure: "has a length of 38 metres" is of ("length", "", "", "metres").
    """

    word: str
    verb: str
    preposition: str
    pool: str  # where its values come from: a key of POOLS
    synonym: str = (
        ""  # another word for it, which only questions of the hard corpus use; empty: there is none
    )

    def statements(self, value: str) -> list[str]:
        """Return the predicates that give `value`, the plain one first."""
        if not self.verb:
            return [f"has a {self.word} of {value}", f"has a {self.word} of about {value}"]
        end = f"{self.word} {self.preposition} {value}"
        return [f"{self.verb} {end}", f"{self.verb} {ADVERBS[self.verb]} {end}"]

    def questions(self, entity: str) -> list[str]:
        """Return the questions that ask for this fact about `entity`, the plain one first."""
        word, verb, preposition, noun = self.word, self.verb, self.preposition, self.pool
        if not verb:
            return [
                f"What is the {word} of {entity}?",
                f"What {word} does {entity} have?",
                f"How great is the {word} of {entity}?",
            ]
        if self.pool == "person":
            first = (
                f"Who {word} {entity}?"
                if preposition == "by"
                else f"Who {verb} {entity} {word} {preposition}?"
            )
            return [
                first,
                f"{preposition.capitalize()} whom {verb} {entity} {word}?",
                f"Which {noun} {verb} {entity} {word} {preposition}?",
            ]
        if self.pool in WHERE_OR_WHEN and preposition == "in":
            first = f"{WHERE_OR_WHEN[self.pool]} {verb} {entity} {word}?"
        else:
            first = f"What {verb} {entity} {word} {preposition}?"
        return [
            first,
            f"{preposition.capitalize()} which {noun} {verb} {entity} {word}?",
            f"Which {noun} {verb} {entity} {word} {preposition}?",
        ]


@dataclass(frozen=True)
class Theme:
    """One kind of entity: the nouns that name it (none for people) and the words of its relations."""

    title: str
    nouns: tuple[str, ...]
    relations: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """All words that a corpus is made of; the sentence patterns are the same in every world."""

    names: tuple[str, ...]  # of entities, each before a theme's noun
    given_names: tuple[str, ...]
    family_names: tuple[str, ...]
    pools: Mapping[str, tuple[str, ...]]  # values of facts, by type: the keys of POOLS
    relations: Mapping[str, Relation]  # by their word
    themes: tuple[Theme, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADVERBS = {"was": "probably", "is": "still"}
WHERE_OR_WHEN = {"place": "Where", "year": "When"}

COINED_NAMES = _words(
    """Kelvar Oskin Tarvel Brumal Ednor Falwick Gorsay Hestin Ivarr Jolden Karth Lumeck Morvan Nessel
    Ostrey Pelham Quorin Rastel Selvey Thorne Ulmar Vaskell Wendry Yarrow Zellen Aldous Brackel Corvane
    Dunmar Elsby Ferrin Galmond Harrick Ilsen Jarvey Kolber Lorrin Mandrel Norwell Orsay Pallin Quen
    Rovick Sandry Tolmer Undry Varrow Wexley Yoren Zander Amsel Bellock Cardew Dravin Emberly Fosk
    Grenda Holmar Ingrel Jasper Kintal Lasko Mirrel Naddock Olvane Prasko Rendal Skelby Tirrel Ummer"""
)
GIVEN_NAMES = _words(
    """Oren Mira Tobin Hela Casper Runa Edric Lysa Bram Sanna Joren Petra Aldo Nima Viktor Elsa Garth Tilda
    Ivo Wren Osric Dalia Fenn Greta Hugo Isolde Kai Lotta Marek Nadia"""
)
FAMILY_NAMES = _words(
    """Vask Tarn Holloway Brisk Dunmore Ekholm Farrow Glint Harrow Ilves Juno Kessel Lark Moss Nettle Oake
    Pike Quill Rook Sorrel Thistle Umber Vane Wick Yule Zoller Ash Birch Cole Drake"""
)
POOLS = {
    "person": tuple(f"{given} {family}" for given in GIVEN_NAMES for family in FAMILY_NAMES),
    "place": _words(
        """Ardemar Belsk Corran Dorvik Elmarsh Fennick Garrowby Hollin Istmere Jurna Kolsk Lindow Marrick
        Northolt Orvane Pelgard Quarrel Rimsk Sallow Tarrant Umberly Vessen Wolden Yarmond Zarnow Askel
        Brenmoor Calder Durness Estvale Frosk Gilway Haldane Inver Jorvik Loxton Merrow Nantry Oldholm
        Purlock"""
    ),
    "year": tuple(str(year) for year in range(1307, 1900, 9)),
    "colour": _words(
        """red blue green yellow purple orange white black grey brown pink violet scarlet turquoise silver
        golden cream indigo"""
    ),
    "material": _words(
        """oak copper granite glass iron marble bronze clay silk leather bamboo amber ivory slate tin wool
        brass walnut pearl flint"""
    ),
    "metres": tuple(f"{number} metres" for number in range(11, 99, 3)),
    "centimetres": tuple(f"{number} centimetres" for number in range(10, 99, 3)),
}
SYNONYMS = dict(
    pair.split(":")
    for pair in _words(
        """built:constructed repaired:fixed designed:devised discovered:identified described:portrayed
    founded:established taught:schooled helped:assisted raised:nurtured owned:possessed led:headed watched:observed
    named:called married:wedded finished:completed sold:auctioned moved:relocated opened:inaugurated closed:shuttered
    seen:spotted counted:tallied protected:shielded crowned:enthroned honoured:celebrated kept:housed based:located
    trained:coached buried:interred studied:researched brought:fetched found:encountered made:fashioned
    covered:coated lined:padded known:famed paid:rewarded painted:tinted dressed:outfitted shown:depicted
    length:extent height:elevation width:breadth span:wingspan reach:range girth:circumference"""
    )
)
RELATIONS = {
    relation.word: replace(relation, synonym=SYNONYMS.get(relation.word, ""))
    for relation in (
        *(
            Relation(word, "was", "by", "person")
            for word in _words("built repaired designed discovered described")
        ),
        *(Relation(word, "was", "by", "person") for word in _words("founded taught helped raised")),
        *(Relation(word, "is", "by", "person") for word in _words("owned led watched")),
        Relation("named", "is", "after", "person"),
        Relation("married", "was", "to", "person"),
        *(Relation(word, "was", "in", "year") for word in _words("finished sold moved opened closed seen")),
        *(Relation(word, "was", "in", "year") for word in _words("counted protected born crowned honoured")),
        *(Relation(word, "is", "in", "place") for word in _words("kept based trained buried studied")),
        Relation("brought", "was", "from", "place"),
        Relation("found", "is", "near", "place"),
        Relation("made", "is", "of", "material"),
        Relation("covered", "is", "with", "material"),
        Relation("lined", "is", "with", "material"),
        Relation("known", "is", "for", "material"),
        Relation("paid", "is", "in", "material"),
        *(Relation(word, "is", "in", "colour") for word in _words("painted dressed shown")),
        *(Relation(word, "", "", "metres") for word in _words("length height width")),
        *(Relation(word, "", "", "centimetres") for word in _words("span reach girth")),
    )
}
TOOLS = _words("built repaired designed owned finished sold moved kept brought found made covered lined")
THEMES = (
    Theme("Instruments", _words("harp flute drum organ lute horn bell fiddle"), TOOLS),
    Theme("Machines", _words("pump press mill clock furnace engine plough winch"), TOOLS),
    Theme(
        "Ships",
        _words("ferry barge sloop raft cutter galley dinghy trawler"),
        _words("built repaired owned named finished sold opened kept brought found length height width"),
    ),
    Theme(
        "Animals",
        _words("lizard finch goat moth hare newt owl trout"),
        _words(
            "discovered described named watched seen counted protected kept found studied span reach girth"
        ),
    ),
    Theme(
        "Guilds",
        _words("guild society league order circle union company lodge"),
        _words("founded led owned helped opened closed moved based trained found known paid dressed painted"),
    ),
    Theme(
        "Places",
        _words("tower bridge castle chapel garden harbour hall well"),
        _words("built repaired designed named finished opened closed made covered lined length height width"),
    ),
    Theme(
        "People",
        (),
        _words(
            "taught helped raised married born crowned honoured based trained buried shown dressed painted"
        ),
    ),
)
BUILT_IN = World(COINED_NAMES, GIVEN_NAMES, FAMILY_NAMES, POOLS, RELATIONS, THEMES)
