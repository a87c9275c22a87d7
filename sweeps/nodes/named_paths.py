"""The files and folders that the recipes of a sweep name, and a cheap fingerprint to tell whether two are the same.

Names of the hub, presets and the built-in corpus are no paths. What a path means is decided where a trial runs: it is
kept as it is written, and a relative path starts from the working folder of the process that reads it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core import registry
from qa_core.checkpoints import shipped_names
from qa_core.data.sources import is_file_source, path_of

if TYPE_CHECKING:
    from sweeps.spec.sections import SweepSpec

DATA_SOURCES = ("data.train", "data.evaluation", "data.cross_domain")
FOLDERS = ("model.checkpoint", "model.tokenizer", "distill.teacher")  # may be named by one word
PLAINLY_PATHS = ("/", "./", "../", "~")  # begin what is a path whether it is there or not
END_BYTES = 65536  # of each file that are read, at its beginning and at its end


def named_paths(spec: "SweepSpec") -> dict[str, str]:
    """Return path -> the first setting that names it, for all recipes that the sweep can propose."""
    texts = [*_texts(spec.recipe, ""), *_searched(spec)]
    families = registry.FAMILIES
    presets = {preset for family in families for preset in registry.family_class(family).presets}
    shipped = {name for family in families for name in shipped_names(family)}
    found: dict[str, str] = {}
    for setting, value in texts:
        if value not in presets | shipped and _is_path(setting, value):
            found.setdefault(path_of(value) if setting.endswith(DATA_SOURCES) else value, setting)
    return found


def fingerprint(name: str) -> str | None:
    """Return size and digest of a file, or of all files in a folder; None where it is not there or cannot be read.

    The digest is over names, sizes and both ends of each file. Equal files have equal ones; of two files that differ
    in their middle alone, and not in size, it knows nothing.
    """
    try:
        path = Path(name).expanduser()
        files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
        if not files:
            return None
        digest, total = hashlib.sha256(), 0
        for file in files:
            size = file.stat().st_size
            inside = "" if file == path else file.relative_to(path).as_posix()
            digest.update(f"{inside}\0{size}\0".encode() + _ends(file, size))
            total += size
    except (OSError, RuntimeError):  # not readable, or ~ of a user that is not there
        return None
    counted = f" in {len(files)} files" if files != [path] else ""
    return f"{total} bytes{counted}, {digest.hexdigest()[:12]}"


def _ends(file: Path, size: int) -> bytes:
    with file.open("rb") as opened:
        first = opened.read(END_BYTES)
        opened.seek(max(len(first), size - END_BYTES))
        return first + opened.read(END_BYTES)


def _texts(values: Any, setting: str) -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield setting, values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            yield from _texts(value, f"{setting}.{name}" if setting else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, setting)


def _searched(spec: "SweepSpec") -> Iterator[tuple[str, str]]:
    for entry in spec.space:
        yield from _texts(entry.choice or [], entry.path)


def _is_path(setting: str, value: str) -> bool:
    if setting.endswith(DATA_SOURCES):
        return is_file_source(value)
    if value.startswith(PLAINLY_PATHS):
        return True
    # What else is there may be there by chance: a folder called "dot" is not the attention of that name.
    return ("/" in value or "." in value or setting.endswith(FOLDERS)) and _exists(value)


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, RuntimeError):
        return False
