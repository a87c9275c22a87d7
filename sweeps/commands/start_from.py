"""`--start-from`: the recipes of another sweep's front, proposed before the searcher's own.

They go into the settings of this sweep (`searcher.first`), with which it is stored: a resume does not need the other
sweep any more. Which of them this sweep's space allows is said in `sweeps/space/first.py`.
"""

from pathlib import Path

from qa_core.errors import ConfigError, counted
from sweeps.commands.results import front_of, load_records
from sweeps.searchers.base import fingerprint
from sweeps.space.compile import compile_space
from sweeps.space.first import taken_over
from sweeps.spec.load import stored_spec
from sweeps.spec.sections import SweepSpec
from sweeps.spec.source import entry_ids


def start_from(spec: SweepSpec, run_dir: Path) -> SweepSpec:
    """Return the sweep with the recipes of a front among its first ones, best first; what is left out is noted.

    A training with several stored forms on the front is one recipe.

    Raises:
        ConfigError: the front is empty, or the sweep's space allows none of its recipes.
        DataError: the folder holds no sweep, or its files cannot be read.
    """
    there = stored_spec(run_dir)
    loaded = load_records(run_dir)
    records = {record.trial_id: record for record in loaded.records}
    trials = list(dict.fromkeys(point.trial_id for point in front_of(run_dir, loaded).front))
    paths = [entry.path for entry in there.space]
    path_of = dict(zip(entry_ids(paths), paths, strict=True))
    space = compile_space(spec)
    first = {fingerprint(item): dict(item) for item in spec.searcher.first}
    left_out = []
    for trial in trials:
        record = records[trial]
        searched = [path_of[identity] for identity in record.assignment if identity in path_of]
        try:
            found = taken_over(space, record.config, searched)
        except ConfigError as error:
            left_out.append(f"{trial} of {run_dir} is not proposed: {error}")
        else:
            first.setdefault(fingerprint(found), found)
    taken = len(trials) - len(left_out)
    if not taken:
        why = "\n".join(left_out) or "its front has no point"
        raise ConfigError(f"--start-from {run_dir}: found no recipe that this sweep may propose: {why}")
    note = (
        f"{counted(taken, 'recipe')} of the front of {run_dir} {'is' if taken == 1 else 'are'} proposed first"
    )
    return spec.beginning_with(list(first.values()), notes=[note, *left_out])
