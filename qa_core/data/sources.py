"""What the name of a source means: the built-in corpus, a file, a folder of the library `datasets`, or a hub name.

Nothing is read here but the names in a folder. How each kind is read is said by `squad.py`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from qa_core import files
from qa_core.data.columns import HUB_SPLITS, SPLITS, STATE, MissingSplit, saved_splits
from qa_core.errors import DataError

SAMPLE, HARD_SAMPLE = "sample", "sample:hard"
BUILT_IN = (SAMPLE, HARD_SAMPLE)  # the built-in corpora
JSON, JSON_LINES, DELIMITED, PARQUET, ARROW, SAVED = (
    "json",
    "json lines",
    "delimited",
    "parquet",
    "arrow",
    "saved",
)
# suffix, in small letters -> how such a file is read
SUFFIXES = {
    ".json": JSON,
    ".json.gz": JSON,
    ".jsonl": JSON_LINES,
    ".jsonl.gz": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".ndjson.gz": JSON_LINES,
    ".csv": DELIMITED,
    ".csv.gz": DELIMITED,
    ".tsv": DELIMITED,
    ".tsv.gz": DELIMITED,
    ".parquet": PARQUET,
    ".arrow": ARROW,
    ".feather": ARROW,
}
SOURCES = (
    f"`{SAMPLE}`, `{HARD_SAMPLE}`, "
    f"a file ({', '.join(suffix for suffix in SUFFIXES if not suffix.endswith('.gz'))}; of text also .gz), "
    "a folder that save_to_disk of the library datasets has written (FOLDER, FOLDER@SPLIT) or a hub data set name "
    "(owner/name, owner/name:configuration, owner/name@split)"
)
HINTS = {
    (".xlsx", ".xls", ".ods"): 'save the sheet as "CSV UTF-8"',
    (".txt", ".text"): "give a table the suffix .csv or .tsv, JSON lines .jsonl",
    (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".bz2", ".xz", ".zst"): "unpack it",
    (
        ".pkl",
        ".pickle",
        ".pt",
        ".npy",
        ".npz",
    ): "write the table as Parquet; files that run code are not read",
}
HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w.-]+|[\w-]+)(:[\w.-]+)?(@[\w.-]+)?")


@dataclass(frozen=True)
class Found:
    """A source that is there: how it is read, where it stands, and which split of a folder is named."""

    kind: str
    path: Path
    split: str | None = None

    def split_for(self, split: str) -> str | None:
        """Return the split of a folder that "train" or "dev" means; None where it has no splits.

        It is the one that is named, else the hub's name for it, else the only one there is.

        Raises:
            MissingSplit: there is none, or several that are called otherwise.
        """
        if not files.is_file(self.path / SPLITS):
            if self.split is not None:
                raise MissingSplit(
                    f"{self.path}@{self.split}: found a folder without splits; allowed: {self.path}"
                )
            return None
        names = saved_splits(self.path)
        wanted = self.split or HUB_SPLITS[split]
        if wanted in names:
            return wanted
        if self.split is None and len(names) == 1:
            return names[0]
        raise MissingSplit(
            f"{self.path}: found no split {wanted!r}; allowed: {', '.join(f'{self.path}@{name}' for name in names)}"
        )


def is_file_source(source: str) -> bool:
    """Tell whether a source means a file or folder, there or not, rather than a built-in corpus or a hub name."""
    if source in BUILT_IN:
        return False
    return (
        suffix_of(source) != ""
        or HUB_NAME.fullmatch(source) is None
        or _exists(source)
        or _saved_part(source) is not None
    )


def find(source: str) -> Found:
    """Return what a source is that means a file or folder.

    Raises:
        DataError: there is none, or one of another kind; names the kinds that are read.
        StorageError: it cannot be told, because a folder above may not be entered.
    """
    if not _exists(source):
        saved = _saved_part(source)
        if saved is not None:
            return Found(SAVED, saved, source.rpartition("@")[2])
        raise DataError(f"{source}: found no such file; allowed: {SOURCES}")
    path = Path(source).expanduser()
    if _is_saved(path):
        return Found(SAVED, path)
    kind = SUFFIXES.get(suffix_of(path.name))
    if not files.is_file(path) or kind is None:
        found = "a folder" if files.is_folder(path) else "a file of another kind"
        raise DataError(f"{source}: found {found}; allowed: {SOURCES}{_hint(path)}")
    return Found(kind, path)


def has_own_dev_split(source: str) -> bool | None:
    """Tell whether a source has questions to evaluate on beside those to train on; None: only the hub can tell."""
    if source in BUILT_IN:
        return True
    if not is_file_source(source):
        return False if "@" in source else None
    found = find(source)
    return found.kind == SAVED and found.split is None and HUB_SPLITS["dev"] in _splits_of(found.path)


def _splits_of(folder: Path) -> list[str]:
    return saved_splits(folder) if files.is_file(folder / SPLITS) else []


def suffix_of(name: str) -> str:
    """Return the suffix that says how a file is read, in small letters, "" where none does."""
    small = name.lower()
    return next((suffix for suffix in SUFFIXES if small.endswith(suffix)), "")


def path_of(source: str) -> str:
    """Return the path of a source that means a file or folder: without the split that it names."""
    saved = None if _exists(source) else _saved_part(source)
    return source if saved is None else source.rpartition("@")[0]


def _saved_part(source: str) -> Path | None:
    """Return FOLDER of FOLDER@SPLIT, where it is one of `save_to_disk`."""
    before, at, _ = source.rpartition("@")
    if not at or not before or not _exists(before):
        return None
    folder = Path(before).expanduser()
    return folder if _is_saved(folder) else None


def _is_saved(path: Path) -> bool:
    return files.is_folder(path) and (files.is_file(path / STATE) or files.is_file(path / SPLITS))


def _hint(path: Path) -> str:
    if files.is_folder(path):
        return ". Name one of its files"
    small = path.name.lower()
    return next((f". Hint: {hint}" for suffixes, hint in HINTS.items() if small.endswith(suffixes)), "")


def _exists(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, ~ of a user that is not there, a NUL byte
        return False
