"""Where everything lies in a sweep's folder: its only home of file names.

    spec.json               the settings that the sweep runs with
    records.jsonl           one line for each trial that ended
    forms.jsonl             stored forms of trials that ended, made later: see `records.py`
    journal.jsonl           what must be known of trials that have not ended
    preflight.json          what the nodes of a cluster answered
    tracking-errors.txt     tracebacks of calls that MLflow did not take
    sweep-error.txt         tracebacks of faults that are not the user's
    front.{png,csv,parquet}
    report.html             the report of the sweep, kept up to date while it runs
    data/                   tables that the sweep was given in Python, as Parquet files
    trials/tNNNN/           one folder for each trial: see `TrialFolder`
    trials/tNNNN/forms/LABEL/   one folder for each stored form: see `qa_core/form_folder.py`

Beside them, while a sweep runs: `driver.lock`, `preflight.lock`, `pause` and `ray/`, which Ray writes for itself.
Values are paths; nothing is read or written here.
"""

from dataclasses import dataclass
from pathlib import Path

from qa_core.form_folder import ARTIFACT, FORMS_FOLDER, FormFolder

SPEC_FILE = "spec.json"
RECORDS_FILE, MORE_FORMS_FILE = "records.jsonl", "forms.jsonl"
JOURNAL_FILE, DRIVER_LOCK = "journal.jsonl", "driver.lock"
PREFLIGHT_FILE, PREFLIGHT_LOCK = "preflight.json", "preflight.lock"
ERROR_FILE = "tracking-errors.txt"
FAULT_FILE = "sweep-error.txt"
REPORT_FILE = "report.html"
PAUSE_FILE = "pause"  # while the sweep ends: workers look for it
RAY_FOLDER = "ray"  # never read back
TRIALS_FOLDER = "trials"

CHECKPOINT = "checkpoint"  # folder of a trial, beside `ARTIFACT`
OUTCOME_FILE, FINAL_FILE = "outcome.json", "final.json"
WORKER_LOCK = "worker.lock"
ALIVE_FILE, HANG_FILE = "alive", "hang.txt"
PROGRESS_FILE = "progress.json"  # while the trial runs
DATA_FOLDER = "data"


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Folder of the training state at the last rung; removed when the trial has ended."""
        return self.path / CHECKPOINT

    @property
    def artifact(self) -> Path:
        """Folder of the model as it ships."""
        return self.path / ARTIFACT

    @property
    def forms(self) -> Path:
        """Holds the folders of all stored forms but the twin, which is the artifact."""
        return self.path / FORMS_FOLDER

    def form(self, label: str) -> FormFolder:
        """Return the folder of a stored form other than the twin."""
        return FormFolder(self.forms / label)

    @property
    def outcome(self) -> Path:
        """Why the trial ended without a result."""
        return self.path / OUTCOME_FILE

    @property
    def final(self) -> Path:
        """Its final report."""
        return self.path / FINAL_FILE

    @property
    def lock(self) -> Path:
        """Held by the worker that runs it."""
        return self.path / WORKER_LOCK

    @property
    def alive(self) -> Path:
        """Touched now and then by its worker."""
        return self.path / ALIVE_FILE

    @property
    def progress(self) -> Path:
        """How far its training is, while it runs."""
        return self.path / PROGRESS_FILE

    @property
    def hang(self) -> Path:
        """Where its threads stood; empty or absent when it did not hang."""
        return self.path / HANG_FILE


@dataclass(frozen=True)
class RunFolder:
    """The folder of one sweep."""

    path: Path

    @property
    def spec(self) -> Path:
        """The settings that the sweep runs with."""
        return self.path / SPEC_FILE

    @property
    def records(self) -> Path:
        """One line for each trial that ended."""
        return self.path / RECORDS_FILE

    @property
    def more_forms(self) -> Path:
        """Stored forms that were made after their trials' records were written."""
        return self.path / MORE_FORMS_FILE

    @property
    def journal(self) -> Path:
        """What must be known of trials that have not ended."""
        return self.path / JOURNAL_FILE

    @property
    def driver_lock(self) -> Path:
        """Held by the process that runs the sweep."""
        return self.path / DRIVER_LOCK

    @property
    def preflight(self) -> Path:
        """What the nodes of a cluster answered."""
        return self.path / PREFLIGHT_FILE

    @property
    def preflight_lock(self) -> Path:
        """Held by the node that joins."""
        return self.path / PREFLIGHT_LOCK

    @property
    def tracking_errors(self) -> Path:
        """Tracebacks of calls that MLflow did not take."""
        return self.path / ERROR_FILE

    @property
    def fault(self) -> Path:
        """Tracebacks of faults that are not the user's."""
        return self.path / FAULT_FILE

    @property
    def pause(self) -> Path:
        """There while the sweep ends: workers look for it."""
        return self.path / PAUSE_FILE

    @property
    def ray(self) -> Path:
        """What Ray writes for itself."""
        return self.path / RAY_FOLDER

    @property
    def data(self) -> Path:
        """Holds the tables that the sweep was given in Python."""
        return self.path / DATA_FOLDER

    @property
    def trials(self) -> Path:
        """Holds the folders of all trials."""
        return self.path / TRIALS_FOLDER

    def trial(self, trial_id: str) -> TrialFolder:
        """Return the folder of a trial."""
        return TrialFolder(self.trials / trial_id)

    @property
    def report(self) -> Path:
        """The report of the sweep, kept up to date while it runs."""
        return self.path / REPORT_FILE

    def front(self, suffix: str) -> Path:
        """Return the file of the front in one format: png, csv or parquet."""
        return self.path / f"front.{suffix}"
