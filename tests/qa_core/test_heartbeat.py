"""Signs of life reach the listener of the block, and a wait for a lock gives them."""

from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from qa_core import heartbeat


def test_beats_are_heard_inside_the_block_and_nowhere_else() -> None:
    outer: list[str] = []
    heartbeat.beat()
    with heartbeat.heard_by(lambda: outer.append("outer")):
        heartbeat.beat()
        with heartbeat.heard_by(lambda: outer.append("inner")):
            heartbeat.beat()
        heartbeat.beat()
    heartbeat.beat()
    assert outer == ["outer", "inner", "outer"]


def test_who_waits_for_a_lock_beats_until_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "LOCK_LOOK_SECONDS", 0.02)
    other = FileLock(tmp_path / "x.lock")
    other.acquire()
    beats = []

    def listen() -> None:
        beats.append(1)
        if len(beats) == 3:
            other.release()

    lock = FileLock(tmp_path / "x.lock")
    with heartbeat.heard_by(listen), heartbeat.acquire(lock):
        assert len(beats) == 3
        with pytest.raises(Timeout):
            other.acquire(timeout=0)
    other.acquire(timeout=0)  # the block has let go of it
