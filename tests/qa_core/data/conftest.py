"""A small hand-made data set, and ways to put it on disk and change it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qa_core.data.squad import QaTable, read_squad

RIVER = "The Oder rises in the Odra Hills and flows 840 km to the sea."
TOWER = "Ina Brandt built the tower in 1912. It stands 61 m tall."
BREAD = "Rye bread keeps for a week."


def question(identity: str, text: str, *answers: tuple[str, int], **more: Any) -> dict[str, Any]:
    """One question in the JSON layout."""
    found = [{"text": answer, "answer_start": start} for answer, start in answers]
    return {"id": identity, "question": text, "answers": found, **more}


def squad_document() -> dict[str, Any]:
    """Two articles, three paragraphs, six questions of which two are unanswerable, in the layout of v2.0."""
    return {
        "version": "v2.0",
        "data": [
            {
                "title": "Rivers",
                "paragraphs": [
                    {
                        "context": RIVER,
                        "qas": [
                            question(
                                "r1", "Where does the Oder rise?", ("the Odra Hills", 18), ("Odra Hills", 22)
                            ),
                            question("r2", "How long is the Oder?", ("840 km", 43)),
                        ],
                    }
                ],
            },
            {
                "title": "Towns",
                "paragraphs": [
                    {
                        "context": TOWER,
                        "qas": [
                            question("t1", "Who built the tower?", ("Ina Brandt", 0), is_impossible=False),
                            question(
                                "t2",
                                "Who burnt the tower?",
                                is_impossible=True,
                                plausible_answers=[{"text": "x"}],
                            ),
                        ],
                    },
                    {
                        "context": BREAD,
                        "qas": [
                            question("b1", " How long does rye bread keep?", ("a week", 20)),
                            question("b2", "What does bread cost?", is_impossible=True),
                        ],
                    },
                ],
            },
        ],
    }


@pytest.fixture
def document() -> dict[str, Any]:
    """A fresh copy of the small data set."""
    return copy.deepcopy(squad_document())


@pytest.fixture
def table(document: dict[str, Any]) -> QaTable:
    """The small data set as a table."""
    return read_squad(document, "small")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a document (or raw bytes) to a file and return its path."""

    def write_file(content: Any, name: str = "data.json") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write_file


@pytest.fixture
def many(shared: Path) -> QaTable:
    """Some hundred real questions, answerable and not, of eleven articles."""
    from qa_core.data.squad import load_table, select_questions

    table = load_table(str(shared / "data" / "ready" / "v2-dev.json.gz"), split="dev")
    return select_questions(table, 400, seed=1)


@pytest.fixture(scope="session")
def make_document() -> Callable[[], dict[str, Any]]:
    """Return fresh copies of the small data set, for tests that need many."""
    return squad_document
