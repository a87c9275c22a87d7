"""The networks of the package are made again to the bit by their command."""

from pathlib import Path

import pytest

from benchmarks import other_worlds
from benchmarks.pretrain_sample import KEPT_FILES, Course, pretrain
from qa_core.data.squad import read_squad

COURSE = Course("micro", 1e-3, windows=48, batch_size=16)


@pytest.mark.parametrize("family", ["bert", "mamba"])
def test_a_second_run_writes_the_same_bytes(family: str, tmp_path: Path) -> None:
    table = read_squad(other_worlds.questions(2), "worlds")
    for run in ("first", "second"):
        pretrain(
            family, COURSE, table, folder=tmp_path / run, cache_dir=tmp_path / f"{run} cache", held_out=20
        )
    for name in KEPT_FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(KEPT_FILES)
