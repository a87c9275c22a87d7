"""`forms`: finished trials stored anew, without training and without Ray."""

from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import ConfigError, DataError
from sweeps import cli
from sweeps.run_folder import journal, records
from sweeps.run_folder.layout import RunFolder
from sweeps.searchers.base import make_searcher
from sweeps.space.compile import compile_space
from sweeps.spec.load import forms_to_add, store_spec, stored_spec
from sweeps.spec.sections import SweepSpec
from sweeps.trials import worker
from sweeps.trials.driver import Driver
from tests.sweeps.whole import tiny_recipes

BITS = "forms.quantize.bits=[32, 8, 4]"
OBJECTIVES = [  # latency, so that no form is skipped because a smaller one is as good
    {"name": "em_percent", "goal": "max", "reference": 0},
    {"name": "memory_mb", "goal": "min", "reference": 32},
    {"name": "latency_p50_ms", "goal": "min", "reference": 1000},
]


@pytest.fixture
def sweep(small_squad: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a sweep of two trials in this process, as a driver and its worker do; returns its folder."""
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))

    def run(name: str, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        values = {
            "name": "small",
            **tiny_recipes(small_squad, batch_size=8),
            "objectives": OBJECTIVES,
            "searcher": {"name": "grid"},
            "scheduler": {"name": "fifo"},
            "budget": {"trials": 2, "examples": 40, "keep_artifacts": "all"},
            "space": [{"set": "model.family", "choice": ["bert", "lstm"]}],
            **changes,
        }
        spec = SweepSpec.model_validate(values)
        store_spec(spec, folder)
        space = compile_space(spec)
        driver = Driver(spec, space=space, searcher=make_searcher(spec, space), folder=folder, observers=())
        while (task := driver.propose()) is not None:
            driver.started(task.trial_id)
            driver.ended(task.trial_id, worker.execute(task, lambda report: None), None)
        return folder

    return run


def forms_of(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the forms of each trial came to, without times."""
    return {
        record.trial_id: sorted(
            (
                form.label,
                form.status,
                str(dict(form.settings)),
                str(form.quality),
                str(form.against_twin),
                form.artifact,
            )
            for form in record.forms
        )
        for record in records.load(RunFolder(folder).records).records
    }


def test_forms_that_are_added_later_are_those_of_a_sweep_that_listed_them(
    sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    at_once = sweep("at-once", forms={"quantize": {"bits": [32, 8, 4]}})
    later = sweep("later")
    lines = RunFolder(later).records.read_bytes()
    assert cli.main(["forms", str(later), "--set", "forms.quantize.bits=[8]"]) == 0
    shown = capsys.readouterr().out
    assert "t0000:\n  int8: EM " in shown
    assert shown.splitlines()[-1].startswith("4 new forms; see: qa-sweep front ")  # and two twins
    labels = [form[0] for form in forms_of(later)["t0000"]]
    assert labels == ["as-trained", "int8"]
    assert cli.main(["forms", str(later), "--set", BITS]) == 0  # 8 bits and the twin are there
    assert "2 new forms" in capsys.readouterr().out
    found, wanted = forms_of(later), forms_of(at_once)
    for trial, forms in wanted.items():
        renamed = [("float32" if form[0] == "as-trained" else form[0], *form[1:]) for form in found[trial]]
        assert sorted(renamed) == forms
    assert RunFolder(later).records.read_bytes() == lines
    assert RunFolder(later).front("csv").is_file()
    past = journal.read(later)
    assert all(len(trial.record.forms) == 3 for trial in past.trials if trial.record is not None)


def test_a_trial_without_its_artifact_is_named_and_leaves_the_others(
    sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sweep("run")
    gone = RunFolder(folder).trial("t0000").artifact
    gone.rename(gone.with_name("elsewhere"))
    altered = RunFolder(folder).trial("t0001").artifact / "model.safetensors"
    altered.write_bytes(altered.read_bytes()[:-1] + b"?")
    assert cli.main(["forms", str(folder), "--set", "forms.quantize.bits=[8]"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "t0000: int8: skipped: its artifact was removed" in shown
    assert "t0001: int8: failed: ArtifactError" in shown
    (altered.parent / "manifest.json").unlink()
    assert "t0000" not in {trial for trial, forms in forms_of(folder).items() if forms}


def test_a_failed_form_can_be_made_again_under_its_label(
    sweep: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qa_core import stored_forms

    folder = sweep("run", budget={"trials": 1, "examples": 40})
    with monkeypatch.context() as patch:
        patch.setattr(stored_forms, "measure_form", lambda *_, **__: 1 / 0)
        assert cli.main(["forms", str(folder), "--set", "forms.quantize.bits=[8]"]) == 0
    assert "int8: failed: ZeroDivisionError" in capsys.readouterr().out
    assert cli.main(["forms", str(folder), "--set", "forms.quantize.bits=[8]"]) == 0
    assert [form[:2] for form in forms_of(folder)["t0000"]] == [("as-trained", "ok"), ("int8", "ok")]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budget.trials=9", "--set budget.trials=9: found budget.trials; allowed: forms.METHOD.OPTION=[...]"),
        ("forms.lora.rank=[4]", "forms.lora.rank: acts in training"),
        ("forms.quantize.bits=[5]", "forms.quantize.bits[0]: found 5; allowed: 32, 16, 8, 4"),
    ],
)
def test_other_settings_and_wrong_lists_are_refused(override: str, expected: str, sweep_folder: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        forms_to_add(stored_spec(sweep_folder), [override])
    assert expected in str(refused.value)


def test_a_sweep_is_not_resumed_with_other_forms(
    sweep_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--resume", str(sweep_folder), "--set", BITS]) == 2
    assert f"or qa-sweep forms {sweep_folder} --set ..." in capsys.readouterr().err
    assert cli.main(["forms", str(sweep_folder)]) == 2
    assert "--set: found none; allowed: --set forms.METHOD.OPTION=[...]" in capsys.readouterr().err


@pytest.fixture
def sweep_folder(small_squad: Path, tmp_path: Path) -> Path:
    """The folder of a sweep that has not begun."""
    values = {
        "name": "small",
        **tiny_recipes(small_squad, batch_size=8),
        "searcher": {"name": "grid"},
        "scheduler": {"name": "fifo"},
        "budget": {"trials": 2, "examples": 40},
        "space": [{"set": "model.family", "choice": ["bert", "lstm"]}],
    }
    store_spec(SweepSpec.model_validate(values), tmp_path)
    return tmp_path


def test_a_line_of_forms_that_belongs_to_no_trial_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.records.write_bytes(b"")
    records.append_forms(folder.more_forms, "t0007", [])
    with pytest.raises(
        DataError, match=r"forms.jsonl:1: trial_id: found 't0007'; allowed: a trial with a record"
    ):
        records.load(folder.records)
    folder.more_forms.write_text('{"schema_version": 9}\n')
    with pytest.raises(
        DataError, match=r"forms.jsonl:1: schema_version: found 9; this version reads 1 and 2"
    ):
        records.load(folder.records)
