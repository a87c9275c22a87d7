"""Fixtures that every test may use, and what holds for all: plain ids, an order if they start Ray, a mark if costly."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.nodes.ray_environment import RayTarget
from tests.costly import COSTLY
from tests.ids import plain, strange

RayTarget().set_environment()  # before any test imports Ray
# As in an activated environment: commands are then printed with the bare names of their programs.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
SHARED = Path(__file__).resolve().parents[2] / "shared"
pytest_plugins = ["pytester"]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a value of a parameter by what a shell takes as it is printed."""
    return plain(val, argname)


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse ids that cannot be pasted back; mark the costly tests."""
    for item in items:
        if item.nodeid.startswith(COSTLY):
            item.add_marker("costly")
    found = strange(item.nodeid for item in items)
    if found:
        raise pytest.UsageError(
            "\n".join(["give these tests plain ids (tests/ids.py says which signs):", *found])
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep tests that start Ray on two workers, under `--dist loadgroup`."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from tests.scheduling import RayOnTwoWorkers

    return RayOnTwoWorkers(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and small pretrained models beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with real data and models is absent")
    return SHARED


@pytest.fixture(scope="session")
def small_squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQuAD v2.0 file of 12 articles with 60 questions, a quarter unanswerable: enough to run every step."""
    colours = ["amber", "teal", "violet", "crimson", "olive", "ivory"]
    articles = []
    for index in range(12):
        paragraphs = []
        for part in range(2):
            place, colour = f"Tower {index}{part}", colours[(index + part) % 6]
            context = (
                f"The door of {place} is {colour}. It was built in {1800 + 7 * index + part} by the guild."
            )
            facts = [("What colour is the door", colour), ("When was it built", str(1800 + 7 * index + part))]
            questions = [
                {
                    "id": f"{index}-{part}-{number}",
                    "question": f"{question} of {place}?",
                    "answers": [{"text": answer, "answer_start": context.index(answer)}],
                    "is_impossible": False,
                }
                for number, (question, answer) in enumerate(facts)
            ]
            if part:
                questions.append(
                    {
                        "id": f"{index}-none",
                        "question": "Who painted it?",
                        "answers": [],
                        "is_impossible": True,
                    }
                )
            paragraphs.append({"context": context, "qas": questions})
        articles.append({"title": f"Tower {index}", "paragraphs": paragraphs})
    path = tmp_path_factory.mktemp("squad") / "small.json"
    path.write_text(json.dumps({"version": "v2.0", "data": articles}))
    return path


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of a run."""
    return tmp_path_factory.mktemp("cache")
