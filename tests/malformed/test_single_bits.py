"""A real artifact of which one bit is another, and who may read it.

Every bit: `tests/qa_core/artifact/test_manifest.py`.
"""

import random
import shutil
from pathlib import Path

import pytest

from qa_core.artifact.manifest import MANIFEST, RECIPE, WEIGHTS, verify
from qa_core.errors import ArtifactError


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_random_bit_of_each_file_of_a_real_artifact_is_refused(
    whole_artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    shutil.copytree(whole_artifact, folder)
    verify(folder)
    rng = random.Random(7)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert {MANIFEST, RECIPE, WEIGHTS, "tokenizer.json"} <= set(map(str, names))
    for name in names:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(flipped(content, rng.randrange(8 * len(content))))
        with pytest.raises(ArtifactError):
            verify(folder)
        (folder / name).write_bytes(content)


def test_whoever_may_read_one_file_of_an_artifact_may_read_all(whole_artifact: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in whole_artifact.rglob("*") if path.is_file()}
    assert len(set(modes.values())) == 1, modes
