"""Plain values against annotations: what is taken, what is refused, and in which words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from qa_core.errors import ConfigError
from qa_core.values import Setting, check_ranges, convert, from_dict, shown, words


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 8.0, 8),
        (float, "3e-4", 3e-4),
        (float, 1, 1.0),
        (bool, True, True),
        (int | None, None, None),
        (Literal["auto"] | float, "auto", "auto"),
        (Literal["auto"] | float, 2, 2.0),
        (tuple[int, ...], [1, 2], (1, 2)),
        (list[str], ("a", "b"), ["a", "b"]),
        (Sequence[Mapping[str, Any]], [{"a": 1}], ({"a": 1},)),
        (Mapping[str, float], {"a": 1}, {"a": 1.0}),
        (Annotated[int, Setting("A count.", at_least=1)], 0, 0),  # ranges are looked at on the whole record
    ],
)
def test_a_value_of_the_type_is_taken(hint: Any, value: Any, expected: Any) -> None:
    found = convert(hint, value, "x")
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, 2.5, "x: found 2.5; allowed: a whole number"),
        (int, True, "x: found True; allowed: a whole number"),
        (float, float("nan"), "x: found nan; allowed: a finite number"),
        (float, "many", "x: found 'many'; allowed: a finite number"),
        (bool, 1, "x: found 1; allowed: true or false"),
        (str, 1, "x: found 1; allowed: text"),
        (int | None, "a", "x: found 'a'; allowed: a whole number or null"),
        (Literal["min", "max"], "mix", "x: found 'mix'; allowed: min or max; did you mean 'min'?"),
        (Literal["auto"] | float, True, "x: found True; allowed: auto or a finite number"),
        (tuple[int, ...], "12", "x: found '12'; allowed: a list of whole numbers"),
        (tuple[int, ...] | None, 3, "x: found 3; allowed: a list of whole numbers or null"),
        (Mapping[str, int], [], "x: found []; allowed: a mapping"),
        (Sequence[Mapping[str, Any]], [{}, 3], "x[1]: found 3; allowed: a mapping"),
        (Mapping[str, Mapping[str, int]], {"a": {"b": "c"}}, "x.a.b: found 'c'; allowed: a whole number"),
    ],
)
def test_another_value_is_refused_with_its_place_and_what_is_allowed(
    hint: Any, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(hint, value, "x")
    assert str(caught.value) == message


@pytest.mark.parametrize(("hint", "value"), [(int, 8.0), (float, "3e-4"), (float, 10**400)])
def test_files_of_the_project_hold_numbers_as_numbers(hint: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^x: found"):
        convert(hint, value, "x", strict=True)


@dataclass(frozen=True)
class Ranges:
    """One field for each kind of range."""

    share: Annotated[float, Setting("A share.", "share", at_least=0, below=1)] = 0.5
    count: Annotated[int | None, Setting("A count. null: none.", at_least=1)] = None
    points: Annotated[tuple[int, ...], Setting("Points.", above=0)] = ()
    word: Annotated[str, Setting("A word.", allowed=("left", "right", "none"))] = "left"
    name: Annotated[str, Setting("A name.", pattern="[a-z]+")] = "a"
    most: Annotated[float, Setting("At most three.", at_most=3)] = 3.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.0}, "r.share: found 1.0; allowed: 0 <= share < 1"),
        ({"share": -0.1}, "r.share: found -0.1; allowed: 0 <= share < 1"),
        ({"count": 0}, "r.count: found 0; allowed: 1 or more, or null"),
        ({"points": [3, 0]}, "r.points: found [3, 0]; allowed: each a number above 0"),
        ({"word": "rigth"}, "r.word: found 'rigth'; allowed: left, right, none; did you mean 'right'?"),
        ({"name": "a\n"}, "r.name: found 'a\\n'; allowed: text of the form [a-z]+"),
        ({"most": 3.1}, "r.most: found 3.1; allowed: 3 or less"),
    ],
)
def test_a_value_outside_its_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_ranges(from_dict(Ranges, values), "r")
    assert str(caught.value) == message


def test_the_ends_of_a_range_and_null_are_taken() -> None:
    check_ranges(Ranges(share=0.0, count=None, points=(1,), word="none", name="z", most=3.0), "r")


def test_a_long_value_is_cut_and_types_have_words() -> None:
    assert shown("x" * 100) == "'" + "x" * 59 + "..."
    assert words(Annotated[tuple[int, ...] | None, Setting("Some.")]) == "a list of whole numbers or null"
