"""`run`: a whole sweep, from a checked spec to its front, its plots and the next commands to type."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from qa_core import files
from qa_core.config import RunConfig
from qa_core.data.cache import default_cache_dir
from qa_core.errors import ConfigError, DataError, counted
from qa_core.values import from_dict, to_dict
from sweeps.budget import references
from sweeps.checks.sweep import check
from sweeps.commands.results import show_front
from sweeps.commands.validate import remarks
from sweeps.front.choosing import limit_to_type
from sweeps.nodes.ray_environment import LOOPBACK, RayTarget
from sweeps.nodes.report import machine_here
from sweeps.progress.console import SweepConsole, may_be_lost
from sweeps.progress.json_events import JsonEvents
from sweeps.progress.mlflow_store import EXPERIMENT, database_url, default_tracking_uri, sqlite_file
from sweeps.progress.observer import Console
from sweeps.progress.shell_command import shell_command
from sweeps.run_folder import journal
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import masked_address, masked_text
from sweeps.run_folder.noted_forms import noted_forms
from sweeps.space.first import assignment_of
from sweeps.space.space import Space
from sweeps.spec.sections import SweepSpec
from sweeps.trials import signals

if TYPE_CHECKING:
    from sweeps.front.result import FrontResult
    from sweeps.progress.mlflow_mirror import Tracker
    from sweeps.run_folder.journal import Past
    from sweeps.run_folder.records import Record
    from sweeps.trials.ray_driver import SweepOutcome

SOME_FAILED, EXIT_INTERRUPTED = 3, 130  # exit codes
MOST_NAMED = 5  # trials, in one line
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
(LOOPBACK_NAME,) = LOOPBACK  # of the environment: 0 keeps an embedded Ray to itself


@dataclass(frozen=True)
class Target:
    """Where a sweep runs and where its results go."""

    folder: Path
    address: str | None  # of a Ray cluster; None: this machine
    tracking_uri: str | None  # None: the embedded MLflow
    dashboard: bool
    allow_mixed: bool = False  # the cluster's nodes may differ in versions and devices


def default_folder(name: str) -> Path:
    """Return `runs/NAME-TIME`, with the time in UTC to the second."""
    return Path("runs") / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


@dataclass(frozen=True)
class Finished:
    """What a sweep came to, the files of its front, and where it was mirrored."""

    outcome: "SweepOutcome"
    written: Sequence[Path]
    tracker: "Tracker"


def run(
    spec: SweepSpec, target: Target, *, resume: bool = False, quiet: bool = False, json_events: bool = False
) -> int:
    """Run the sweep, or resume the one in the folder, and show the result.

    Args:
        quiet: show nothing of what goes well before the result.
        json_events: print one JSON object for each event and nothing else on the standard output; see
            `sweeps/progress/json_events.py`.

    Returns:
        3 when some trials failed, 130 when it was interrupted and its running trials have checkpoints, else 0.

    Raises:
        QaError: space, data, folder or tracking store are refused; nothing was trained then.
    """
    from sweeps.trials.supervision import INTERRUPTED

    with signals.raised():
        events = JsonEvents() if json_events else None
        done = carry_out(spec, target, console=events or SweepConsole(is_quiet=quiet), resume=resume)
        outcome = done.outcome
        if events is not None:
            events.result(
                outcome.ended_by, unfinished=outcome.unfinished, paused=outcome.paused, files=done.written
            )
        else:
            with may_be_lost(sys.stdout):
                show(outcome, done.written, done.tracker, keep_percent=spec.target)
                _tell_what_is_left(outcome, target, spec.budget.trials)
    if outcome.ended_by == INTERRUPTED:
        return EXIT_INTERRUPTED
    return SOME_FAILED if outcome.counts.get("failed") or outcome.counts.get("oom") else 0


def carry_out(spec: SweepSpec, target: Target, *, console: Console, resume: bool = False) -> Finished:
    """Run the sweep, or resume the one in the folder; its front is written there and shown by nobody.

    Args:
        console: is told of each event.

    Raises:
        QaError: as `run`.
        KeyboardInterrupt: the process was asked to end more than once.
    """
    for warning in open_doors(target):
        console.warning(masked_text(warning))
    past = _past(spec, target.folder) if resume else None
    if past is None:
        journal.check_free(target.folder)
    files.check_writable(default_cache_dir())
    checked = check(spec, is_cluster=target.address is not None)
    found = checked.references()  # of a stored sweep nothing: it has numbers
    reference_lines = references.lines(spec, found)
    spec = references.resolved(spec, found)
    ray_target = RayTarget(target.address, target.dashboard, target.allow_mixed)
    ray_target.set_environment()  # before Ray is imported
    from sweeps.progress.mlflow_mirror import Tracker
    from sweeps.trials.ray_driver import create_run_folder, run_sweep

    for oddity in (*past.notes, *changed_space(checked.space, past)) if past else ():
        console.note(oddity)
    differs = _check_terms(spec, checked.space, past or journal.Past(), target=target, note=console.note)
    if past is None:
        create_run_folder(target.folder)
    tracking = _tracking(target, past)
    for title, lines in {
        **checked.report.sections(),
        "references": reference_lines,
        "notes": remarks(spec),
    }.items():
        console.section(title, lines)
    for warning in checked.report.warnings:
        console.warning(warning)
    tracker = Tracker(
        spec.as_dict(), run_folder=target.folder, experiment=EXPERIMENT, notify=console.note, **tracking
    )
    status = "failed"
    try:
        outcome = run_sweep(
            spec,
            folder=target.folder,
            target=ray_target,
            console=console,
            tracker=tracker,
            resume=resume,
            differs=differs,
            space=checked.space,
            forecast=checked.forecast,
        )
        console.finish(outcome.counts)
        written = write_front(outcome.front, target.folder)
        tracker.log_front(
            written,
            outcome.front.hypervolume,
            [point.id for point in outcome.front.front],
            spent_examples=outcome.spent_examples,
        )
        status = "finished" if outcome.ended_by is None else "interrupted"
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        console.close()
        is_ours = not isinstance(error, journal.SweepIsRunning)
        if is_ours and files.is_there(RunFolder(target.folder).journal):
            console.note(f"trials that ended are kept, others resume with: {_resume_command(target)}")
        raise
    finally:
        console.close()
        if files.is_there(target.folder):
            tracker.finish(status)
        else:  # refused before its first trial
            tracker.withdraw()
        checked.earlier.write()  # of the recipes that came up: the next sweep over this space starts sooner
    return Finished(outcome, written, tracker)


def _tell_what_is_left(outcome: "SweepOutcome", target: Target, trials: int) -> None:
    """Say why the sweep ended early, what has not run, and how to resume; nothing if all trials have ended."""
    if outcome.ended_by is not None:
        print(f"the sweep ended early: {outcome.ended_by}")
    not_begun = trials - sum(outcome.counts.values()) - outcome.unfinished if outcome.ended_by else 0
    paused = len(outcome.paused) if outcome.ended_by else 0  # they may go on, or only with more trials
    left = {"unfinished": outcome.unfinished, "paused": paused, "of the budget not begun": max(0, not_begun)}
    if any(left.values()):
        named = " and ".join(f"{counted(count, 'trial')} {what}" for what, count in left.items() if count)
        failed = outcome.counts.get("failed", 0) + outcome.counts.get("oom", 0)
        # Where nothing but failures came of it, another start would fail alike.
        after = " once the cause is mended" if failed and failed == sum(outcome.counts.values()) else ""
        print(f"{named}; resume{after} with: {_resume_command(target)}")
    if outcome.paused:
        named = ", ".join(f"{trial_id} at {seen} examples" for trial_id, seen in outcome.paused.items())
        print(f"paused, with their checkpoints: {named}")
        if outcome.ended_by is None:
            print(f"more trials may let them go on: {_resume_command(target)} --trials +N")


def _resume_command(target: Target) -> str:
    """Return what resumes the sweep in the same place; a password in an address is masked."""
    places = {"--address": target.address, "--tracking-uri": target.tracking_uri}
    given = [
        word for name, value in places.items() if value is not None for word in (name, masked_address(value))
    ]
    if target.allow_mixed:  # not stored, and a sweep that needs it is refused without
        given.append("--allow-mixed")
    return shell_command("qa-sweep", "run", "--resume", target.folder, *given)


def _past(spec: SweepSpec, folder: Path) -> "Past":
    """Return what happened so far in a folder that is to be gone on with, checked; nothing is written."""
    files.refuse_links(folder)
    past = journal.read(folder)
    _check_past(spec, past, folder)
    return past


def _check_past(spec: SweepSpec, past: "Past", folder: Path) -> None:
    """Refuse a past that this sweep cannot go on from, before anything is written.

    Raises:
        ConfigError: more trials have started than the budget allows.
        DataError: a trial is not of this sweep's space, or its recipe or reports cannot be used.
    """
    from sweeps.schedulers.base import check_report

    if spec.budget.trials < len(past.trials):
        raise ConfigError(
            f"--trials: found {spec.budget.trials}; allowed: {len(past.trials)} or more, the trials that have started"
        )
    objectives = [objective.name for objective in spec.objectives]
    for trial in past.trials:
        _check_objectives(trial.record, objectives, folder)
        try:
            from_dict(RunConfig, trial.recipe)
            noted_forms(trial.notes)
            for report in (*trial.curve, *(trial.record.curve if trial.record else ())):
                check_report(report, objectives)
        except (ConfigError, DataError) as error:
            raise DataError(f"{RunFolder(folder).journal}: trial {trial.trial_id}: {error}") from error


def changed_space(space: Space, past: "Past") -> list[str]:
    """Say, in a line, which trials came from another space or recipe than the sweep has now; none: no line.

    What may differ is the seed, and how long a trial trains.
    """
    found: list[str] = []
    first = ""
    for trial in past.trials:
        own = to_dict(from_dict(RunConfig, trial.recipe))
        try:
            now = to_dict(space.to_run_config(assignment_of(space, trial.assignment), seed=own["seed"]))
        except ConfigError as error:
            found.append(trial.trial_id)
            first = first or str(error)
            continue
        for name in ("budget_examples", "rungs"):
            now["train"][name] = own["train"][name]
        others = [section for section in own if now[section] != own[section]]
        if others:
            found.append(trial.trial_id)
            first = first or f"other settings in {', '.join(others)}"
    if not found:
        return []
    shown = ", ".join(found[:MOST_NAMED]) + (", ..." if len(found) > MOST_NAMED else "")
    return [
        f"{counted(len(found), 'trial')} of {len(past.trials)} came from another space or recipe than spec.json now "
        f"has ({shown}; of {found[0]}: {first}); they stay as they are, and the searcher learns from them"
    ]


def _check_objectives(record: "Record | None", objectives: Sequence[str], folder: Path) -> None:
    """Refuse a finished trial that lacks an objective of the sweep; raises DataError."""

    if record is None or record.status != "ok":
        return
    missing = [name for name in objectives if (record.objectives or {}).get(name) is None]
    if missing:
        raise DataError(
            f"{RunFolder(folder).records}: trial {record.trial_id}: objectives: found "
            f"{', '.join(record.objectives or {}) or 'none'}; {', '.join(missing)} of {RunFolder(folder).spec} not; "
            "allowed: the objectives with which the sweep was begun, or another sweep with --out"
        )


def _check_terms(
    spec: SweepSpec, space: Space, past: "Past", *, target: Target, note: Callable[[str], None]
) -> tuple[str, ...]:
    """Refuse trials that would not compare with those that have finished; see `comparability.check`.

    What a cluster computes on its nodes say, once the driver has joined it: see `sweeps/trials/ray_driver.py`.

    Returns:
        What differs and was allowed, in words.
    """
    from sweeps.front import comparability
    from sweeps.front.points import finished
    from sweeps.run_folder import provenance

    done = finished((trial.record for trial in past.trials if trial.record is not None), spec.objectives)
    commit = provenance.git_state(provenance.PROJECT_FOLDER)["commit"]
    if (commits := comparability.commit_note(done, commit)) is not None:
        note(commits)
    if target.address is not None:
        return ()
    return comparability.check(
        done,
        comparability.recipes_to_run(space, past, spec.budget.trials),
        spec.objectives,
        machines=machine_here,
        cache_dir=default_cache_dir(),
        allow_mixed=target.allow_mixed,
        note=note,
    )


def _tracking(target: Target, past: "Past | None") -> dict[str, Any]:
    """Return where the sweep is mirrored: as asked, or where it was before.

    The folder may come from somebody else: an address in it is taken only where it is that of the folder's own store or
    is named here too. Another one would get this user's MLflow token, or be a file that is written.

    Raises:
        ConfigError: the folder names another store, and nobody here does.
    """
    found = past.tracking if past else {}
    uri, asked = found.get("tracking_uri"), target.tracking_uri
    if uri is None or (asked is not None and masked_address(asked) != uri):
        return {"tracking_uri": asked}
    former = {"parent_run_id": found["parent_run_id"]}
    for named in (asked, os.environ.get("MLFLOW_TRACKING_URI")):
        if named is not None and masked_address(named) == uri:
            return {"tracking_uri": named, **former}
    file = sqlite_file(uri)
    if uri == masked_address(default_tracking_uri(target.folder)):
        return {"tracking_uri": None, **former}
    if file is not None and not file.exists():  # the folder has moved, or its former store is gone
        return {"tracking_uri": None}
    raise ConfigError(
        f"--tracking-uri: found none, and {target.folder} says that the sweep was mirrored to {uri}; allowed: that "
        f"address, to go on there (a password is not stored), or {default_tracking_uri(target.folder)}"
    )


def open_doors(target: Target) -> list[str]:
    """Return a warning for each server of this sweep that others may reach, or that could be used against it."""
    warnings = []
    if target.address is not None:
        warnings.append(
            f"--address {target.address}: anybody who reaches that Ray cluster's ports can run code on its machines; "
            "keep its token authentication on and its ports closed to others"
        )
    elif os.environ.get(LOOPBACK_NAME, LOOPBACK[LOOPBACK_NAME]) != LOOPBACK[LOOPBACK_NAME]:
        warnings.append(f"{LOOPBACK_NAME}={os.environ[LOOPBACK_NAME]}: Ray listens beyond the loopback")
    if target.dashboard:
        warnings.append(
            "--dashboard: it listens on the loopback, where every user of this machine reaches it and can run code "
            "with it; RAY_AUTH_MODE=token asks for a token"
        )
    if target.tracking_uri is not None:
        warnings += _tracking_warnings(target.tracking_uri)
    return warnings


def _tracking_warnings(tracking_uri: str) -> list[str]:
    """Return a warning where what is mirrored leaves this machine."""
    url = database_url(tracking_uri)
    if url is not None:
        query = url.query.get("host") or url.query.get("hostaddr") or url.host
        hosts = [query] if isinstance(query, str) else list(query or ())
        away = [host for host in hosts if host not in LOOPBACK_HOSTS and not host.startswith("/")]
        if not away:
            return []
        how = "; it is sure to be encrypted only with sslmode=verify-full in the address"
        return [
            f"--tracking-uri: configurations and errors are sent to {', '.join(away)}"
            + (how if url.get_backend_name() == "postgresql" else "")
        ]
    try:
        server = urlsplit(tracking_uri)
        host = server.hostname
    except ValueError:  # MLflow will say so
        return []
    if server.scheme not in ("http", "https") or host in LOOPBACK_HOSTS:
        return []
    how = "unencrypted " if server.scheme == "http" else ""
    return [f"--tracking-uri: configurations, errors and plots are sent {how}to {host}"]


def write_front(front: "FrontResult", folder: Path) -> list[Path]:
    """Write table and plot into the sweep's folder, each whole or not at all; returns their paths, and the report's.

    Raises:
        StorageError: a file cannot be written.
    """
    from sweeps.front.plots import write_png
    from sweeps.front.tables import write_csv, write_parquet

    writers = {"png": write_png, "csv": write_csv, "parquet": write_parquet}
    paths = []
    for suffix, write in writers.items():
        path = RunFolder(folder).front(suffix)
        write(front, path)
        paths.append(path)
    report = RunFolder(folder).report  # `sweeps/report/live.py` has written it
    return [*paths, report] if files.is_there(report) else paths


def show(
    outcome: "SweepOutcome", files: Sequence[Path], tracker: "Tracker", *, keep_percent: float | None = None
) -> None:
    """Print the front, what it says, where the report and the tables are, and what to type next."""
    show_front(outcome.front, outcome.folder, keep_percent=keep_percent)
    report = RunFolder(outcome.folder).report
    if report in files:
        print(f"report: {report}  (open it in a browser)")
    print("plot and tables: " + ", ".join(str(path) for path in files if path != report))
    print("next:")
    for command in next_commands(outcome.front, outcome.folder, tracker):
        print(f"  {command}")


def next_commands(front: "FrontResult", folder: Path, tracker: "Tracker") -> list[str]:
    """Return commands that go on from here, ready to type."""
    commands = []
    if tracker.scatter_page is not None:
        address = masked_address(tracker.tracking_uri)
        if not address.startswith("http"):
            is_own = address == masked_address(default_tracking_uri(folder))
            store = [folder.parent] if is_own else ["--tracking-uri", address]
            start = shell_command("qa-sweep", "ui", *store)
            # A comment, so that the whole line can be typed.
            commands.append(f"{start}  # then look at http://127.0.0.1:5000/{tracker.scatter_page}")
        else:
            commands.append(f"# look at {address}/{tracker.scatter_page}")
    if front.front:
        # The middle of the front: an export that fits something and is not the largest.
        limit = limit_to_type(front)
        model = f"{folder}-model"
        first = front.front[0]
        rule = ["--trial", first.trial_id, *(["--form", first.form] if first.form else [])]
        if limit is not None:
            name, value = limit
            rule = ["--max-memory-mb", value] if name == "memory_mb" else ["--max", f"{name}={value}"]
        commands.append(shell_command("qa-sweep", "export", folder, *rule, "--to", model))
        ask = ["--question", "Who ...?", "--context", "..."]
        commands.append(shell_command("qa-sweep", "predict", model, *ask))
    return commands
