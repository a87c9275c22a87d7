"""docs/LOG.md merges by union, which can put lines of one entry into another or twice: what such a merge breaks."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parents[1] / "docs/LOG.md").read_text(encoding="utf-8")


def faults(text: str) -> list[str]:
    """Return headings without a blank line before, links without an entry or the reverse, and long lines alike."""
    lines = text.splitlines()
    found = [
        f"line {number}: no blank line before the heading"
        for number, line in enumerate(lines, 1)
        if line.startswith("## ") and lines[number - 2] != ""
    ]
    headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    found += [f"two entries {anchor}" for anchor in sorted({a for a in anchors if anchors.count(a) > 1})]
    links = re.findall(r"(?m)^\| [\d-]+ \| \[.*\]\(#(.+?)\) \|", text)
    found += [f"the index links to {link}, which is no entry" for link in links if link not in anchors]
    found += [f"no line of the index links to {anchor}" for anchor in anchors if anchor not in links]
    starts = [line[:45] for line in lines if len(line) > 60 and not line.startswith(("|", "**"))]
    found += [f"two versions of a line: {s}" for s in sorted({s for s in starts if starts.count(s) > 1})]
    dates = [heading[:10] for heading in headings]
    return found + ([] if dates == sorted(dates) else ["entries are not in the order of their dates"])


def test_the_log_is_whole() -> None:
    assert TEXT.count("\n## ") > 50
    assert faults(TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n\n## 2026-11-24 — adapters", "\n## 2026-11-24 — adapters", "no blank line before the heading"),
        ("## 2026-11-24 — adapters", "## 2026-11-24 — adaptors", "which is no entry"),
        ("| 2026-11-24 | [adapters]", "| [adapters]", "no line of the index links to 2026-11-24--adapters"),
        ("## 2026-11-24 — adapters", "## 2026-11-29 — adapters", "not in the order of their dates"),
        ("## 2026-11-24 — pruned storage", "## 2026-11-24 — adapters", "two entries 2026-11-24--adapters"),
    ],
)
def test_a_broken_log_is_found(old: str, new: str, message: str) -> None:
    assert TEXT.count(old) == 1
    assert message in "\n".join(faults(TEXT.replace(old, new)))


def test_two_versions_of_a_line_are_found() -> None:
    line = max((line for line in TEXT.splitlines() if not line.startswith(("|", "**"))), key=len)
    assert faults(f"{TEXT}{line[:60]}, corrected\n") == [f"two versions of a line: {line[:45]}"]
