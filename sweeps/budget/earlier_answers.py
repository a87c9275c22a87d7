"""What `plan`, `validate` and `run` worked out before: forecasts, data reports, baselines, in one file of the cache.

Working them out takes torch, transformers and peft, which take seconds to import; looking them up takes none of them.
An answer is kept under everything that it follows from: the question itself, the files that its settings name (size and
time of change), the versions of the libraries, the files of `qa_core`, and the instructions of the CPU. It is not kept
where this cannot be told: where a name of the hub is in the question, or the recipe runs on a GPU (said by the caller).
A damaged file is made again. Workers look nothing up here: they read the data, and measure a form before they train it.
"""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import qa_core
from qa_core import files, registry
from qa_core.checkpoints import shipped_names
from qa_core.data.sources import BUILT_IN, is_file_source, path_of
from qa_core.errors import ConfigError, DataError, StorageError

FORMAT = 1  # raise it when an answer comes to mean something else
DIGEST = "sha256"  # in the file: of all else in it
MOST_ANSWERS = 20_000  # in the file; of more the oldest go
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "accelerate", "numpy", "pyarrow")
# Environment variables by which kernels are chosen.
KERNELS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
# Last parts of settings whose values are names of the hub where they are neither files nor networks of this package.
NETWORKS = ("checkpoint", "tokenizer", "teacher")
DATA = ("train", "evaluation", "cross_domain")


class EarlierAnswers:
    """Answers of earlier calls and of this one, as JSON values; `write` keeps those of this call.

    Args:
        cache_dir: of the workers; the file is below it.
        before_work: called once, before the first answer that is not known is worked out.
    """

    def __init__(self, cache_dir: Path, *, before_work: Callable[[], None] = lambda: None) -> None:
        here = [FORMAT, *_versions(), *_cpu(), _files_below(Path(qa_core.__file__).parent)]
        here.append(_files_below(Path(__file__).parents[1], "*.py"))
        self._path = cache_dir / "plans" / f"{_digest(here)}.json"
        self._answers = self._read()
        self._new: dict[str, Any] = {}
        self._states: dict[tuple[str, str], Any] = {}  # setting and text -> state of the file it names
        self._before_work: Callable[[], None] | None = before_work

    def answer(self, question: Any, make: Callable[[], Any], *, is_lasting: Callable[[Any], bool]) -> Any:
        """Return the answer to a question, worked out unless it is known.

        Args:
            question: JSON values, with the settings that the answer follows from as nested mappings.
            make: works the answer out, as JSON values.
            is_lasting: tells whether an answer may be kept: a failure may be gone the next time.
        """
        state = self._state(question)
        key = None if state is None else _digest([question, state])
        if key is not None and key in self._answers:
            return self._answers[key]
        self.begin_work()
        found = make()
        if key is not None and is_lasting(found):
            self._answers[key] = self._new[key] = found
        return found

    def begin_work(self) -> None:
        """Call `before_work`, once; for what is worked out beside the questions too."""
        before, self._before_work = self._before_work, None
        if before is not None:
            before()

    @contextmanager
    def kept_if_refused(self) -> Iterator[None]:
        """Write before a refusal leaves the block: the next call, with another limit, looks up what this one found."""
        try:
            yield
        except ConfigError:
            self.write()
            raise

    def write(self) -> None:
        """Keep the answers of this call beside those of others; a folder that cannot be written to keeps none."""
        if not self._new:
            return
        answers = {**self._read(), **self._new}
        values = {"answers": dict(list(answers.items())[-MOST_ANSWERS:])}
        try:
            files.make_folder(self._path.parent)
            files.write_json(self._path, {**values, DIGEST: files.digest(values)})
        except StorageError:
            return
        self._new = {}

    def _read(self) -> dict[str, Any]:
        """Return what earlier calls kept; nothing where there is no file, or a damaged one."""
        try:
            found = files.read_object(self._path)
            if found.pop(DIGEST, None) != files.digest(found):
                return {}
            return dict(found["answers"])
        except (DataError, StorageError, KeyError, TypeError, ValueError):
            return {}

    def _state(self, question: Any) -> list[Any] | None:
        """Return the states of all files that a question names; None where it names what has no state here."""
        states = []
        for setting, text in _texts(question, ""):
            known = (setting, text)
            if known not in self._states:
                self._states[known] = _state_of(setting, text)
            if self._states[known] is None:
                return None
            states.append(self._states[known])
        return [state for state in states if state]


def _state_of(setting: str, text: str) -> str | None:
    """Return the state of the file or folder that a text names, "" where it names none; None for a name of the hub."""
    if setting in DATA:
        if text in BUILT_IN:
            return ""
        return _file_state(path_of(text)) if is_file_source(text) else None
    if found := _file_state(text):
        return found
    if setting in NETWORKS:
        return "" if text in _own_networks() else None
    return ""


def _own_networks() -> set[str]:
    """Return the names of presets and of networks in this package, whose files are among those of `qa_core`."""
    presets = {name for family in registry.FAMILIES for name in registry.family_class(family).presets}
    return presets | {name for family in registry.FAMILIES for name in shipped_names(family)}


def _file_state(text: str) -> str:
    """Return where a file or folder is, with size and time of change of all in it; "" where there is none."""
    try:
        path = Path(text).expanduser()
        if not path.exists():
            return ""
        return f"{path.absolute()} {_files_below(path) if path.is_dir() else _stat(path)}"
    except (OSError, RuntimeError, ValueError):  # too long, ~ of a user that is not there, a NUL byte
        return ""


def _files_below(folder: Path, pattern: str = "*") -> str:
    found = (path for path in folder.rglob(pattern) if "__pycache__" not in path.parts and path.is_file())
    return _digest([[path.relative_to(folder).as_posix(), _stat(path)] for path in sorted(found)])


def _stat(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _texts(values: Any, setting: str) -> Iterator[tuple[str, str]]:
    """Yield each text among JSON values with the last part of its setting."""
    if isinstance(values, str):
        yield setting, values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            yield from _texts(value, str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, setting)


def _versions() -> Iterator[str]:
    for name in LIBRARIES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} none"


def _cpu() -> Iterator[str]:
    """Yield what decides the number formats and kernels of this machine."""
    yield platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        yield next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        yield platform.processor()
    yield from (f"{name} {os.environ.get(name, '')}" for name in KERNELS)


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
