"""The runs of one sweep in MLflow: one of the sweep, one nested run for each trial, and those of stored forms.

The final numbers of a model are in one run alone, so that a scatter of all runs shows each point once. A trial without
stored forms is one model. Of a trial with forms, the run has the curves and, as `twin.NAME`, what the network came to
as it was trained; below it each form that was made has a run of its own; one that
was skipped is named in a tag of the trial's. Where forms were made later, of a trial that had been
mirrored without them, its own run stays the one of its twin.

Runs are addressed by id through `MlflowClient`; none is ever "active". A record's content:
`sweeps/run_folder/records.py`; what is written when, and what becomes of failures: `mlflow_mirror.py`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.progress.flatten import distinct_names, model_params, numbers, texts, training_params
from sweeps.progress.mlflow_database import PARENT_TAG, StoredRun, stored_runs
from sweeps.progress.mlflow_pages import DESCRIPTION_TAG, data_sets, experiment_tags
from sweeps.progress.mlflow_retry import retry
from sweeps.progress.mlflow_store import open_store
from sweeps.progress.mlflow_writer import LONGEST_TAG, RunWriter, metrics_of, told
from sweeps.run_folder.masking import masked_values
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.provenance import command_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

TRIAL_TAG, FORM_TAG = "qa.trial_id", "qa.form"
SWEEP_TAG = "qa.sweep_run_id"  # of the runs of all trials and forms: the sweep's run
FORMS_TAG = "qa.forms"  # of a trial that has ended: stored forms with runs of their own, and their status
SKIPPED_TAG = "forms_skipped"  # of a trial: forms that were not made, and why
FRONT_TAG = "on_front"
TRIAL_STATUS = {"ok": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "oom": "FAILED"}
SWEEP_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
FORM_STATUS = {"ok": "FINISHED", "failed": "FAILED"}
READ_TAGS = (TRIAL_TAG, FORM_TAG, FORMS_TAG, FRONT_TAG, "status")  # which a resumed sweep needs
# Of a record or a form: their numbers are the final metrics.
FINAL_SECTIONS = ("quality", "cost", "objectives")
TWIN = "twin"  # what they begin with in the run of a trial with stored forms
SKIPPED = "skipped"  # status of a form that was not made
PAUSED = "paused"  # tag of a trial that gave up its worker and may go on
TAGGED = ("status", "reason", "artifact", "device")  # entries of a record that become tags
LONGEST_DATA_NAME, LONGEST_DIGEST = 500, 36  # MLflow's limits
LONGEST_DATA_SOURCE = 10_000
UNKNOWN = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # of a run's id


class SweepRuns:
    """The sweep's runs in one MLflow store. Every method may raise, and may be called again after it did."""

    def __init__(self, client: "MlflowClient", experiment_id: str, tracking_uri: str) -> None:
        self._client = client
        self._tracking_uri = tracking_uri
        self._writer = RunWriter(client, experiment_id)
        self.experiment_id = experiment_id
        self.parent = ""
        self._children: dict[ModelId, str] = {}  # trial, or its stored form -> MLflow run id; see `_run_of`
        self._unread: set[str] = set()  # trial ids of whose stored forms not all runs have been looked for
        self._started_ms: dict[str, int] = {}  # MLflow run id -> start
        self._running: set[str] = set()  # MLflow run ids
        self._paused: set[str] = set()  # trial ids whose run is closed for now
        self._front: set[ModelId] = set()  # those whose run carries the tag
        self._ended: dict[ModelId, str] = {}  # those whose run holds all that is known of them -> status
        self._has_finals: set[str] = set()  # trial ids whose own run has the final numbers of a model
        self._inputs: set[tuple[str, str]] = set()  # part and hash of data that the sweep's run names

    @classmethod
    def open(cls, tracking_uri: str, run_folder: Path, experiment: str) -> "SweepRuns":
        """Return the runs of a sweep, of which the store has none yet; the experiment is there afterwards."""
        store = open_store(tracking_uri, run_folder.resolve().parent)
        return cls(store.client, retry(lambda: store.experiment_id(experiment)), tracking_uri)

    def has(self, run_id: str) -> bool:
        """Tell whether the store has the run, and not as a deleted one."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code in UNKNOWN:
                return False
            raise

    def open_parent(self, spec: Mapping[str, Any], parent_run_id: str | None) -> None:
        """Open the sweep's run: a new one, or a former one with its children."""
        if parent_run_id is not None:
            self._client.update_run(parent_run_id, status="RUNNING")
            self.parent = parent_run_id
            self._find_children()
        else:
            name = str(spec.get("name", "sweep"))
            made_by = {"mlflow.source.name": command_line(sys.argv), "mlflow.source.type": "LOCAL"}
            run = self._writer.created(name, {"sweep": name, **made_by})
            self.parent = run.info.run_id
            self._started_ms[self.parent] = run.info.start_time
            self._writer.log(self.parent, params=spec)
        self._client.set_tag(self.parent, "status", "running")
        view = experiment_tags(spec, self.parent, sweep_tag=SWEEP_TAG, front_tag=FRONT_TAG)
        for name, text in view.items():
            self._client.set_experiment_tag(self.experiment_id, name, text)

    def describe(self, text: str) -> None:
        """Put a text in Markdown on the page of the sweep's run."""
        self._writer.tag(self.parent, DESCRIPTION_TAG, text)

    def log_inputs(self, record: Mapping[str, Any]) -> None:
        """Name the data of a record as inputs of the sweep's run, once for each set."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        for part, name, data_hash in data_sets(record):
            if (part, data_hash) in self._inputs:
                continue
            source = json.dumps({"uri": told(name, LONGEST_DATA_SOURCE)})
            data = Dataset(told(name, LONGEST_DATA_NAME), data_hash[:LONGEST_DIGEST], "local", source)
            context = [InputTag("mlflow.data.context", part)]
            self._client.log_inputs(self.parent, [DatasetInput(data, context)])
            self._inputs.add((part, data_hash))

    def log_record(self, trial_id: str, record: Mapping[str, Any]) -> None:
        """Write and end the run of a trial, and those of its stored forms."""
        run_id = self.open_child(trial_id, started_ms=_milliseconds(record.get("started_at")))
        forms = _forms(record)
        config = record.get("config") or {}
        # A parameter never changes: no methods at all are "full", under their short name alone.
        settings = {name: item for name, item in config.items() if name != "methods" or item}
        short = model_params(record) if not forms else training_params(record)
        if not forms:
            self._has_finals.add(trial_id)
        self.log_inputs(record)
        skipped = [f"{form['label']}: {form.get('reason')}" for form in forms if form["status"] == SKIPPED]
        self._writer.log(
            run_id,
            params={**texts(masked_values(settings)), **short},
            metrics=self._curve(run_id, record.get("curve") or []),
            tags={SKIPPED_TAG: "; ".join(skipped)} if skipped else {},
        )
        for form in forms:  # before the trial's run ends, which then holds all of its record
            if form["status"] != SKIPPED:
                self._log_form(run_id, record, form)
        values = _final_values(record)
        final = numbers(values if trial_id in self._has_finals else {TWIN: values})
        others = record.get("cross_domain") or {}
        # MLflow takes a name for a path and refuses those that are not in their shortest form.
        names = distinct_names(others)
        final |= numbers({"cross_domain": {names[source]: item for source, item in others.items()}})
        status = TRIAL_STATUS[str(record["status"])]
        self._end(ModelId(trial_id), record, status, record, values=final, tags=self._held(trial_id, forms))
        self._paused.discard(trial_id)

    def holds(self, trial_id: str, record: Mapping[str, Any]) -> bool:
        """Tell whether the runs of a trial and its stored forms are there and have ended as the record says."""
        ended = {
            ModelId(trial_id): record,
            **{
                ModelId(trial_id, str(form["label"])): form
                for form in _forms(record)
                if form["status"] != SKIPPED
            },
        }
        return all(self._ended.get(model) == str(item["status"]) for model, item in ended.items())

    def _held(self, trial_id: str, forms: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Return the tag that says which stored forms of a trial have ended in runs of their own."""
        others = {None, self._children[ModelId(trial_id)]}
        own = [
            form for form in forms if self._children.get(ModelId(trial_id, str(form["label"]))) not in others
        ]
        text = json.dumps({str(form["label"]): str(form["status"]) for form in own})
        return {FORMS_TAG: text} if len(text) <= LONGEST_TAG else {}

    def _log_form(self, trial_run: str, record: Mapping[str, Any], form: Mapping[str, Any]) -> None:
        """Write the run of a stored form, nested below its trial's."""
        model = ModelId(str(record["trial_id"]), str(form["label"]))
        status = FORM_STATUS[str(form["status"])]
        if not form.get("settings") and model.trial_id in self._has_finals:
            self._children[model] = trial_run
            self._end(model, form, status, record)
            return
        if self._run_of(model) is None:
            tags = {PARENT_TAG: trial_run, SWEEP_TAG: self.parent, "status": "running"}
            tags |= {TRIAL_TAG: model.trial_id, FORM_TAG: str(model.form)}
            run = self._writer.created(str(model), tags, _milliseconds(record.get("started_at")))
            self._remember(model, StoredRun.of(run))
        final = {**_final_values(form), "against_twin": form.get("against_twin") or {}}
        self._end(model, form, status, record, params=model_params(record, form), values=numbers(final))

    def _end(
        self,
        model: ModelId,
        entries: Mapping[str, Any],
        status: str,
        record: Mapping[str, Any],
        *,
        params: Mapping[str, Any] | None = None,
        values: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log, tag and close a run; a run that is closed holds all that belongs into it.

        Args:
            entries: of a record or a form.
            status: as MLflow calls it.
            record: of the trial, which says when and after how many examples it ended.
            params, values, tags: what is left to log.
        """
        run_id = self._children[model]
        curve = record.get("curve") or []
        step = int(curve[-1]["examples_seen"]) if curve else 0
        all_tags = {**(tags or {}), **{name: str(entries[name]) for name in TAGGED if entries.get(name)}}
        if model in self._front:
            all_tags[FRONT_TAG] = "true"
        at_end = self._timed(run_id, values or {}, step=step, seconds=record.get("seconds"))
        self._writer.log(run_id, params=params or {}, metrics=at_end, tags=all_tags)
        self._client.set_terminated(run_id, status, end_time=_milliseconds(record.get("finished_at")))
        self._running.discard(run_id)
        if not entries.get("reason") and self._ended.get(model) not in (None, entries["status"]):
            self._client.delete_tag(run_id, "reason")  # of a form that failed and was made again
        self._ended[model] = str(entries["status"])

    def log_curve(self, trial_id: str, curve: Sequence[Mapping[str, Any]]) -> None:
        """Log reports of a trial, each at the examples that it had seen."""
        run_id = self.open_child(trial_id)
        self._writer.log(run_id, metrics=self._curve(run_id, curve))

    def _curve(self, run_id: str, curve: Sequence[Mapping[str, Any]]) -> list["Metric"]:
        return [
            metric
            for progress in curve
            for metric in self._timed(
                run_id,
                progress,
                step=int(progress["examples_seen"]),
                seconds=progress.get("train_seconds"),
            )
        ]

    def log_numbers(self, run_id: str, values: Mapping[str, Any], *, step: int) -> None:
        """Log numbers as of now."""
        self._writer.log(run_id, metrics=metrics_of(values, step=step))

    def _timed(
        self, run_id: str, values: Mapping[str, Any], *, step: int, seconds: float | None
    ) -> list["Metric"]:
        """Return numbers as metrics of so many seconds after the run's start, where a second call finds them again."""
        at_ms = self._started_ms[run_id] + round(1000 * float(seconds or 0.0))
        return metrics_of(values, step=step, at_ms=at_ms)

    def log_front(
        self, files: Sequence[Path], hypervolume: float, models: set[ModelId], spent_examples: int
    ) -> None:
        """Put the files and numbers of a front on the sweep's run, and the tag on its models."""
        values = {"hypervolume": hypervolume, "front_size": len(models)}
        self.log_numbers(self.parent, values, step=spent_examples)
        self.tag_front(models)
        for path in files:  # last: their place may be out of reach, such as another machine's folder
            self._client.log_artifact(self.parent, str(path), artifact_path="front")

    def tag_front(self, models: set[ModelId]) -> None:
        """Put the tag of the front on these models alone."""
        for model in self._front - models:
            if (run_id := self._run_of(model)) is not None:
                self._client.delete_tag(run_id, FRONT_TAG)
            self._front.discard(model)
        for model in models - self._front:
            if (run_id := self._run_of(model)) is not None:
                self._client.set_tag(run_id, FRONT_TAG, "true")
            self._front.add(model)

    def start(self, trial_id: str) -> None:
        """Open the run of a trial, again where it was closed: paused, or at the end of an earlier start."""
        run_id = self.open_child(trial_id)
        if run_id not in self._running and trial_id in self._paused:
            self._client.update_run(run_id, status="RUNNING")
            self._client.set_tag(run_id, "status", "running")
            self._running.add(run_id)
            self._paused.discard(trial_id)

    def pause(self, trial_id: str, why: str) -> None:
        """Close the run of a trial that may go on later."""
        run_id = self.open_child(trial_id)
        self._writer.log(run_id, tags={"status": PAUSED, "reason": f"paused: {why}"})
        self._client.set_terminated(run_id, "KILLED")
        self._running.discard(run_id)
        self._paused.add(trial_id)

    def knows_as_paused(self, trial_id: str) -> bool:
        """Tell whether the run of a trial is there and closed for a pause."""
        return trial_id in self._paused

    def close(self, status: str) -> None:
        """End the sweep's run with a status of `SWEEP_STATUS`; runs of unended trials are closed as killed."""
        for run_id in list(self._running):
            self._client.set_tag(run_id, "status", "interrupted")
            self._client.set_terminated(run_id, "KILLED")
            self._running.discard(run_id)
        self._client.set_tag(self.parent, "status", status)
        self._client.set_terminated(self.parent, SWEEP_STATUS[status])

    def delete(self) -> None:
        """Delete the sweep's run; MLflow keeps it as deleted."""
        self._client.delete_run(self.parent)

    def open_child(self, trial_id: str, *, started_ms: int | None = None) -> str:
        """Return the run of a trial, a new one at the first call; without a time it starts now."""
        model = ModelId(trial_id)
        if model not in self._children:
            tags = {PARENT_TAG: self.parent, SWEEP_TAG: self.parent}
            tags |= {TRIAL_TAG: trial_id, "status": "running"}
            self._remember(model, StoredRun.of(self._writer.created(trial_id, tags, started_ms)))
        return self._children[model]

    def _run_of(self, model: ModelId) -> str | None:
        """Return the run of a trial or of a stored form, whose runs are looked for now if they were not; None: none."""
        if model not in self._children and model.form is not None and model.trial_id in self._unread:
            self._find(f"tags.`{SWEEP_TAG}` = '{self.parent}' AND tags.`{TRIAL_TAG}` = '{model.trial_id}'")
            self._unread.discard(model.trial_id)
        return self._children.get(model)

    def _find_children(self) -> None:
        """Find the runs of the sweep: all where the store is a database.

        On a server those of trials, and of stored forms those that are on the front or have not ended. What became
        of the others stands in a tag of their trial's run: to read 10,000 runs whole takes a minute or more.
        """
        known = stored_runs(self._tracking_uri, self.parent, sweep_tag=SWEEP_TAG, tags=READ_TAGS)
        if known is not None:
            for run in known:
                self._remember_found(run)
            return
        of_sweep = f"tags.`{SWEEP_TAG}` = '{self.parent}'"
        found = self._find(f"tags.`{PARENT_TAG}` = '{self.parent}'")
        self._unread = {model.trial_id for model in self._children}
        if any(FORMS_TAG not in run.tags and run.tags.get("status") in TRIAL_STATUS for run in found):
            self._find(of_sweep)  # an older version wrote them
            self._unread.clear()
            return
        self._find(f"{of_sweep} AND tags.`{FRONT_TAG}` = 'true'")
        self._find(f"{of_sweep} AND attributes.status = 'RUNNING'")

    def _find(self, query: str) -> list[StoredRun]:
        """Return the runs of trials and of stored forms that a query of MLflow's finds, which are remembered."""
        found: list[StoredRun] = []
        token = None
        while True:
            page = self._client.search_runs([self.experiment_id], query, page_token=token)
            found += [StoredRun.of(run) for run in page if TRIAL_TAG in run.data.tags]
            token = page.token
            if not token:
                break
        for run in found:
            self._remember_found(run)
        return found

    def _remember_found(self, run: StoredRun) -> None:
        if TRIAL_TAG in run.tags:
            self._remember(ModelId(run.tags[TRIAL_TAG], run.tags.get(FORM_TAG)), run)

    def _remember(self, model: ModelId, run: StoredRun) -> None:
        self._children[model] = run.run_id
        self._started_ms[run.run_id] = run.started_ms
        if run.status == "RUNNING":
            self._running.add(run.run_id)
        else:
            status = run.tags.get("status")
            if status in (*TRIAL_STATUS, *FORM_STATUS):  # not one that `close` ended
                self._ended[model] = status
                forms = json.loads(run.tags.get(FORMS_TAG, "{}"))
                self._ended |= {ModelId(model.trial_id, label): status for label, status in forms.items()}
            elif status == PAUSED and model.form is None:
                self._paused.add(model.trial_id)
        if model.form is None and run.has_finals:
            self._has_finals.add(model.trial_id)
        if FRONT_TAG in run.tags:
            self._front.add(model)


def run_of(client: "MlflowClient", experiment_id: str, parent: str, model: ModelId) -> str | None:
    """Return the run of a model of a sweep, whose own run is `parent`; None where it was not mirrored."""
    query = f"tags.`{TRIAL_TAG}` = '{model.trial_id}'"
    for run in client.search_runs([experiment_id], query):
        tags = run.data.tags
        is_of_sweep = parent in (tags.get(SWEEP_TAG), tags.get(PARENT_TAG))
        if is_of_sweep and tags.get(FORM_TAG) == model.form:
            return str(run.info.run_id)
    return None


def _forms(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the stored forms of a record."""
    return record.get("forms") or ()


def _final_values(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record or a form came to, all sections together."""
    return {name: value for section in FINAL_SECTIONS for name, value in (entries.get(section) or {}).items()}


def _milliseconds(moment: str | None) -> int | None:
    """Return an ISO 8601 moment as milliseconds since 1970; None stays None, which MLflow takes for now."""
    return None if moment is None else round(1000 * datetime.fromisoformat(moment).timestamp())
