"""One door to files and folders that others may have made, and one way to write whole or not at all.

What is read may come from anybody: a link out of its folder, a FIFO that never ends, a device, a file of any size, JSON
that is nested ten thousand levels deep. The readers here open regular files only, look at the size before they read,
and refuse numbers that no float holds. The writers put a file or folder together under a temporary name beside its
place, force it to the disk and move it there, so that a reader sees all of it or nothing, and nothing behind a link is
written or removed. What the content means is said by the callers. Standard library only.
"""

import errno
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from qa_core.errors import DataError, StorageError

# Most bytes of a file, by what it holds. Each is far above what the software or a user writes.
DOCUMENT_BYTES = 64 * 2**20  # JSON: manifests, recipes, settings, outcomes
TOKENIZER_BYTES = 512 * 2**20
LINES_BYTES = 4 * 2**30  # records and journals
DATA_BYTES = 16 * 2**30  # questions, also after they are unpacked; curves; answers
WEIGHT_BYTES = 2**42
HEADER_BYTES = 8 * 2**20  # of safetensors, 40,000 tensors and more
HEADER_LENGTH_BYTES = 8  # at the beginning of such a file
MOST_DEPTH = 100  # of brackets within brackets in JSON
NAME_CHARACTERS = 50  # of a file's name in its temporary one, which has to fit as well
MOST_DIGITS = 40  # of a whole number in JSON; 31 are in use, for "no limit"
KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# What a file system answers that cannot force a folder to the disk, or not for this user.
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF)


class MissingFile(DataError):
    """A file that is to be read is not there."""


# Looking


def is_there(path: Path) -> bool:
    """Tell whether anything stands under a name, a link that leads nowhere included.

    Raises:
        StorageError: it cannot be told: a folder above may not be entered, or the name is too long.
    """
    return _mode(path, os.lstat) is not None


def is_folder(path: Path) -> bool:
    """Tell whether a folder stands there, or a link to one; raises StorageError as `is_there`."""
    mode = _mode(path, os.stat)
    return mode is not None and stat.S_ISDIR(mode)


def is_file(path: Path) -> bool:
    """Tell whether a regular file stands there, or a link to one; raises StorageError as `is_there`."""
    mode = _mode(path, os.stat)
    return mode is not None and stat.S_ISREG(mode)


def has_link(path: Path, inside: Path) -> bool:
    """Tell whether a link stands at `path`, or between it and the folder `inside` that it is named below.

    Args:
        inside: its own path may hold links: whoever names a folder may have put it anywhere.
    """
    there = inside
    for part in path.relative_to(inside).parts:
        there = there / part
        if there.is_symlink():
            return True
    return False


def entries(folder: Path) -> list[str]:
    """Return the names in a folder; raises StorageError when it is none or cannot be looked into."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise StorageError(f"{_shown(folder)}: cannot be looked into: {_reason(error)}") from error


def links_below(folder: Path) -> Iterator[Path]:
    """Yield every link in a folder and in those below it, none of which is followed."""
    for root, folders, names in os.walk(folder):
        for name in sorted([*folders, *names]):
            if (found := Path(root) / name).is_symlink():
                yield found


def refuse_links(folder: Path) -> None:
    """Refuse a folder that holds a link, behind which things would be written and removed; raises DataError.

    The folder itself may be named by a link.
    """
    for link in links_below(folder):
        raise DataError(
            f"{_shown(link)}: found a link; allowed: files and folders of {_shown(folder)} itself"
        )


def _mode(path: Path, look: Callable[[Path], os.stat_result]) -> int | None:
    try:
        return look(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise StorageError(f"{_shown(path)}: cannot be looked at: {_reason(error)}") from error


# Reading


def checked_file(path: Path, *, most_bytes: int, inside: Path | None = None) -> Path:
    """Return the file behind all links, for a library that opens files by their names.

    Args:
        most_bytes: refuse a larger one.
        inside: refuse a file that does not lie in this folder or below; None: the user has named the file.

    Raises:
        MissingFile: there is none.
        DataError: it is no regular file, too large, not to be read, or lies elsewhere.
    """
    with _reading(path):
        try:
            place = path.resolve(strict=True)
        except (ValueError, RuntimeError) as error:  # a NUL in the name; a circle of links
            raise DataError(
                f"{_shown(path)}: cannot be read: {error}; allowed: the name of a file"
            ) from error
        if inside is not None and not place.is_relative_to(inside.resolve()):
            raise DataError(f"{_shown(path)}: found a link that leads elsewhere; allowed: a file in {inside}")
        _check_kind(path, os.stat(place), most_bytes)
        if not os.access(place, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return place


@contextmanager
def opened(path: Path, *, most_bytes: int, inside: Path | None = None) -> Iterator[BufferedReader]:
    """Open a file that others may have made, for reading. Arguments and errors as `checked_file`."""
    place = checked_file(path, most_bytes=most_bytes, inside=inside)
    with _reading(path):  # errors while it is read as well
        # What stands there now may be something else than a moment ago; a pipe must not make this wait.
        handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            _check_kind(path, os.fstat(handle), most_bytes)
            yield file


def check_safetensors(path: Path, *, inside: Path | None = None) -> None:
    """Look at a file of weights before a library reads its header, which could name any number of empty tensors.

    Arguments and errors as `checked_file`, and DataError where the header is too long.
    """
    with opened(path, most_bytes=WEIGHT_BYTES, inside=inside) as file:
        size = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
    if size > HEADER_BYTES:
        raise DataError(
            f"{_shown(path)}: cannot be read: found a header of {size} bytes; allowed: at most {HEADER_BYTES}"
        )


def read_bytes(path: Path, *, most_bytes: int = DOCUMENT_BYTES, inside: Path | None = None) -> bytes:
    """Return the content of a file that others may have made. Arguments and errors as `checked_file`."""
    with opened(path, most_bytes=most_bytes, inside=inside) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:  # it grew
        raise DataError(_too_large(path, len(content), most_bytes))
    return content


def read_text(path: Path, *, most_bytes: int = DOCUMENT_BYTES, inside: Path | None = None) -> str:
    """Return the content of a file in UTF-8. Arguments and errors as `checked_file`, and DataError for other bytes."""
    content = read_bytes(path, most_bytes=most_bytes, inside=inside)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{_shown(path)}: line {line}: found bytes that are not UTF-8; allowed: UTF-8"
        ) from error


def read_json(path: Path, *, most_bytes: int = DOCUMENT_BYTES, inside: Path | None = None) -> Any:
    """Return the values of a JSON file. Arguments and errors as `checked_file`, and DataError for other content."""
    text = read_text(path, most_bytes=most_bytes, inside=inside)
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{_shown(path)}: cannot be read: {error}; allowed: a JSON document") from error


def read_object(
    path: Path, *, most_bytes: int = DOCUMENT_BYTES, inside: Path | None = None
) -> dict[str, Any]:
    """Return the entries of a file that holds a JSON object. Arguments and errors as `read_json`."""
    values = read_json(path, most_bytes=most_bytes, inside=inside)
    if not isinstance(values, dict):
        raise DataError(f"{_shown(path)}: found {type(values).__name__}; allowed: a JSON object")
    return values


def parse_json(text: str, *, is_finite: bool = True) -> Any:
    """Return JSON values in which every number is finite and nothing is nested more than `MOST_DEPTH` levels deep.

    Args:
        is_finite: False leaves NaN and infinity to a reader that says where they stand.

    Raises:
        ValueError: says what was found, with line and column where the parser knows them.
    """
    try:
        number = _number if is_finite else float
        values = json.loads(text, parse_constant=number, parse_float=number, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError(f"nested too deeply; allowed: {MOST_DEPTH} levels") from error
    check_depth(values)
    return values


def digest(values: Any) -> str:
    """Return the SHA-256 of JSON values, in hex digits; the order of entries does not count."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def check_depth(values: Any) -> None:
    """Refuse values that are nested too deeply for a function that calls itself; raises ValueError."""
    level, depth = [values], 0
    # What stands in several places, as YAML allows, is looked at once on each level.
    while level := list({id(item): item for item in level if isinstance(item, dict | list)}.values()):
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"nested too deeply; allowed: {MOST_DEPTH} levels")
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]


def _number(text: str) -> float:
    number = float(text)  # of 1e999 too, which Python reads as infinity
    if not math.isfinite(number):
        raise ValueError(f"found {_cut(text)}; every number must be finite")
    return number


def _whole_number(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"found a whole number of {len(text)} characters; allowed: {MOST_DIGITS}")
    return int(text)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a message that names the file."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFile(f"{_shown(path)}: cannot be read: {_reason(error)}") from error
    except OSError as error:
        raise DataError(
            f"{_shown(path)}: cannot be read: {_reason(error)}; allowed: a file that can be read"
        ) from error


def _check_kind(path: Path, found: os.stat_result, most_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in KINDS if is_kind(found.st_mode)), "no regular file")
        raise DataError(f"{_shown(path)}: cannot be read: found {kind}; allowed: a regular file")
    if found.st_size > most_bytes:
        raise DataError(_too_large(path, found.st_size, most_bytes))


def _too_large(path: Path, size: int, most_bytes: int) -> str:
    return f"{_shown(path)}: cannot be read: found {size} bytes; allowed: at most {most_bytes}"


# Writing


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet; raises StorageError."""
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)


def check_writable(folder: Path, *, is_made: bool = True) -> Path:
    """Refuse a folder in which nothing could be written, before anything depends on it.

    Args:
        is_made: make the folder; False: look at the nearest one above that is there.

    Returns the folder that was looked at.

    Raises:
        StorageError: it cannot be made or written.
    """
    if is_made:
        make_folder(folder)
    there = folder
    while not is_there(there) and there != there.parent:
        there = there.parent
    if not is_folder(there):
        raise StorageError(f"{_shown(there)}: found a file; allowed: a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"{_shown(there)}: cannot be written; allowed: a folder with write permission")
    return there


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 that appears whole or not at all, over one that is there; raises StorageError."""
    with written_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Write a JSON file that appears whole or not at all, over one that is there.

    Raises:
        StorageError: it cannot be written. DataError: a value is not finite or not JSON; nothing was written.
    """
    try:
        text = json.dumps(values, indent=indent, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise DataError(f"{_shown(path)}: cannot be stored: {error}") from error
    write_text(path, text)


@contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file that replaces `path` when the block ends well, and vanishes otherwise.

    The folder must be there. The file gets the mode that the user's mask asks for; a link is replaced, not followed.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    temporary = _aside(path, "tmp")
    with _writing(path):
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            _settle(temporary, mode)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces `folder` when the block ends well, and vanishes otherwise.

    Folders above are made. Every file in it gets the mode that the user's mask asks for: libraries leave some that
    nobody else may read. A crash between the two moves leaves the former folder under another name; see
    `undo_interrupted_replacement`.

    Raises:
        StorageError: the disk is full or the place cannot be written, or a link stands there.
    """
    temporary = _aside(folder, "tmp")
    with _writing(folder):
        if folder.is_symlink():
            raise StorageError(f"{_shown(folder)}: found a link; allowed: a folder, or nothing")
        try:
            temporary.mkdir(parents=True)
            mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
            yield temporary
            for root, _, names in os.walk(temporary):
                for name in names:
                    _settle(Path(root) / name, mode)
                _sync_folder(Path(root))
            _replace_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def undo_interrupted_replacement(folder: Path) -> None:
    """Put a former folder back that a crash in `written_folder` has left under its other name."""
    if is_there(folder) or not is_folder(folder.parent):
        return
    for old in _asides(folder, "old"):
        if old.is_symlink():
            continue
        with _writing(folder):
            old.rename(folder)
        return


@contextmanager
def locked(path: Path, *, seconds: float, busy: StorageError) -> Iterator[None]:
    """Hold a lock on a file; the kernel releases it when this process dies.

    Args:
        path: of the lock's own file, which stays.
        seconds: to wait for another process that holds it.
        busy: raised when that was too short.

    Raises:
        StorageError: the file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise busy from error
    except OSError as error:
        raise StorageError(f"{path.parent}: cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of a file or folder half written; only while nobody else writes it."""
    former = _asides(path, "old") if is_there(path) else []
    for leftover in (*_asides(path, "tmp"), *former):
        _remove(leftover)


def remove_folder(path: Path, *, inside: Path) -> None:
    """Remove a folder and all below it, unless a link stands there or above it, up to the folder `inside`.

    It first gets another name, so that a reader finds all of it or nothing. What cannot be removed stays.
    """
    if has_link(path, inside):
        return
    with suppress(OSError):
        aside = path.with_name(f".{path.name}.removed")
        _remove(aside)
        path.rename(aside)
        _remove(aside)


def _replace_folder(temporary: Path, folder: Path) -> None:
    former = _aside(folder, "old")
    has_former = is_there(folder)
    if has_former:
        folder.rename(former)
    try:
        temporary.rename(folder)
    except OSError as error:
        if has_former:
            try:
                former.rename(folder)
            except OSError:
                raise StorageError(
                    f"{_shown(folder)}: cannot be written: {_reason(error)}; its former content could not be put back "
                    f"and stands in {_shown(former)}"
                ) from error
        raise
    _sync_folder(folder.parent)
    shutil.rmtree(former, ignore_errors=True)


def _settle(file: Path, mode: int) -> None:
    """Give a written file its mode and force it to the disk."""
    if file.is_symlink():
        return
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if stat.S_IMODE(os.fstat(handle).st_mode) != mode:
            with suppress(PermissionError):  # of file systems that know no modes
                os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "null byte" not in str(error):
            raise
        raise StorageError(f"{_shown(path)}: cannot be written: {_reason(error)}") from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _aside(path: Path, ending: str) -> Path:
    """Return a hidden name beside `path` that no other process or thread takes."""
    return path.with_name(f".{path.name[:NAME_CHARACTERS]}.{secrets.token_hex(8)}.{ending}")


def _asides(path: Path, ending: str) -> list[Path]:
    """Return what stands under such names."""
    pattern = f".{glob.escape(path.name[:NAME_CHARACTERS])}.*.{ending}"
    return sorted(path.parent.glob(pattern))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _shown(path: Path) -> str:
    return _cut(str(path), 300)


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
