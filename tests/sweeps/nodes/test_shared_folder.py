"""Words that driver and nodes leave for each other: the same folder, another one, one that cannot be written."""

import os
from pathlib import Path

import pytest

from qa_core.errors import StorageError
from sweeps.nodes import shared_folder
from sweeps.nodes.shared_folder import Exchange, Words, answer, exchange


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_folder, "PATIENCE_SECONDS", 0.0)


def test_two_who_see_the_same_folder_read_each_other_and_nothing_is_left(tmp_path: Path) -> None:
    with exchange(tmp_path) as open_exchange:
        words = answer(open_exchange.folder, "ab12")
        assert open_exchange.fault_of("ab12", words) is None
        assert words.read == open_exchange.word != words.written
    assert list(tmp_path.iterdir()) == []


def test_the_words_are_removed_where_the_driver_is_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), exchange(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_does_not_see_the_folder_is_told_apart_and_writes_nothing(tmp_path: Path) -> None:
    with exchange(tmp_path) as open_exchange:
        elsewhere = tmp_path / "other disk" / open_exchange.folder.name
        words = answer(elsewhere, "ab12")
        assert words == Words(None, None, f"{elsewhere / 'driver'} is not there")
        fault = str(open_exchange.fault_of("ab12", words))
        assert fault.startswith(f"does not see what the driver wrote into {tmp_path}: {elsewhere / 'driver'}")
        assert not elsewhere.exists()


def test_a_node_with_a_folder_of_the_same_name_on_another_disk_is_told_apart(tmp_path: Path) -> None:
    with exchange(tmp_path) as open_exchange:
        elsewhere = tmp_path / "other disk"
        elsewhere.mkdir()
        (elsewhere / "driver").write_text("of another sweep")
        words = answer(elsewhere, "ab12")
        assert "found other content in" in str(open_exchange.fault_of("ab12", words))


def test_a_node_that_only_reads_is_told_apart(tmp_path: Path) -> None:
    with exchange(tmp_path) as open_exchange:
        (open_exchange.folder / "ab12").mkdir()  # where it would write
        words = answer(open_exchange.folder, "ab12")
        assert words.read == open_exchange.word
        fault = str(open_exchange.fault_of("ab12", words))
        assert fault.startswith(f"cannot write into {tmp_path}: Is a directory")


def test_a_node_whose_writing_stays_with_it_is_told_apart(tmp_path: Path) -> None:
    with exchange(tmp_path) as open_exchange:
        fault = open_exchange.fault_of("ab12", Words(open_exchange.word, "never arrived"))
        assert str(fault).startswith(f"wrote into {tmp_path} what the driver does not see there")


def test_an_answer_that_comes_too_late_finds_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    with exchange(tmp_path) as open_exchange:
        pass
    assert answer(open_exchange.folder, "ab12").read is None
    assert list(tmp_path.iterdir()) == []


def test_a_word_that_shows_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_folder, "PATIENCE_SECONDS", 5.0)
    waits = []

    def arrive(seconds: float) -> None:
        waits.append(seconds)
        (tmp_path / "driver").write_text("" if len(waits) == 1 else "word")

    monkeypatch.setattr(shared_folder.time, "sleep", arrive)
    assert answer(tmp_path, "ab12").read == "word"
    assert len(waits) == 2


def test_a_folder_that_the_driver_cannot_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file: cannot be written"), exchange(tmp_path / "file"):
        pytest.fail("went on")


def test_the_drivers_word_is_another_each_time(tmp_path: Path) -> None:
    with exchange(tmp_path) as first, exchange(tmp_path) as second:
        assert isinstance(first, Exchange)
        assert first.word != second.word
        assert len(os.listdir(tmp_path)) == 2
