"""Fixtures that every test may use."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and small pretrained models beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with real data and models is absent")
    return SHARED
