"""What the user sees of a running sweep: a line for each event, a bar for the whole, the front as it changes.

On a terminal the bar stays below the lines; elsewhere (a pipe, a log file) there are plain lines without control
codes. It only shows: nothing is decided or stored here. The tuner tells it of events (`sweeps/trials/ray_driver.py`).

Everything is written by a thread of its own: a terminal that stalls, or a pipe that nobody reads, holds up no sweep.
"""

import io
import os
import queue
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, TextIO

from qa_core.errors import counted
from sweeps.progress.status import (
    FrontRow,
    SweepClock,
    Training,
    front_lines,
    front_rows,
    megabytes,
    read_training,
)
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import masked_text, printable
from sweeps.run_folder.model_id import ModelId

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

STYLES = {
    "finished": "green",
    "stopped": "dim",
    "paused": "dim",
    "failed": "red",
    "oom": "red",
    "form": "red",
    "front": "bold cyan",
}
WORDS = {"ok": "finished"}  # of a record's status; the others are shown as they are
QUIET = ("started", "rung", "finished", "stopped", "paused", "front")  # events that `is_quiet` leaves out
FRONT_POINTS_SHOWN = 8
LONGEST_REASON = 160  # characters in an event's line; the error summary shows more
LONGEST_SIGNATURE = 400
REFRESH_SECONDS = 0.5  # of what stays below the lines on a terminal
STATUS_SECONDS = 60.0  # elsewhere, between two lines on each running trial
HEADINGS = f"{'examples':>12}{'/s':>6}{'loss':>7}{'left':>11}"  # of `_training_columns`
TRIALS_SHOWN = 8  # of those that run, on a terminal
COLUMNS = 80  # of what is broken into lines
# Names and paths in a line stay whole, longer or not.
AS_IT_IS: Mapping[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
WAIT_SECONDS = 1.0  # for a line to be written, unless the output has stalled
LONGEST_QUEUE = 10_000  # lines that wait for a stalled output; later ones are lost


class SweepConsole:
    """Live progress of one sweep. `close` (or `finish`) must be called, or the terminal keeps what stays below.

    Args:
        output: where to write; None for the standard output.
        is_quiet: leave out what goes well; failures, notes, warnings and the last line stay.
        warnings: where warnings go; None for the standard error.
    """

    def __init__(
        self, output: TextIO | None = None, *, is_quiet: bool = False, warnings: TextIO | None = None
    ) -> None:
        self._output = output or sys.stdout
        self._stream = _own_stream(self._output)
        self._warnings = warnings or sys.stderr
        self._is_quiet = is_quiet
        self._writer = _Writer()
        self._live: Live | None = None
        self._folder = Path()
        self._clock = SweepClock(trials=0)
        self._running: dict[str, float] = {}  # trial -> since when
        self._labels: dict[str, str] = {}
        self._errors: dict[str, list[ModelId]] = {}  # signature -> trials, and stored forms of trials
        self._front: list[FrontRow] = []
        self._front_text = ""
        self._told = self._started = time.monotonic()

    def start(
        self, name: str, trials: int, folder: Path, *, ended: int = 0, minutes: float | None = None
    ) -> None:
        """Announce the sweep; `ended` trials of a resumed one are done already, and it may take `minutes`."""
        self._folder = folder
        self._told = self._started = time.monotonic()
        self._clock = SweepClock(trials=trials, ended=ended, minutes=minutes)
        before = f", {ended} of them ended before" if ended else ""
        self._line("sweep", f"{name}: {trials} trials into {folder}{before}")
        if self._is_quiet:
            return
        if self._output.isatty():
            self._live = _live(self._stream, self._shown_below)
            self._writer.write(self._live.start)
            self._writer.when_idle = self._live.refresh
        else:
            self._writer.when_idle = self._status_lines

    def section(self, title: str, lines: Sequence[str]) -> None:
        """Show lines under a title, as they are said before a sweep starts; nothing where there is none."""
        if not self._is_quiet:
            for line in broken_lines(title, lines, COLUMNS):
                self._print(line)

    def warning(self, text: str) -> None:
        """Show a warning on the error stream, broken between words on a terminal."""
        with may_be_lost(self._warnings):
            print(warning_text(text, is_broken=self._warnings.isatty()), file=self._warnings)

    def trial_started(self, trial_id: str, label: str) -> None:
        """Show that a worker took the trial up; `label` says in a few words what it is."""
        self._running[trial_id] = time.monotonic()
        self._labels[trial_id] = label
        self._line("started", label, trial_id)
        self._advance()

    def trial_reported(self, trial_id: str, progress: Mapping[str, Any]) -> None:
        """Show a rung: a `Progress` as plain values."""
        loss = progress["train_loss"]
        text = (
            f"{progress['examples_seen']}/{progress['budget_examples']} examples, "
            f"{'' if loss is None else f'loss {loss:.3f}, '}"
            f"selection EM {progress['selection_em_percent']:.1f}, {megabytes(progress['memory_mb'])} MB"
        )
        self._line("rung", text, trial_id)

    def trial_paused(self, trial_id: str, examples_seen: int, why: str) -> None:
        """Show that a trial gave up its worker, and why."""
        self._running.pop(trial_id, None)
        label = self._labels.get(trial_id, "")
        self._line(
            "paused", f"at {examples_seen} examples: {why}" + (f"  [{label}]" if label else ""), trial_id
        )
        self._advance()

    def trial_ended(self, record: Mapping[str, Any]) -> None:
        """Show how a trial ended; the first error of a kind in words, later ones by reference."""
        trial_id, status = str(record["trial_id"]), str(record["status"])
        self._running.pop(trial_id, None)
        self._clock.trial_ended(record.get("seconds"))
        if status in ("failed", "oom"):
            reason = str(record.get("reason") or "no reason was recorded")
            text = self._error_text(ModelId(trial_id), reason)
        elif status == "ok":
            text = _result_text(record)
        else:
            text = _cut(str(record.get("reason") or ""), LONGEST_REASON)
        label = self._labels.pop(trial_id, "")
        self._line(WORDS.get(status, status), f"{text}  [{label}]" if label else text, trial_id)
        self._show_failed_forms(trial_id, record.get("forms") or ())
        self._advance()

    def front_changed(
        self, points: Sequence[Mapping[str, Any]], hypervolume: float, *, spent_examples: int = 0
    ) -> None:
        """Show the front, best EM at rising memory, unless it reads as before.

        Args:
            points: with at least `em_percent` and `memory_mb`, or what names them; those whose `on_front` is False are
                left out.
            hypervolume: of the front, in the sweep's own units.
            spent_examples: not shown.
        """
        self._front = front_rows(points)
        text = _front_text(points)
        if text and text != self._front_text:
            self._front_text = text
            if self._live is None:  # else it is shown below the lines, as a table
                self._line("front", f"{text}  (hypervolume {hypervolume:.4g})")
        self._advance()

    def note(self, text: str) -> None:
        """Show a line that belongs to no trial."""
        self._line("note", text)

    def finish(self, counts: Mapping[str, int]) -> None:
        """Take away what stays below and show how the trials ended, and the kinds of errors, each with a file to open.

        Args:
            counts: status of the records, or paused -> number of trials.
        """
        self.close()
        ended = ", ".join(f"{count} {WORDS.get(status, status)}" for status, count in sorted(counts.items()))
        seconds = time.monotonic() - self._started
        self._line("sweep", f"{ended or 'no trial ended'} in {_duration(seconds)}")
        for signature, failed in sorted(self._errors.items(), key=lambda item: -len(item[1])):
            self._line("error", f"{len(failed)}x {signature}")
            self._line("", f"trials {', '.join(map(str, failed))}; open {self._file_of(failed[0])}")

    def close(self) -> None:
        """Take away what stays below the lines; lines can still be shown. Safe to call twice."""
        self._writer.when_idle = None
        if self._live is not None:
            self._writer.write(self._live.stop)
            self._live = None

    def _show_failed_forms(self, trial_id: str, forms: Sequence[Mapping[str, Any]]) -> None:
        """Show the stored forms that failed, each error of a kind once in words; the trial itself is none of them."""
        for form in forms:
            if form["status"] == "failed":
                text = self._error_text(ModelId(trial_id, str(form["label"])), str(form["reason"]))
                self._line("form", f"{form['label']} failed: {text}", trial_id)

    def _error_text(self, failed: ModelId, reason: str) -> str:
        signature = error_signature(reason)
        seen = self._errors.setdefault(signature, [])
        seen.append(failed)
        return _cut(reason, LONGEST_REASON) if len(seen) == 1 else f"as {seen[0]}"

    def _file_of(self, failed: ModelId) -> Path:
        trial = RunFolder(self._folder).trial(failed.trial_id)
        outcome = trial.outcome if failed.form is None else trial.form(failed.form).outcome
        return outcome if outcome.exists() else RunFolder(self._folder).records

    def _advance(self) -> None:
        if self._live is not None:
            self._writer.write(self._live.refresh)

    def _training(self) -> list[tuple[str, Training | None]]:
        """Return the running trials, the longest first, each with what its worker last told."""
        return [(name, read_training(RunFolder(self._folder).trial(name))) for name in list(self._running)]

    def _shown_below(self) -> "RenderableType":
        """Return what stays below the lines on a terminal: the front, the running trials, the sweep."""
        from rich.table import Table
        from rich.text import Text

        below = Table.grid()
        for line in (
            *front_lines(self._front, FRONT_POINTS_SHOWN),
            *self._running_lines(),
            self._sweep_line(),
        ):
            below.add_row(Text(line, no_wrap=True, overflow="ellipsis"))
        return below

    def _running_lines(self) -> list[str]:
        found = self._training()
        lines = [
            f"{name:<6} {_training_columns(training)}  {self._labels.get(name, '')}"
            for name, training in found[:TRIALS_SHOWN]
        ]
        more = len(found) - TRIALS_SHOWN
        lines += [f"{'':>6} {counted(more, 'more trial')}"] if more > 0 else []
        return [f"{'trial':<6} {HEADINGS}  recipe", *lines] if lines else []

    def _sweep_line(self) -> str:
        errors = sum(map(len, self._errors.values()))
        left = self._clock.seconds_left([item for _, item in self._training()], self._started)
        how = "about" if self._clock.knows_trials else "at most"
        parts = [
            f"{self._clock.ended}/{self._clock.trials} trials",
            f"{len(self._running)} running",
            *([f"{errors} failed"] if errors else []),
            _duration(time.monotonic() - self._started),
            *([f"{how} {_duration(left)} left"] if left is not None else []),
        ]
        return f"sweep  {', '.join(parts)}"

    def _status_lines(self) -> None:
        """Write a line on each running trial and one on the sweep, now and then; called where there is no terminal."""
        if time.monotonic() - self._told < STATUS_SECONDS:
            return
        self._told = time.monotonic()
        for name, training in self._training():
            line = f"{name:<6} {'running':<9} {_training_text(training)}"
            print(printable(line), file=self._stream, flush=True)
        print(self._sweep_line(), file=self._stream, flush=True)

    def _print(self, line: str) -> None:
        self._writer.write(lambda: print(line, file=self._stream, flush=True))

    def _line(self, event: str, text: str, trial_id: str = "") -> None:
        if self._is_quiet and event in QUIET:
            return
        text = "\n".join(map(printable, masked_text(text).split("\n")))
        line = f"{trial_id or '':<6} {event:<9} {text}" if trial_id or event != "sweep" else f"sweep  {text}"
        if self._live is None:
            self._print(line.rstrip())
            return
        console = self._live.console
        if event != "note":  # it may hold a command, which is to be copied whole
            indent = " " * (len(line) - len(text))
            parts = (
                fill(part, console.width, subsequent_indent=indent, **AS_IT_IS) for part in line.split("\n")
            )
            line = "\n".join(parts)
        self._writer.write(
            lambda: console.print(
                line, style=STYLES.get(event), markup=False, highlight=False, soft_wrap=True
            )
        )


class _Writer:
    """Does one piece of writing after the other in a thread, and waits for none longer than `WAIT_SECONDS`."""

    def __init__(self) -> None:
        self.when_idle: Callable[[], object] | None = None  # called now and then
        self._waiting: queue.Queue[Callable[[], object]] = queue.Queue(LONGEST_QUEUE)
        self._thread: threading.Thread | None = None
        self._done = threading.Condition()
        self._asked = self._written = 0

    def write(self, piece: Callable[[], object]) -> None:
        """Have the piece written after those before it; return once it is, or once the output seems to stall."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="console", daemon=True)
            self._thread.start()
        has_stalled = self._written < self._asked
        try:
            self._waiting.put_nowait(piece)
        except queue.Full:
            return
        self._asked += 1
        with self._done:
            self._done.wait_for(
                lambda: self._written == self._asked, timeout=0.0 if has_stalled else WAIT_SECONDS
            )

    def _run(self) -> None:
        while True:
            try:
                piece = self._waiting.get(timeout=REFRESH_SECONDS)
            except queue.Empty:
                self._try(self.when_idle)
                continue
            self._try(piece)
            with self._done:
                self._written += 1
                self._done.notify_all()

    def _try(self, piece: Callable[[], object] | None) -> None:
        """Write; an output that is gone, such as a closed terminal, ends no sweep."""
        if piece is not None:
            with suppress(OSError, ValueError):
                piece()


def _own_stream(output: TextIO) -> TextIO:
    """Return another stream to the same place, so that a write that never ends holds no lock of `output`.

    What is no file, such as text in memory or the output of a notebook's cell, is returned as it is.
    """
    if not isinstance(output, io.TextIOWrapper):  # one of a notebook names a file that is not the notebook
        return output
    try:
        number = os.dup(output.fileno())
    except (OSError, io.UnsupportedOperation):  # text in memory
        return output
    output.flush()
    return open(number, "w", encoding=output.encoding, errors=output.errors, buffering=1)


def broken_lines(title: str, lines: Sequence[str], width: int) -> list[str]:
    """Return a title and the lines under it, which are broken at `width`; nothing where there is no line."""
    if not lines:
        return []
    broken = (
        fill(printable(line), width, initial_indent="  ", subsequent_indent="    ", **AS_IT_IS)
        for line in lines
    )
    return [f"{printable(title)}:", *broken]


def warning_text(text: str, *, is_broken: bool) -> str:
    """Return a warning as it is printed: in lines for a terminal, in one line for a file or a pipe."""
    whole = f"warning: {printable(text)}"
    return fill(whole, COLUMNS, subsequent_indent="  ", **AS_IT_IS) if is_broken else whole


@contextmanager
def may_be_lost(*streams: TextIO) -> Iterator[None]:
    """Let what the block prints be lost where the terminal or pipe is gone: that is no error, nor is it one at exit."""
    try:
        yield
        for stream in streams:
            stream.flush()
    except OSError:
        for stream in streams:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def error_signature(reason: str) -> str:
    """Return a reason as one line without what differs between trials: paths, numbers, addresses."""
    reason = masked_text(reason)  # while addresses in it are whole
    line = reason.strip().splitlines()[0] if reason.strip() else reason
    line = re.sub(r"(?<![\w.])/[^\s:,;'\"]+", "PATH", line)
    line = re.sub(r"0x[0-9a-fA-F]+|(?<![A-Za-z\d])\d+(\.\d+)?", "N", line)
    return _cut(line, LONGEST_SIGNATURE)


def _live(output: TextIO, shown: "Callable[[], RenderableType]") -> "Live":
    from rich.console import Console
    from rich.live import Live

    return Live(
        console=Console(file=output),
        auto_refresh=False,  # a thread of its own would hold its lock while the terminal stalls
        get_renderable=shown,
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
    )


def _training_columns(training: Training | None) -> str:
    """Return examples, examples per second, loss and time left in columns of 36 characters."""
    if training is None:
        return f"{'preparing':>36}"
    rate = "" if training.examples_per_second is None else f"{training.examples_per_second:.0f}"
    loss = "" if training.loss is None else f"{training.loss:.3f}"
    left = "" if training.seconds_left is None else _duration(training.seconds_left)
    if training.examples_seen >= training.budget_examples:
        left = "measuring"
    return f"{training.examples_seen}/{training.budget_examples}".rjust(12) + f"{rate:>6}{loss:>7}{left:>11}"


def _training_text(training: Training | None) -> str:
    """Return "3200/21600 examples, 410/s, loss 2.314, 45.0 s left", as far as the worker has told."""
    if training is None:
        return "preparing"
    loss = [] if training.loss is None else [f"loss {training.loss:.3f}"]
    rate = [] if training.examples_per_second is None else [f"{training.examples_per_second:.0f}/s"]
    if training.examples_seen >= training.budget_examples:
        left = ["measuring"]
    else:
        left = [] if training.seconds_left is None else [f"{_duration(training.seconds_left)} left"]
    seen = f"{training.examples_seen}/{training.budget_examples} examples"
    return ", ".join([seen, *rate, *loss, *left])


def _result_text(record: Mapping[str, Any]) -> str:
    values = {**(record.get("quality") or {}), **(record.get("objectives") or {})}
    named = (("em_percent", "EM"), ("f1_percent", "F1"))
    parts = [f"{word} {values[name]:.1f}" for name, word in named if values.get(name) is not None]
    if values.get("memory_mb") is not None:
        parts.append(f"at {megabytes(values['memory_mb'])} MB")
    if forms := record.get("forms"):
        parts = [f"{', '.join(parts)} as trained; {_forms_text(forms)}"]
    if record.get("seconds") is not None:
        parts.append(_duration(float(record["seconds"])))
    return ", ".join(parts)


def _forms_text(forms: Sequence[Mapping[str, Any]]) -> str:
    """Return "5 forms from 3.1 MB, 2 skipped": how many are ok, the least memory of these, and how others ended."""
    counts = Counter(str(form["status"]) for form in forms)
    sizes = [(form["objectives"] or {}).get("memory_mb") for form in forms if form["status"] == "ok"]
    known = [size for size in sizes if size is not None]
    least = f" from {megabytes(min(known))} MB" if known else ""
    others = "".join(f", {counts[status]} {status}" for status in ("skipped", "failed") if counts[status])
    return f"{counted(counts['ok'], 'form')}{least}{others}"


def _front_text(points: Sequence[Mapping[str, Any]]) -> str:
    shown = [point for point in points if point.get("on_front", True)]
    if not all(point.get("em_percent") is not None and point.get("memory_mb") is not None for point in shown):
        return ", ".join(
            " ".join(filter(None, (point.get("trial_id"), point.get("form")))) for point in shown
        )
    shown.sort(key=lambda point: point["memory_mb"])
    texts = [f"{point['em_percent']:.1f} at {megabytes(point['memory_mb'])} MB" for point in shown]
    if len(texts) > FRONT_POINTS_SHOWN:  # the ends of the front say most
        half = FRONT_POINTS_SHOWN // 2
        texts = [*texts[:half], f"... {len(texts) - 2 * half} more ...", *texts[-half:]]
    return "EM " + ", ".join(texts) if texts else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _cut(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."
