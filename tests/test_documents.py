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
PART = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]+\.md)#([^)\s]+)\)")
MOST_WORDS = 700


@pytest.mark.parametrize("name", DOCUMENTS, ids=plain)
def test_every_linked_file_is_there(name: str) -> None:
    document = PROJECT / name
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS, ids=plain)
def test_every_linked_heading_is_there(name: str) -> None:
    document = PROJECT / name
    links = [
        (document.parent / link, anchor)
        for link, anchor in PART.findall(document.read_text(encoding="utf-8"))
    ]
    assert [link for link in links if link[1] not in anchors(link[0].read_text(encoding="utf-8"))] == []


def anchors(text: str) -> set[str]:
    """Return what the headings of a document are linked by, as GitHub names them."""
    headings = re.findall(r"(?m)^#+ +(.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_heading_is_linked_as_github_names_it() -> None:
    assert anchors("# A title\n\n## 2026-11-24 — 8,100 windows of `x`\ntext\n") == {
        "a-title",
        "2026-11-24--8100-windows-of-x",
    }
    assert PART.findall("[a](x.md#one-two), [b](x.md), [c](#here)") == [("x.md", "one-two")]


def test_a_link_to_nothing_is_found() -> None:
    assert LINK.findall("[here](docs/none.md#part), [there](https://example.org/x.md), [above](#part)") == [
        "docs/none.md"
    ]


def words_of_prose(text: str) -> list[str]:
    """Return the words that are read: without code, tables, the picture, and where links lead."""
    prose = re.sub(r"(?s)```.*?```|<picture>.*?</picture>", "", text)
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith("|"))
    return re.findall(r"\w[\w'.-]*", re.sub(r"\]\(.*?\)", "]", prose))


def test_words_are_counted_where_they_are_read() -> None:
    text = "Two [words](docs/a.md).\n\n```\nnot these\n```\n\n| nor | these |\n\n<picture>\nnor\n</picture>\n"
    assert words_of_prose(text) == ["Two", "words"]


def test_the_readme_is_short_and_leads_to_every_guide() -> None:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert 300 < len(words_of_prose(text)) <= MOST_WORDS
    guides = {f"docs/guide/{path.name}" for path in (PROJECT / "docs" / "guide").glob("*.md")}
    assert guides <= set(LINK.findall(text))
