"""One whole artifact, which the tests damage in copies."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def whole_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained micro BERT with a vocabulary of 300 tokens."""
    from tests.untrained import write_untrained_bert

    lengths = {"max_length": 64, "stride": 8, "max_question_length": 16}
    return write_untrained_bert(tmp_path_factory.mktemp("artifact") / "whole", "sample", data=lengths)
