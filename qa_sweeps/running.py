"""Runs sweeps from Python: in a process of their own, so that they disturb nothing in this one.

A notebook's event loop, a Ray that already runs here, and what this process has set in its environment are left alone.
The child process is `qa_sweeps/child.py`; it ends in order when this process is interrupted or dies.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import qa_core.errors
from qa_core import files
from qa_core.errors import ConfigError, QaError
from qa_sweeps.given import settings_of, withdraw
from qa_sweeps.sweep import Sweep
from sweeps.commands.options import DEFAULT_CONFIG, find_config
from sweeps.run_folder import journal
from sweeps.spec.load import load_spec, spec_of, stored_spec
from sweeps.trials.faults import SweepFault

# The child starts with this process's import path, as a process of `multiprocessing` does.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from qa_sweeps.child import main; sys.exit(main())"
)


def run(
    config: str | os.PathLike[str] | Mapping[str, Any] = DEFAULT_CONFIG,
    *,
    train: Any = None,
    evaluation: Any = None,
    columns: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    scales: Sequence[str] = (),
    trials: int | None = None,
    max_memory_mb: float | None = None,
    start_from: Sweep | str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    address: str | None = None,
    tracking_uri: str | None = None,
    allow_mixed: bool = False,
    quiet: bool = False,
) -> Sweep:
    """Run a sweep and return it, when it has ended.

    The sweep runs in a process of its own. An interrupt (Ctrl-C, or that of a notebook) ends it in order: running
    trials write checkpoints, and `resume` continues. A second interrupt ends it at once and raises KeyboardInterrupt.

    Args:
        config: a YAML file, the name of a configuration of the package, or what such a file holds, as a mapping.
        train: training data in place of those of the configuration: a pandas data frame, an Arrow table, a data set of
            the library `datasets`, a list of mappings, or a path or hub name as for `run --data`. A table is written
            into the sweep's folder as `data/train-HASH.parquet`.
        evaluation: evaluation data, likewise; None: those of the configuration, else the dev split of `train`, else a
            part of `train` that is held out.
        columns: field -> column of those that have unusual names, such as {"question": "q"}.
        settings: dotted name -> value, as --set changes them, such as {"budget.trials": 8}.
        scales: named scales of the configuration, applied in order before the settings.
        trials: short for the setting `budget.trials`.
        max_memory_mb: short for the setting `budget.max_memory_mb`: what a model may need for one window, in 10^6
            bytes.
        start_from: a sweep or its folder: the recipes of its front are proposed first, as far as this sweep's space
            allows them.
        folder: the sweep's own, new or empty; None: runs/NAME-TIME.
        address: of a Ray cluster; None: a Ray on this machine, for this sweep alone.
        tracking_uri: MLflow server or database; None: mlflow.db beside the sweeps' folders.
        allow_mixed: as --allow-mixed.
        quiet: print failures and notes alone.

    Raises:
        ConfigError: a setting is refused.
        DataError: the data are refused.
        StorageError: the folder is not new, or the disk is full.
        SweepFault: the program or a library failed; the message says how to go on.
        KeyboardInterrupt: there was a second interrupt.
    """
    from sweeps.commands.run import default_folder
    from sweeps.commands.start_from import start_from as front_first

    short = {"budget.trials": trials, "budget.max_memory_mb": max_memory_mb}
    changed = {**(settings or {}), **{name: value for name, value in short.items() if value is not None}}
    request: dict[str, Any] = {"scales": list(scales), "overrides": _overrides(changed)}
    if isinstance(config, Mapping):
        spec = spec_of(config, request["overrides"], scales=scales)
        request["values"] = config
    else:
        path = find_config(os.fspath(config))
        spec = load_spec(path, request["overrides"], scales=scales)
        request["config"] = str(path)
    if start_from is not None:
        other = start_from.folder if isinstance(start_from, Sweep) else Path(start_from)
        begun = front_first(spec, other)
        request["overrides"] += _overrides({"searcher.first": begun.searcher.first})
        for note in () if quiet else begun.notes:
            print(note)
    place = Path(folder) if folder is not None else default_folder(spec.name)
    journal.check_free(place)
    skips = bool((spec.recipe.get("data") or {}).get("skip_bad_examples"))
    try:
        sources, notes = settings_of(train, evaluation, columns, folder=place, skip_bad_examples=skips)
        request["overrides"] += _overrides(sources)
        if not quiet:
            for note in notes:
                print(note)
        return _carried_out(
            request,
            folder=place,
            address=address,
            tracking_uri=tracking_uri,
            allow_mixed=allow_mixed,
            quiet=quiet,
        )
    except QaError:
        withdraw(place)
        raise


def resume(
    sweep: Sweep | str | os.PathLike[str],
    *,
    more_trials: int = 0,
    address: str | None = None,
    tracking_uri: str | None = None,
    allow_mixed: bool = False,
    quiet: bool = False,
) -> Sweep:
    """Continue a sweep that was interrupted, or extend one that has ended.

    Args:
        sweep: a sweep or its folder.
        more_trials: how many trials it gets beside those of its budget.
        address, tracking_uri, allow_mixed, quiet: as for `run`.

    Raises:
        DataError: the folder holds no sweep, or its files cannot be read.
        ConfigError, StorageError, SweepFault, KeyboardInterrupt: as `run`.
    """
    folder = sweep.folder if isinstance(sweep, Sweep) else Path(sweep)
    stored_spec(folder)
    if more_trials < 0:
        raise ConfigError(f"more_trials: found {more_trials}; allowed: 0 or more")
    return _carried_out(
        {"more_trials": more_trials},
        folder=folder,
        address=address,
        tracking_uri=tracking_uri,
        allow_mixed=allow_mixed,
        quiet=quiet,
    )


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings as --set takes them; a JSON value is a YAML value."""
    try:
        return [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"settings: {error}; allowed: plain values, lists and mappings") from error


def _carried_out(request: dict[str, Any], *, folder: Path, **options: Any) -> Sweep:
    """Let a child process do what is asked, show what it prints, and return the sweep or raise what it raised."""
    with tempfile.TemporaryDirectory(prefix="qa-sweeps-") as scratch:
        answered = Path(scratch) / "result.json"
        values = {**request, **options, "folder": str(folder), "result": str(answered)}
        try:
            line = json.dumps(values, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"config: {error}; allowed: plain values, lists and mappings") from error
        code = _finished(line)  # by a pipe and not by a file: the address of a store may hold a password
        if not answered.is_file():
            raise SweepFault(
                f"the process of the sweep ended with code {code} and no word; resume continues what is in {folder}"
            )
        result = files.read_object(answered)
    if result.get("interrupted"):
        raise KeyboardInterrupt
    if "error" in result:
        raise _error_of(result["error"], result["message"])
    return Sweep(folder, ended_by=result["ended_by"])


def _error_of(name: str, message: str) -> QaError:
    kind = SweepFault if name == SweepFault.__name__ else getattr(qa_core.errors, name, QaError)
    error: QaError = kind(message)
    return error


def _finished(request: str) -> int:
    """Run the child to its end and return its exit code; an interrupt of this process is passed on to it.

    Args:
        request: in one line of JSON.
    """
    own_terminal = sys.stdout is sys.__stdout__ and sys.stdout is not None and sys.stdout.isatty()
    child = subprocess.Popen(
        [sys.executable, "-c", START, json.dumps(sys.path)],
        stdin=subprocess.PIPE,  # with the request; closed by the system when this process dies
        stdout=None if own_terminal else subprocess.PIPE,
        stderr=None if own_terminal else subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches it from here alone
    )
    with _ended_after(child):
        assert child.stdin is not None
        with suppress(BrokenPipeError):  # it has died, and its exit code says so
            child.stdin.write(f"{request}\n")
            child.stdin.flush()
        while True:
            try:
                if child.stdout is not None:
                    for line in child.stdout:
                        print(line, end="", flush=True)
                return child.wait()
            except KeyboardInterrupt:
                child.send_signal(signal.SIGINT)


@contextmanager
def _ended_after(child: "subprocess.Popen[str]") -> Iterator[None]:
    """Let the child end in order when the block ends by an exception."""
    try:
        yield
    finally:
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.close()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
