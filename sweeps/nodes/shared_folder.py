"""Whether a node and the driver see the same folder: each leaves a word there that the other must read.

    FOLDER/.preflight-NUMBER/driver    the driver's word
                             NODE      that of a node

The folder of words is made by the driver alone: a node that does not see it writes nothing anywhere. It is removed at
the end; the answer of a node that comes too late finds no folder to write to.
"""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qa_core.errors import StorageError

PATIENCE_SECONDS = 5.0  # a network file system may show a new file late
LOOK_AGAIN_SECONDS = 0.1
DRIVER = "driver"
REMEDY = "mount one file system at this path on every node"


@dataclass(frozen=True)
class Words:
    """What a node found and left: `read` is None where it did not see the driver's word, `fault` says why."""

    read: str | None
    written: str | None
    fault: str | None = None


@dataclass(frozen=True)
class Exchange:
    """The driver's side: where words lie, and its own."""

    folder: Path
    word: str

    def fault_of(self, node: str, words: Words) -> str | None:
        """Return what is wrong with the storage of a node that has answered; None: both see the same folder."""
        if words.read != self.word:
            found = words.fault or f"found other content in {self.folder / DRIVER}"
            return f"does not see what the driver wrote into {self.folder.parent}: {found}; {REMEDY}"
        if words.written is None:
            return f"cannot write into {self.folder.parent}: {words.fault}"
        if _read_soon(self.folder / node) != words.written:
            return f"wrote into {self.folder.parent} what the driver does not see there; {REMEDY}"
        return None


@contextmanager
def exchange(folder: Path) -> Iterator[Exchange]:
    """Leave the driver's word in a folder while nodes answer.

    Raises:
        StorageError: the folder cannot be written.
    """
    words, word = folder / f".preflight-{secrets.token_hex(4)}", secrets.token_hex(16)
    try:
        words.mkdir()
        (words / DRIVER).write_text(word)
    except OSError as error:
        shutil.rmtree(words, ignore_errors=True)
        raise StorageError(f"{folder}: cannot be written: {error}") from error
    try:
        yield Exchange(words, word)
    finally:
        shutil.rmtree(words, ignore_errors=True)


def answer(folder: Path, node: str) -> Words:
    """Read the driver's word in the folder of words and leave one of this node; called on the node."""
    read = _read_soon(folder / DRIVER)
    if read is None:
        return Words(None, None, f"{folder / DRIVER} is not there")
    word = secrets.token_hex(16)
    try:
        (folder / node).write_text(word)
    except OSError as error:
        return Words(read, None, error.strerror or str(error))
    return Words(read, word)


def _read_soon(path: Path) -> str | None:
    """Return a file's text as soon as there is some; None when there is none in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            text = path.read_text()
        except OSError:
            text = ""
        if text or time.monotonic() > deadline:
            return text or None
        time.sleep(LOOK_AGAIN_SECONDS)
