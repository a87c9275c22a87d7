"""The folder of a sweep that has finished, and an artifact for its trials."""

import json
from pathlib import Path

import pytest

from sweeps.run_folder.records import append
from tests.sweeps.finished import OBJECTIVES, RECORDS, place_artifact, record
from tests.sweeps.forms import stored, with_forms, without


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for item in [*RECORDS, record("t3", 0.0, 1.0, status="stopped", reason="asha", objectives=None)]:
        append(folder / "records.jsonl", item)
    objectives = [item.model_dump() for item in OBJECTIVES]
    (folder / "spec.json").write_text(json.dumps({"name": "quick", "objectives": objectives}))
    return folder


@pytest.fixture(scope="session")
def artifact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained micro BERT as an artifact."""
    from tests.untrained import write_untrained_bert

    folder = tmp_path_factory.mktemp("artifact") / "artifact"
    lengths = {"max_length": 96, "stride": 16, "max_question_length": 24}
    return write_untrained_bert(folder, "sample", data=lengths, vocab_size=500)


@pytest.fixture
def run_with_forms(run_dir: Path, artifact_folder: Path) -> Path:
    """A sweep whose trial t0 is stored as int8, as float32 and, in vain, as nf4; t1 and t2 have no forms."""
    from qa_core.artifact import artifact

    nf4 = without("nf4", "failed", "RuntimeError: no kernel")
    forms = with_forms(RECORDS[0], stored("int8", 39.0, 6.0), stored("float32", 40.0, 20.0), nf4)
    path = run_dir / "records.jsonl"
    path.unlink()
    for item in (forms, *RECORDS[1:], with_forms(record("t4", 50.0, 30.0), nf4)):
        append(path, item)
    place_artifact(artifact_folder, run_dir, "t0")
    small = place_artifact(artifact_folder, run_dir, "t0/forms/int8")
    artifact.set_null_threshold(small, 0.5)  # tells the two apart
    return run_dir
