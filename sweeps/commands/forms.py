"""`forms`: more stored forms of the trials of a sweep that have ended, from their artifacts, onto the same front.

Nothing is trained, and Ray is not started: one trial after the other is stored anew in this process, on the device that
measured it. Their records stay as they are; the new forms stand in `forms.jsonl`. MLflow gets them when the sweep is
resumed.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.config import Form, RunConfig
from qa_core.data.cache import default_cache_dir
from qa_core.errors import QaError, counted
from qa_core.schema import Cost, FormResult, Quality, as_json
from qa_core.values import from_dict
from sweeps.commands.run import write_front
from sweeps.commands.validate import print_lines
from sweeps.front.front import compute_front
from sweeps.progress.shell_command import shell_command
from sweeps.run_folder.journal import held
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.records import Record, append_forms, load, read_inside
from sweeps.space.forms import forms_of, free_label
from sweeps.spec.load import forms_to_add, stored_spec
from sweeps.spec.objectives import are_settled_by_form
from sweeps.spec.sections import SweepSpec
from sweeps.trials.running import forms_of_result

AS_TRAINED = "as-trained"  # the label of a twin that the lists do not hold


def forms(run_dir: Path, overrides: Sequence[str]) -> int:
    """Make the forms, print what each came to, and renew the front's files.

    Raises:
        ConfigError: a list is refused. SweepIsRunning: the sweep runs. DataError: its files cannot be read.
    """
    spec = forms_to_add(stored_spec(run_dir), overrides)
    run = RunFolder(run_dir.resolve())
    made = 0
    with held(run.path):
        for record in load(run.records).records:
            if record.status != "ok":
                continue
            try:
                results = _stored(record, spec, run)
            except QaError as error:
                print_lines(record.trial_id, [f"not stored: {error}"])
                continue
            made += sum(form.status == "ok" for form in results)
            print_lines(record.trial_id, [_line(form) for form in results])
        write_front(compute_front(load(run.records).records, spec.objectives), run.path)
    print(f"{counted(made, 'new form')}; see: {shell_command('qa-sweep', 'front', run_dir)}")
    return 0


def _stored(record: Record, spec: SweepSpec, run: RunFolder) -> tuple[FormResult, ...]:
    """Return the forms of one trial that are new; they are on record then."""
    import torch

    from qa_core.stored_forms import Stored, more_forms
    from qa_core.training.checkpoint import TrainState

    config = read_inside(record, lambda record: from_dict(RunConfig, record.config))
    wanted = _wanted(record, forms_of(config, spec.forms), config)
    if not wanted:
        return ()
    place = run.trial(record.trial_id)
    if not files.is_folder(place.artifact):
        return tuple(
            FormResult(form.label, form.settings, "skipped", "its artifact was removed") for form in wanted
        )
    cost = from_dict(Cost, record.cost, path="cost", strict=True)
    last = record.curve[-1]
    twin = Stored(
        quality=from_dict(Quality, record.quality, path="quality", strict=True),
        cost=cost,
        selection=(last["selection_em_percent"], last["selection_f1_percent"]),
    )
    state = TrainState(
        examples_seen=record.examples_seen,
        train_seconds=cost.train_seconds,
        rung_seconds=cost.rung_seconds or 0.0,
        micro_batch_parts=cost.micro_batch_parts,
    )
    torch.set_num_threads(cost.threads)
    results = more_forms(
        config,
        wanted,
        twin,
        folder=place.path,
        cache_dir=default_cache_dir(),
        state=state,
        facts=record.data,
        max_memory_mb=spec.budget.max_memory_mb,
        skips_as_good=are_settled_by_form([objective.name for objective in spec.objectives]),
    )
    values: dict[str, Any] = {"forms": [as_json(form) for form in results]}
    append_forms(run.more_forms, record.trial_id, forms_of_result(values, spec=spec, folder=run.path))
    return results


def _wanted(record: Record, listed: Sequence[Form], config: RunConfig) -> list[Form]:
    """Return the listed forms that the trial has not, under labels that are free in it.

    A trial without forms is a point itself, and stays one: its twin is then among them.
    """
    there = {form.label: dict(form.settings) for form in record.forms if form.status == "ok"}
    former = {
        repr(dict(form.settings)): form.label for form in record.forms
    }  # takes the place of a failed one
    taken = {form.label for form in record.forms}
    wanted = []
    for form in listed:
        if dict(form.settings) in there.values():
            continue
        label = former.get(repr(dict(form.settings))) or free_label(form.label, taken)
        taken.add(label)
        wanted.append(replace(form, label=label))
    if wanted and not record.forms and not any(form.is_twin for form in wanted):
        wanted.append(Form(free_label(AS_TRAINED, taken), {}, config))
    return wanted


def _line(form: FormResult) -> str:
    if form.status != "ok" or form.quality is None or form.cost is None:
        return f"{form.label}: {form.status}: {form.reason}"
    against = "" if form.against_twin is None else f" ({form.against_twin.em_difference_percent:+.2f})"
    return f"{form.label}: EM {form.quality.em_percent:.2f}{against}, {form.cost.memory_mb:.2f} MB"
