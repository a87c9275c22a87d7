"""Teachers: trained once for all trials of a machine, whole or not at all, refused before they are trained."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from qa_core import prerequisites, registry
from qa_core import run as spine
from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.data.prepare import prepare
from qa_core.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    NonFiniteLoss,
    OverMemoryBudget,
    PrerequisiteFailed,
)
from qa_core.methods.distill import Distill
from qa_core.prerequisites import Prerequisite
from qa_core.schema import RunResult, as_json
from qa_core.training import checkpoint
from qa_core.values import from_dict

pytestmark = pytest.mark.numeric

LARGER = {"model": {"checkpoint": "tiny"}}


def _recipe(small_squad: Path, **changes: Any) -> RunConfig:
    values = {
        "model": {"family": "bert", "checkpoint": "micro", "vocab_size": 300},
        "data": {
            "train": str(small_squad),
            "evaluation": str(small_squad),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {"budget_examples": 40, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32"},
        "evaluation": {"precision": "float32", "latency_runs": 1},
        "seed": 5,
    }
    for key, change in changes.items():
        values[key] = {**values[key], **change} if isinstance(values.get(key), dict) else change
    return from_dict(RunConfig, values)


def _run(config: RunConfig, folder: Path, cache_dir: Path, **options: Any) -> RunResult:
    return spine.run(config, lambda progress: None, folder=folder, cache_dir=cache_dir, **options)


def _weights(folder: str | Path) -> dict[str, Any]:
    return artifact.verify(Path(folder))["files"]["model.safetensors"]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Seed and methods of each training that `run` starts."""
    started = []
    real = spine.train

    def spy(model: Any, task: Any, **options: Any) -> Any:
        started.append((task.seed, [method.name for method in task.methods]))
        return real(model, task, **options)

    monkeypatch.setattr(spine, "train", spy)
    return started


@pytest.fixture(scope="module")
def finished(small_squad: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A plain trial, which stands for a trained teacher where its training is not what is tested."""
    return _run(_recipe(small_squad), tmp_path_factory.mktemp("finished") / "t", cache_dir)


class _Trainer:
    """Stands for `run`: leaves a finished trial's artifact, after a while, drawing random numbers."""

    def __init__(self, result: RunResult, *, error: Exception | None = None, seconds: float = 0.0) -> None:
        self.result, self.error, self.seconds = result, error, seconds
        self.calls = 0

    def __call__(self, config: RunConfig, report: Any, *, folder: Path, cache_dir: Path) -> RunResult:
        self.calls += 1
        torch.rand(7)
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        copytree(self.result.artifact, folder / "artifact")
        return self.result


def _obtain(needed: RunConfig | Path, config: RunConfig, trainer: Any, cache: Path) -> Prerequisite:
    family = registry.make_family(config)
    data = prepare(config, family, cache_dir=cache)
    return prerequisites.obtain(
        needed, owner="methods.distill", family=family, data=data, cache_dir=cache, train=trainer
    )


def test_trials_that_name_one_teacher_share_it_and_their_records_say_what_it_was(
    small_squad, tmp_path, trainings
):
    options = {"teacher_recipe": {**LARGER, "train": {"budget_examples": 56}}, "hidden_weight": 1.0}
    config = _recipe(small_squad, methods={"distill": options}, train={"rungs": [20]})
    cache = tmp_path / "cache"
    first = _run(config, tmp_path / "a", cache)
    again = _run(config, tmp_path / "b", cache)
    lora = {"distill": {"teacher_recipe": options["teacher_recipe"]}, "lora": {"rank": 2}}
    other = _run(replace(config, seed=6, methods=lora), tmp_path / "c", cache)
    assert trainings == [(0, []), (5, ["distill"]), (5, ["distill"]), (6, ["lora", "distill"])]
    (folder,) = [item for item in (cache / "teachers").iterdir() if item.is_dir()]
    assert sorted(item.name for item in folder.iterdir()) == ["answers.parquet", "artifact", "result.json"]

    facts = first.prerequisites["distill"]
    assert again.prerequisites == other.prerequisites == first.prerequisites
    assert facts["key"] == folder.name
    assert facts["recipe"]["model"]["checkpoint"] == "tiny"
    assert facts["examples_seen"] == 56
    assert facts["weights_sha256"] == {"model.safetensors": _weights(folder / "artifact")["sha256"]}
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["quality"]["questions"] == first.quality.questions
    assert facts["cost"]["parameters"] > first.cost.parameters
    json.dumps(as_json(first), allow_nan=False)

    assert first.curve[-1].examples_seen == first.curve[-1].budget_examples == 40
    assert _weights(first.artifact) == _weights(again.artifact), "a found teacher is as good as a trained one"
    assert _weights(first.artifact) != _weights(other.artifact)
    loaded = artifact.load(Path(first.artifact))
    assert sum(item.numel() for item in loaded.model.parameters()) == first.cost.parameters


def test_the_teachers_memory_counts_in_training_and_nowhere_else(
    small_squad, tmp_path, finished, monkeypatch
):
    options = {"teacher_recipe": {**LARGER, "train": {"budget_examples": 8}}}
    config = _recipe(small_squad, methods={"distill": options})
    result = _run(config, tmp_path / "t", tmp_path / "cache")
    teacher = result.prerequisites["distill"]["cost"]
    plain, cost = finished.cost, result.cost
    assert cost.train_peak_bytes >= plain.train_peak_bytes + teacher["weights_bytes"]
    for name in (
        "inference_peak_bytes",
        "weights_bytes",
        "parameters",
        "trainable_parameters",
    ):
        assert getattr(cost, name) == getattr(plain, name), name

    companions = Distill.companions
    idle = torch.nn.Linear(1000, 1000, bias=False)
    monkeypatch.setattr(Distill, "companions", lambda self: (*companions(self), idle))
    heavier = _run(config, tmp_path / "u", tmp_path / "cache").cost
    assert heavier.train_peak_bytes == cost.train_peak_bytes + 4_000_000, "weights count, used or not"


def test_a_killed_teacher_goes_on_from_its_own_checkpoint_to_the_same_bits(
    small_squad, tmp_path, monkeypatch
):
    options = {"teacher_recipe": {"train": {"budget_examples": 80}}}
    config = _recipe(small_squad, methods={"distill": options})
    expected = _run(config, tmp_path / "a", tmp_path / "cache a")

    class Killed(BaseException):
        pass

    saved = []
    real = checkpoint.save

    def save(*args: Any) -> None:
        real(*args)
        saved.append(args[-1].examples_seen)
        if len(saved) == 4:
            raise Killed

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Killed):
        _run(config, tmp_path / "b", tmp_path / "cache b")
    assert not list((tmp_path / "cache b" / "teachers").glob("*/artifact"))
    found = _run(config, tmp_path / "b", tmp_path / "cache b")
    assert len(saved) == 9, "at each tenth of the budget"
    assert saved == sorted(set(saved)), "no stretch was trained twice but the one that the kill cut off"
    for name in ("weights_sha256", "key", "examples_seen", "quality"):
        assert found.prerequisites["distill"][name] == expected.prerequisites["distill"][name]
    assert _weights(found.artifact) == _weights(expected.artifact)


def test_workers_that_come_at_once_train_one_teacher(small_squad, tmp_path, finished):
    config = _recipe(small_squad)
    trainer = _Trainer(finished, seconds=0.5)
    found, errors = [], []

    def work() -> None:
        try:
            found.append(_obtain(config, config, trainer, tmp_path))
        except Exception as error:  # a thread's exception would be lost
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert trainer.calls == 1
    assert [item.facts for item in found] == [found[0].facts] * 3
    assert len({id(item.artifact.model) for item in found}) == 3


def test_training_a_teacher_leaves_the_trials_random_numbers_alone(small_squad, tmp_path, finished):
    config = _recipe(small_squad)
    state = torch.get_rng_state()
    trainer = _Trainer(finished)
    _obtain(config, config, trainer, tmp_path)
    assert trainer.calls == 1
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("harm", ["alter", "cut result", "no result", "no artifact"])
def test_a_teacher_that_is_not_whole_is_trained_again(harm, small_squad, tmp_path, finished):
    config = _recipe(small_squad)
    trainer = _Trainer(finished)
    expected = _obtain(config, config, trainer, tmp_path).facts
    folder = tmp_path / "teachers" / expected["key"]
    if harm == "alter":
        weights = folder / "artifact" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    elif harm == "cut result":
        (folder / "result.json").write_text('{"quality": ')
    elif harm == "no result":
        (folder / "result.json").unlink()
    else:
        (folder / "artifact").rename(tmp_path / "elsewhere")
    assert _obtain(config, config, trainer, tmp_path).facts == expected
    assert trainer.calls == 2
    assert _obtain(config, config, trainer, tmp_path).facts == expected
    assert trainer.calls == 2


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (NonFiniteLoss("train: the loss is nan"), 1),  # the same recipe would diverge again
        (DataError("squad.json: not there"), 2),
        (torch.OutOfMemoryError("CUDA out of memory"), 2),
    ],
)
def test_a_failed_training_is_named_as_the_teachers_and_divergence_is_remembered(
    error, calls, small_squad, tmp_path, finished
):
    config = _recipe(small_squad)
    trainer = _Trainer(finished, error=error)
    for _ in range(2):
        with pytest.raises(
            PrerequisiteFailed, match=r"methods\.distill: its training failed.*teachers"
        ) as caught:
            _obtain(config, config, trainer, tmp_path)
        assert f"{type(error).__name__}: {error}" in str(caught.value)
    assert trainer.calls == calls


def test_only_what_decides_the_teachers_numbers_decides_which_one_it_is(small_squad, tmp_path, finished):
    config = _recipe(small_squad)
    trainer = _Trainer(finished)
    keys = [
        _obtain(_recipe(small_squad, **changes), config, trainer, tmp_path).facts["key"]
        for changes in (
            {},
            {"train": {"rungs": [8, 16]}},
            {"evaluation": {"confirm_share": 0.5}},
            {"evaluation": {"confirm_share": 0.5, "part": "confirm"}},
            {"seed": 6},
            {"model": {"checkpoint": "tiny"}},
            {"data": {"negatives_ratio": 0.5}},
            {"train": {"learning_rate": 1e-3}},
        )
    ]
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]  # one teacher for the trials that choose and those that confirm
    assert len(set(keys)) == trainer.calls == 6


def test_a_local_checkpoint_counts_by_its_content(small_squad, tmp_path, finished):
    start = tmp_path / "start"
    copytree(finished.artifact, start)
    config = _recipe(small_squad, model={"checkpoint": str(start)})
    trainer = _Trainer(finished)
    first = _obtain(config, config, trainer, tmp_path / "cache").facts["key"]
    assert _obtain(config, config, trainer, tmp_path / "cache").facts["key"] == first
    (start / "recipe.json").write_text("{}")
    assert _obtain(config, config, trainer, tmp_path / "cache").facts["key"] != first
    assert trainer.calls == 2


def _refused(needed: RunConfig | Path, config: RunConfig, cache: Path, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _obtain(needed, config, lambda *args, **options: pytest.fail("it was trained"), cache)


def test_another_tokenizer_is_refused_before_anything_is_trained(small_squad, cache_dir, finished):
    config = _recipe(small_squad, model={"vocab_size": 100})
    words = r"methods\.distill: its tokenizer has hash \w+; allowed: \w+, .*`model\.tokenizer` can name one"
    _refused(_recipe(small_squad), config, cache_dir, words)
    _refused(Path(finished.artifact), config, cache_dir, words)


def test_another_head_is_refused(small_squad, cache_dir, finished):
    config = _recipe(small_squad, model={"family": "t5", "head": "generate"})
    words = r"methods\.distill: it has head 'span'; allowed: 'generate'"
    _refused(Path(finished.artifact), config, cache_dir, words)


def test_another_layout_is_refused(small_squad, cache_dir, monkeypatch):
    config = _recipe(small_squad)
    teacher = _recipe(small_squad, model={"family": "distilbert"})
    kind = registry.family_class("distilbert")
    layout = kind.layout
    monkeypatch.setattr(
        kind, "layout", lambda self, tokenizer: replace(layout(self, tokenizer), null_at="last")
    )
    _refused(teacher, config, cache_dir, r"family 'distilbert' lays its windows out as .*null_at='last'")


def test_a_named_artifact_teaches_a_student_of_another_family(small_squad, tmp_path, cache_dir, finished):
    options = {"teacher": finished.artifact, "weight": 1.0}
    config = _recipe(small_squad, model={"family": "distilbert"}, methods={"distill": options})
    before = _weights(finished.artifact)
    result = _run(config, tmp_path / "t", cache_dir)
    facts = result.prerequisites["distill"]
    assert facts["weights_sha256"] == {"model.safetensors": before["sha256"]}
    assert facts["recipe"] == finished.config
    assert facts["key"] is facts["quality"] is facts["examples_seen"] is None
    assert _weights(finished.artifact) == before
    assert result.curve[-1].train_loss < 2.5


def test_a_folder_without_an_artifact_is_named(small_squad, tmp_path, cache_dir):
    config = _recipe(small_squad, methods={"distill": {"teacher": str(tmp_path)}})
    with pytest.raises(ArtifactError, match="not an artifact"):
        _run(config, tmp_path / "t", cache_dir)


def test_a_recipe_over_the_memory_budget_trains_no_teacher(small_squad, tmp_path, cache_dir, trainings):
    config = _recipe(small_squad, methods={"distill": {"teacher_seed": 77}})
    with pytest.raises(OverMemoryBudget):
        _run(config, tmp_path / "t", cache_dir, max_memory_mb=0.5)
    assert trainings == []
