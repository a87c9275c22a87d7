"""docs/python.md is what the docstrings say."""

from pathlib import Path

import qa_sweeps
from qa_sweeps.reference import markdown

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"


def test_the_page_is_made_from_the_docstrings() -> None:
    assert PAGE.read_text() == markdown(), "python -m qa_sweeps.reference > docs/python.md"


def test_the_page_has_every_public_name_with_its_arguments() -> None:
    page = markdown()
    assert all(f"qa_sweeps.{name}" in page or f"- `{name}`" in page for name in qa_sweeps.__all__)
    assert "- `max_memory_mb`: take the best model" in page
    assert "config: str | os.PathLike[str] | Mapping[str, Any] = 'quickstart'," in page
    assert "### Sweep.front" in page
