"""Ids of parametrised tests can be pasted into a shell."""

import re

import pytest

from tests.ids import LONGEST, plain, strange


def test_signs_that_a_shell_reads_become_dashes() -> None:
    assert plain("row 1.question (article 'Rivers'): found $\\") == "row-1.question-article-Rivers-found"
    assert plain(b'{"data":\n [1 2]}\xff') == "data-1-2"
    assert plain(re.compile(r"a\.b")) == "a-.b"
    assert plain("x" * 500) == "x" * LONGEST


def test_a_mapping_is_written_as_dotted_names_with_their_values() -> None:
    assert plain({"quantize": {"bits": 8, "scheme": "nf4 double"}, "lora": {}}) == (
        "quantize.bits=8,quantize.scheme=nf4-double,lora"
    )
    assert plain(("bert", "span")) == "bert-span"
    assert plain(["evaluate", "--set", "a=b"]) == "evaluate-set-a=b"


def test_what_has_no_other_signs_has_the_name_of_its_parameter() -> None:
    for value in ("", "$ \u200b", re.compile("[^']"), lambda: None):
        assert plain(value, "word") == "word"


def test_what_pytest_names_itself_or_has_no_name_that_every_process_finds_is_left_to_it() -> None:
    for value in (3, 0.5, None, True, object(), [object()], {"a": {1, 2}}, {1: 2}, plain, (), {}):
        assert plain(value, "name") is None


def test_an_id_that_is_not_plain_is_found() -> None:
    good = [
        "tests/test_a.py::test_b",
        "tests/test_a.py::TestC::test_b[bert-span-1e-05]",
        "t.py::t[s3://a=b,c+d]",
    ]
    bad = [
        f"t.py::t[{text}]" for text in ("a b", "a'b", "a$b", "a\\x1b", "[1]", "<lambda>", "a|b", "ä", "a;b")
    ]
    assert strange(good + bad) == bad


def test_a_test_whose_id_is_not_plain_is_refused_by_name(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "from tests.conftest import pytest_collection_modifyitems, pytest_make_parametrize_id"
    )
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.parametrize("text", ["some words", lambda: 0])
        def test_named_by_the_hook(text): pass
        @pytest.mark.parametrize("text", [1], ids=["own words"])
        def test_named_by_hand(text): pass
        """
    )
    done = pytester.runpytest("-p", "no:cacheprovider")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    shown = "\n".join([*done.outlines, *done.errlines])
    assert "test_named_by_hand[own words]" in shown
    assert "test_named_by_the_hook" not in shown
