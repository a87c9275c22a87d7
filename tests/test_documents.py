"""The documents: every file that one links to is there, and the README stays short enough to be read."""

import re
from pathlib import Path

import pytest

from tests.ids import plain

PROJECT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(PROJECT).as_posix()
    for path in (*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), PROJECT / "cluster" / "README.md")
)
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
MOST_WORDS = 900


@pytest.mark.parametrize("name", DOCUMENTS, ids=plain)
def test_every_linked_file_is_there(name: str) -> None:
    document = PROJECT / name
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_a_link_to_nothing_is_found() -> None:
    assert LINK.findall("[here](docs/none.md#part), [there](https://example.org/x.md), [above](#part)") == [
        "docs/none.md"
    ]


def test_the_readme_is_short_and_leads_to_every_guide() -> None:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= MOST_WORDS
    guides = {f"docs/guide/{path.name}" for path in (PROJECT / "docs" / "guide").glob("*.md")}
    assert guides <= set(LINK.findall(text))
