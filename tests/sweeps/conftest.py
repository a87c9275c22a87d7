"""Fixtures of the sweep's tests."""

import pytest

from qa_core import registry
from tests.sweeps import toys


@pytest.fixture
def toy_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the real families and methods with those of `toys.py`."""
    monkeypatch.setattr(registry, "FAMILIES", toys.FAMILIES)
    monkeypatch.setattr(registry, "METHODS", toys.METHODS)
