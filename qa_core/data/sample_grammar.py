"""Words and sentence patterns of the built-in corpus: pools of values, relations, kinds of entity.

Every name is coined. A statement and the questions about it share the relation's main word, so that matching
words finds the kind of fact and the entity's name finds the right one. `sample.py` puts passages together.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One kind of fact: "The Kelvar harp was built by Oren Vask" is of ("built", "was", "by", "person").

    A relation without a verb is a measure: "has a length of 38 metres" is of ("length", "", "", "metres").
    """

    word: str
    verb: str
    preposition: str
    pool: str  # where its values come from: a key of POOLS

    def statements(self, value: str) -> list[str]:
        """Return the predicates that give `value`, the plain one first."""
        if not self.verb:
            return [f"has a {self.word} of {value}", f"has a {self.word} of about {value}"]
        article = ("an " if value[0] in "aeiou" else "a ") if self.pool in COUNTED else ""
        end = f"{self.word} {self.preposition} {article}{value}"
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


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADVERBS = {"was": "probably", "is": "still"}
COUNTED = {"animal", "tool"}
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
    "food": _words(
        """moss berries snails acorns honey mushrooms clover herring barley walnuts beetles turnips plums
        crabs roots chestnuts pollen shrimps"""
    ),
    "animal": _words(
        """heron otter badger falcon wolf stag raven salmon lynx beaver swan hedgehog toad ram crane weasel
        mole boar"""
    ),
    "tool": _words(
        """hammer lantern compass chisel needle hook kettle ladder bellows sickle loom mirror rope saddle
        whistle candle"""
    ),
    "metres": tuple(f"{number} metres" for number in range(11, 99, 3)),
    "kilograms": tuple(f"{number} kilograms" for number in range(12, 99, 3)),
    "centimetres": tuple(f"{number} centimetres" for number in range(10, 99, 3)),
    "grams": tuple(f"{number} grams" for number in range(11, 99, 3)),
}
RELATIONS = {
    relation.word: relation
    for relation in (
        Relation("built", "was", "by", "person"),
        Relation("owned", "is", "by", "person"),
        Relation("repaired", "was", "by", "person"),
        Relation("discovered", "was", "by", "person"),
        Relation("described", "was", "by", "person"),
        Relation("founded", "was", "by", "person"),
        Relation("led", "is", "by", "person"),
        Relation("taught", "was", "by", "person"),
        Relation("named", "is", "after", "person"),
        Relation("married", "was", "to", "person"),
        Relation("finished", "was", "in", "year"),
        Relation("sold", "was", "in", "year"),
        Relation("seen", "was", "in", "year"),
        Relation("closed", "was", "in", "year"),
        Relation("born", "was", "in", "year"),
        Relation("honoured", "was", "in", "year"),
        Relation("kept", "is", "in", "place"),
        Relation("brought", "was", "from", "place"),
        Relation("found", "is", "near", "place"),
        Relation("based", "is", "in", "place"),
        Relation("raised", "was", "in", "place"),
        Relation("made", "is", "of", "material"),
        Relation("known", "is", "for", "material"),
        Relation("painted", "was", "in", "colour"),
        Relation("coloured", "is", "in", "colour"),
        Relation("dressed", "is", "in", "colour"),
        Relation("fed", "is", "on", "food"),
        Relation("marked", "is", "with", "animal"),
        Relation("shown", "is", "with", "tool"),
        Relation("length", "", "", "metres"),
        Relation("weight", "", "", "kilograms"),
        Relation("span", "", "", "centimetres"),
        Relation("mass", "", "", "grams"),
    )
}
THINGS = _words("built owned repaired finished sold kept brought made painted length weight")
THEMES = (
    Theme("Instruments", _words("harp flute drum organ lute horn bell fiddle"), THINGS),
    Theme("Machines", _words("pump press mill clock furnace engine plough winch"), THINGS),
    Theme("Ships", _words("ferry barge sloop raft cutter galley dinghy trawler"), THINGS),
    Theme(
        "Animals",
        _words("lizard finch goat moth hare newt owl trout"),
        _words("discovered described named seen found brought coloured fed span mass"),
    ),
    Theme(
        "Guilds",
        _words("guild society league order circle union company lodge"),
        _words("founded led named closed based known dressed marked shown owned"),
    ),
    Theme(
        "Places",
        _words("tower bridge castle chapel garden harbour hall well"),
        _words("built repaired named finished closed found made painted marked length"),
    ),
    Theme(
        "People",
        (),
        _words("taught married described named born honoured raised known dressed shown"),
    ),
)
