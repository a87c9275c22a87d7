"""What a sweep keeps of its trials on the disk: checkpoints of those that run, artifacts that can still be chosen.

A trial that ended needs no checkpoint, and a dominated artifact is never exported: both are removed. The record and the
answers to single questions stay. A dominated point stays dominated, so nothing is removed that would be needed later. A
removed artifact can be trained again from the recipe in the record. The artifact of a trial with stored forms, its
twin, stays as long as one of the forms can be chosen: more forms can be made of it.
"""

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from qa_core import files
from sweeps.run_folder.layout import CHECKPOINT, TrialFolder
from sweeps.run_folder.model_id import ModelId

Kept = Literal["front", "all"]


class TrialFiles:
    """The folders of a sweep's trials.

    Args:
        folder: holds one folder for each trial, named by its id.
        kept: `front` removes the artifacts of models that are not to be kept, `all` none.
    """

    def __init__(self, folder: Path, kept: Kept) -> None:
        self._folder, self._kept = folder, kept
        self._ended_bytes: dict[str, int] = {}  # trial id -> what it still holds
        self._artifacts: set[ModelId] = (
            set()
        )  # of trials that ended, and of their forms: those that may be there

    def ended(self, trial_ids: Iterable[str], chosen: Collection[ModelId]) -> None:
        """Remove what is no longer needed now that these trials have their records.

        Args:
            chosen: the models whose artifacts are kept, with those of their twins; all others that ended lose theirs.
        """
        for trial_id in trial_ids:
            self._remove(self._folder / trial_id / CHECKPOINT)
            self._artifacts |= {ModelId(trial_id), *self._forms_of(trial_id)}
            self._ended_bytes[trial_id] = _size_bytes(self._folder / trial_id)
        if self._kept == "all":
            return
        kept = {*chosen, *(ModelId(model.trial_id) for model in chosen)}
        beaten = self._artifacts - kept
        for model in beaten:
            trial = TrialFolder(self._folder / model.trial_id)
            self._remove(trial.artifact if model.form is None else trial.form(model.form).artifact)
        for trial_id in {model.trial_id for model in beaten}:
            self._ended_bytes[trial_id] = _size_bytes(self._folder / trial_id)
        self._artifacts &= kept

    def used_bytes(self, running: Iterable[str]) -> int:
        """Return what all trials hold; only the folders of those that run are looked through."""
        now = sum(_size_bytes(self._folder / trial_id) for trial_id in running)
        return now + sum(self._ended_bytes.values())

    def _forms_of(self, trial_id: str) -> list[ModelId]:
        """Return the stored forms that have a folder, whatever the record says of them."""
        forms = TrialFolder(self._folder / trial_id).forms
        if files.has_link(forms, self._folder.parent):
            return []
        try:
            with os.scandir(forms) as entries:
                return [
                    ModelId(trial_id, item.name) for item in entries if item.is_dir(follow_symlinks=False)
                ]
        except OSError:  # there are none; a folder that cannot be looked into still counts
            return []

    def _remove(self, folder: Path) -> None:
        """Remove a folder, and what a killed worker left of one half-written; what cannot be removed still counts.

        Behind a link nothing is removed: somebody else may have sent the sweep's folder.
        """
        sweep = self._folder.parent
        files.remove_folder(folder, inside=sweep)
        if not files.has_link(folder.parent, sweep):
            for leftover in folder.parent.glob(f".{folder.name}.*"):
                files.remove_folder(leftover, inside=sweep)


def _size_bytes(folder: Path) -> int:
    """Return the bytes of all files below; files that vanish meanwhile count as nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(root) / name).lstat().st_size
    return total
