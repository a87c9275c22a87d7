"""Words that errors are made of."""

from qa_core.errors import counted


def test_a_count_has_the_noun_in_its_number() -> None:
    assert [counted(count, "finished trial") for count in (0, 1, 2)] == [
        "0 finished trials",
        "1 finished trial",
        "2 finished trials",
    ]
