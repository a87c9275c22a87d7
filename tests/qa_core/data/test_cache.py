"""Files made once on a machine: whole or absent, made by one process, made again when damaged."""

import errno
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from qa_core.data.cache import DamagedFile, read_or_make
from qa_core.errors import StorageError

CONTENT = b"content"


def read(path: Path) -> bytes:
    content = path.read_bytes()
    if content != CONTENT:
        raise DamagedFile(path)
    return content


def write(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def get(path: Path, make: Callable[[], bytes] = lambda: CONTENT, write: Callable[..., Any] = write) -> bytes:
    return read_or_make(path, read=read, make=make, write=write)


def never() -> bytes:
    raise AssertionError("made a second time")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_the_content_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "file"
    assert get(path) == CONTENT
    assert get(path, make=never) == CONTENT
    assert files(path.parent) == {"file"}


@pytest.mark.parametrize("damaged", [b"", b"cont", b"contenT"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(damaged)
    assert get(path) == CONTENT
    assert path.read_bytes() == CONTENT


def test_a_full_disk_is_reported_with_the_folder_and_leaves_nothing_behind(tmp_path: Path) -> None:
    def full(file: BinaryIO, content: bytes) -> None:
        file.write(content[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError) as caught:
        get(tmp_path / "file", write=full)
    assert f"cache folder {tmp_path}: cannot be written: No space left on device" in str(caught.value)
    assert files(tmp_path) == set()
    assert get(tmp_path / "file") == CONTENT


def test_an_error_while_computing_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def broken() -> bytes:
        raise ConnectionError("hub")

    with pytest.raises(ConnectionError):
        get(tmp_path / "file", make=broken)
    assert files(tmp_path) == set()


def test_a_file_where_the_folder_should_be_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match=r"cache folder .*cache: cannot be written"):
        get(tmp_path / "cache" / "file")


def _get_slowly(path: Path, made: Any) -> None:
    def make() -> bytes:
        with made.get_lock():
            made.value += 1
        time.sleep(0.3)
        return CONTENT

    assert get(path, make=make) == CONTENT


def test_of_several_processes_one_makes_the_file_and_the_others_wait(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    made = context.Value("i", 0)
    workers = [context.Process(target=_get_slowly, args=(tmp_path / "file", made)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert made.value == 1


def _get_with_small_files(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
    with pytest.raises(StorageError, match="File too large"):
        get(path)


def test_a_write_that_the_system_cuts_short_leaves_nothing_behind(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(
        target=_get_with_small_files, args=(tmp_path / "file",)
    )
    worker.start()
    worker.join(30)
    assert worker.exitcode == 0
    assert files(tmp_path) == set()
