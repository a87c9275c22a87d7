"""The door to files that others may have made, and the way to write whole or not at all."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qa_core import files
from qa_core.errors import DataError, StorageError


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "file")
    return folder / "file"


def _device(folder: Path) -> Path:
    (folder / "file").symlink_to("/dev/zero")
    return folder / "file"


def _folder(folder: Path) -> Path:
    (folder / "file").mkdir()
    return folder / "file"


def _circle(folder: Path) -> Path:
    (folder / "file").symlink_to(folder / "other")
    (folder / "other").symlink_to(folder / "file")
    return folder / "file"


def _long(folder: Path) -> Path:
    return folder / ("n" * 300)


def _large(folder: Path) -> Path:
    with (folder / "file").open("wb") as file:
        file.truncate(files.DOCUMENT_BYTES + 1)
    return folder / "file"


def _outside(folder: Path) -> Path:
    (folder.parent / "secret.json").write_text("{}")
    (folder / "file").symlink_to(folder.parent / "secret.json")
    return folder / "file"


def _below_a_linked_folder(folder: Path) -> Path:
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "file").write_text("{}")
    (folder / "part").symlink_to(folder.parent / "elsewhere")
    return folder / "part" / "file"


REFUSED = {
    _fifo: "found a pipe; allowed: a regular file",
    _device: "found a device; allowed: a regular file",
    _folder: "found a folder; allowed: a regular file",
    _circle: "Symlink loop",
    _long: "File name too long",
    _large: f"found {files.DOCUMENT_BYTES + 1} bytes; allowed: at most {files.DOCUMENT_BYTES}",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
@pytest.mark.parametrize("read", [files.read_bytes, files.read_json], ids=lambda read: read.__name__)
def test_what_is_no_file_or_too_large_is_refused_by_name_before_it_is_read(tmp_path, make, read):
    (tmp_path / "own").mkdir()
    path = make(tmp_path / "own")
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path)[:100] in str(caught.value)
    assert REFUSED[make] in str(caught.value)
    assert not isinstance(caught.value, files.MissingFile)


@pytest.mark.parametrize("make", [_outside, _below_a_linked_folder], ids=lambda make: make.__name__)
def test_a_link_out_of_the_folder_is_refused_where_a_folder_is_named(tmp_path, make):
    (tmp_path / "own").mkdir()
    path = make(tmp_path / "own")
    assert files.read_json(path) == {}
    with pytest.raises(DataError, match="a link that leads elsewhere; allowed: a file in"):
        files.read_json(path, inside=tmp_path / "own")


def test_a_link_within_the_folder_and_a_folder_that_is_reached_by_a_link_are_fine(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "file").write_text("[1]")
    (tmp_path / "own" / "link").symlink_to("file")
    (tmp_path / "named").symlink_to("own")
    assert files.read_json(tmp_path / "named" / "link", inside=tmp_path / "named") == [1]


@pytest.mark.parametrize("name", ["none", "file/none", "nul\0"])
def test_what_is_not_there_is_told_apart(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as caught:
        files.read_bytes(tmp_path / name)
    assert isinstance(caught.value, files.MissingFile) == ("\0" not in name)


def test_an_error_of_the_storage_while_a_file_is_read_names_the_file(tmp_path):
    (tmp_path / "file").write_text("{}")
    with (
        pytest.raises(DataError, match="file: cannot be read: Input/output error"),
        files.opened(tmp_path / "file", most_bytes=100),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("NaN", "found NaN; every number must be finite"),
        ("[-Infinity]", "every number must be finite"),
        ('{"a": 1e999}', "found 1e999; every number must be finite"),
        ("9" * 400, "found a whole number of 400 characters; allowed: 40"),
        ("9" * 5000, "found a whole number of 5000 characters; allowed: 40"),
        ("[" * 101 + "]" * 101, "nested too deeply; allowed: 100 levels"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested too deeply; allowed: 100 levels"),
        ("[" * 200_000, "nested too deeply; allowed: 100 levels"),
        ("", "Expecting value: line 1 column 1"),
    ],
)
def test_json_that_no_reader_should_meet_is_refused(tmp_path, text, part):
    with pytest.raises(ValueError, match=part):
        files.parse_json(text)
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(DataError, match=part):
        files.read_json(tmp_path / "file.json")


def test_other_json_comes_out_as_it_is():
    deep = "[" * 99 + "]" * 99
    text = f'{{"a": [1, -2.5, 1e300, true, null, "x"], "b": {deep}, "c": {10**30}}}'
    assert files.parse_json(text) == json.loads(text)


def test_other_bytes_than_utf8_are_refused_with_their_line(tmp_path):
    (tmp_path / "file").write_bytes(b"one\ntwo\xff\n")
    with pytest.raises(DataError, match="line 2: found bytes that are not UTF-8"):
        files.read_text(tmp_path / "file")


@pytest.mark.parametrize(
    "look", [files.is_there, files.is_folder, files.is_file], ids=lambda look: look.__name__
)
def test_looking_at_a_name_that_cannot_be_one_is_an_error_of_the_user(tmp_path, look):
    for name in ("n" * 300, "nul\0"):
        with pytest.raises(StorageError, match="cannot be looked at"):
            look(tmp_path / name)
    assert not look(tmp_path / "none" / "below")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_of_the_users_mask_whatever_wrote_them(tmp_path, mask, mode):
    """In a process of its own: the mask is the whole process's."""
    program = f"""
import os, pathlib
from qa_core import files
os.umask({mask})
with files.written_file(pathlib.Path("file")) as temporary:
    temporary.write_text("x")
with files.written_folder(pathlib.Path("folder")) as folder:
    (folder / "inner").mkdir()
    os.close(os.open(folder / "inner" / "secret", os.O_CREAT | os.O_WRONLY, 0o600))
"""
    root = Path(files.__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, check=True
    )
    for name in ("file", "folder/inner/secret"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode, name


def _write_folder(folder: Path, name: str) -> None:
    with files.written_folder(folder) as target:
        (target / name).write_text("x")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("former")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"), files.written_file(path) as temporary:
        fail(temporary)
    assert path.read_text() == "former"
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_former_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("former")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="file: cannot be written: No space left on device"):
        files.write_text(path, "new")
    with pytest.raises(StorageError, match="folder: cannot be written: No space left on device"):
        _write_folder(tmp_path / "folder", "part")
    assert path.read_text() == "former"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_file_and_folder_are_forced_to_the_disk_before_and_after_the_move(tmp_path, monkeypatch):
    forced = []
    sync = os.fsync
    monkeypatch.setattr(
        files.os,
        "fsync",
        lambda handle: (forced.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle)),
    )
    files.write_text(tmp_path / "file", "x")
    assert [item.endswith(".tmp") for item in forced] == [True, False]
    assert forced[1] == str(tmp_path)


def test_values_that_could_not_be_read_back_are_not_written(tmp_path):
    with pytest.raises(DataError, match=r"file\.json: cannot be stored"):
        files.write_json(tmp_path / "file.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_link_is_replaced_and_never_followed(tmp_path):
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "file").symlink_to("outside")
    files.write_text(tmp_path / "file", "new")
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (tmp_path / "file").is_symlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").symlink_to("elsewhere")
    with pytest.raises(StorageError, match="folder: found a link; allowed: a folder, or nothing"):
        _write_folder(tmp_path / "folder", "part")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_writers_at_the_same_time_never_meet(tmp_path):
    """Each thread writes its own text many times over; every reading finds one of them, whole."""
    path = tmp_path / "file"
    texts = [str(number) * 20_000 for number in range(4)]
    files.write_text(path, texts[0])
    errors: list[Exception] = []

    def write(text: str) -> None:
        try:
            for _ in range(20):
                files.write_text(path, text)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_text() in texts
    assert not errors
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_replaced_whole_and_a_failed_move_puts_the_former_one_back(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    with files.written_folder(folder) as target:
        (target / "a").write_text("1")
    with files.written_folder(folder) as target:
        (target / "b").write_text("2")
    assert [item.name for item in folder.iterdir()] == ["b"]
    rename = Path.rename

    def refused(self, target):
        if self.name.endswith(".tmp"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(StorageError, match="folder: cannot be written: Input/output error"):
        _write_folder(folder, "c")
    assert [item.name for item in folder.iterdir()] == ["b"]
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]


def test_a_former_folder_that_cannot_be_put_back_is_kept_and_named(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    _write_folder(folder, "a")
    rename = Path.rename

    def refused(self, target):
        if target == folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        with pytest.raises(
            StorageError, match="folder: cannot be written: Input/output error; its former"
        ) as refusal:
            _write_folder(folder, "b")
    (former,) = tmp_path.iterdir()
    assert str(refusal.value).endswith(f"stands in {former}")
    assert [item.name for item in former.iterdir()] == ["a"]
    files.undo_interrupted_replacement(folder)
    assert [item.name for item in folder.iterdir()] == ["a"]


def test_a_replacement_that_a_kill_interrupted_is_undone_and_leftovers_go(tmp_path):
    folder = tmp_path / "folder"
    (tmp_path / ".folder.0123.old").mkdir()
    (tmp_path / ".folder.0123.old" / "a").write_text("1")
    (tmp_path / ".folder.4567.tmp").mkdir()
    files.remove_leftovers(folder)
    assert [item.name for item in tmp_path.iterdir()] == [".folder.0123.old"]  # the only copy stays
    files.undo_interrupted_replacement(folder)
    assert (folder / "a").read_text() == "1"
    (tmp_path / ".folder.89ab.old").mkdir()
    files.remove_leftovers(folder)
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]


def test_nothing_behind_a_link_is_removed(tmp_path):
    own, outside = tmp_path / "own", tmp_path / "outside"
    (own / "real" / "part").mkdir(parents=True)
    (outside / "part").mkdir(parents=True)
    (outside / "part" / "mine").write_text("x")
    (own / "trials").symlink_to(outside)
    (own / "linked").symlink_to(outside / "part")
    for name in ("trials/part", "linked"):
        files.remove_folder(own / name, inside=own)
    assert (outside / "part" / "mine").read_text() == "x"
    files.remove_folder(own / "real" / "part", inside=own)
    files.remove_folder(own / "real" / "none", inside=own)
    assert not list((own / "real").iterdir())
    assert sorted(item.name for item in files.links_below(own)) == ["linked", "trials"]
