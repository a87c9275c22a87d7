"""One recipe end to end: what is reported, what is left on disk, that it repeats, that a killed one resumes."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.data.squad import load_table
from qa_core.data.windows import WindowLengths, build_windows
from qa_core.errors import ConfigError, IllegalCombination, OverMemoryBudget
from qa_core.memory.protocol import PROTOCOL_VERSION
from qa_core.run import run
from qa_core.schema import as_json
from qa_core.scoring import evaluate
from qa_core.turns import Turns
from qa_core.values import from_dict, to_dict

pytestmark = pytest.mark.numeric


def _recipe(small_squad: Path, **changes) -> RunConfig:
    values = {
        "model": {"family": "bert", "checkpoint": "micro", "vocab_size": 300},
        "methods": {"lora": {"rank": 4, "also_train": ["embeddings"]}},
        "data": {
            "train": str(small_squad),
            "evaluation": str(small_squad),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {
            "budget_examples": 300,
            "rungs": [90, 200],
            "batch_size": 8,
            "learning_rate": 3e-3,
            "precision": "float32",
        },
        "evaluation": {"precision": "float32", "latency_runs": 3},
        "seed": 5,
    }
    return from_dict(RunConfig, {**values, **changes})


class _Killed(BaseException):
    pass


def test_a_recipe_leaves_a_measured_artifact_and_reports_every_objective(small_squad, cache_dir, tmp_path):
    reports = []
    result = run(_recipe(small_squad), reports.append, folder=tmp_path / "t", cache_dir=cache_dir)
    assert [report.examples_seen for report in result.curve] == [95, 205, 300]
    assert list(result.curve[:2]) == reports
    for report in result.curve:
        values = as_json(report)
        # The last report is of the whole budget, where no scheduler compares it with a baseline.
        missing = {name for name, value in values.items() if value is None}
        unplanned = {"forms"}  # a recipe without stored forms names none
        assert missing == unplanned | (set() if report in reports else set(list(values)[-6:]))
        assert list(values)[-5].startswith("selection_baseline")
        assert 0 <= values["selection_em_percent"] <= values["selection_f1_percent"] <= 100
    cost = result.cost
    assert {report.memory_mb for report in reports} == {cost.memory_mb}
    assert {report.memory_batch8_mb for report in reports} == {cost.memory_batch8_mb}
    assert {report.inference_peak_bytes for report in reports} == {cost.inference_peak_bytes}
    assert {report.weights_bytes for report in reports} == {cost.weights_bytes}
    assert {report.artifact_bytes for report in reports} == {cost.artifact_bytes}
    assert cost.form_inference_peak_bytes == cost.inference_peak_bytes == cost.predicted_inference_peak_bytes
    large = cost.inference_peak_batch8_bytes
    assert cost.form_inference_peak_batch8_bytes == large == cost.predicted_inference_peak_batch8_bytes
    assert large > cost.inference_peak_bytes
    assert cost.protocol_version == PROTOCOL_VERSION
    assert cost.weights_bytes < cost.inference_peak_bytes < cost.train_peak_bytes
    assert cost.trainable_parameters < cost.parameters
    assert 0 < cost.latency_p50_ms <= cost.latency_p95_ms
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["answers.parquet", "artifact"]
    json.dumps(as_json(result), allow_nan=False)


@pytest.mark.parametrize(
    "methods",
    [
        {"lora": {"rank": 4, "merge": False}},
        {"ia3": {"merge": False}},
        {"qlora": {"rank": 4}},
        {"lora_int8": {"rank": 4}},
        {"lora": {"rank": 4, "merge": False}, "quantize": {"bits": 8}},
        {"ia3": {}, "quantize": {"bits": 4}},
    ],
    ids="+".join,
)
@pytest.mark.long
def test_adapters_kept_and_bases_in_fewer_bits_are_planned_measured_and_shipped(
    methods, small_squad, cache_dir, tmp_path
):
    config = _recipe(small_squad, methods=methods)
    result = run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)
    cost = result.cost
    assert cost.form_inference_peak_bytes == cost.inference_peak_bytes == cost.predicted_inference_peak_bytes
    assert cost.weights_bytes < cost.inference_peak_bytes < cost.train_peak_bytes
    folder = Path(result.artifact)
    shipped = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert cost.artifact_bytes == cost.predicted_artifact_bytes == shipped
    is_kept = "ia3" not in methods or "quantize" not in methods
    assert (folder / "adapter" / "adapter_config.json").is_file() == is_kept


def test_the_recorded_score_is_that_of_the_artifact_on_disk(small_squad, cache_dir, tmp_path):
    import torch

    config = _recipe(small_squad)
    result = run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)
    loaded = artifact.load(Path(result.artifact))
    table = load_table(str(small_squad), split="dev")
    lengths = WindowLengths(64, 8, 24)
    layout = loaded.family.layout(loaded.tokenizer)
    windows = build_windows(table, loaded.tokenizer, layout, lengths=lengths, cache_dir=cache_dir)
    predictions = evaluate.predict(
        loaded.model,
        loaded.family,
        windows,
        table,
        tokenizer=loaded.tokenizer,
        settings=config.evaluation,
        device=torch.device("cpu"),
    )
    assert evaluate.quality(predictions, table, loaded.null_threshold) == result.quality
    assert to_dict(loaded.config) == result.config


def test_cross_domain_sets_are_scored_on_the_artifact_beside_the_main_quality(
    small_squad, cache_dir, tmp_path
):
    """The evaluation set named as a cross-domain set has exactly the main quality."""
    base = _recipe(small_squad, train={"budget_examples": 40, "batch_size": 8, "precision": "float32"})
    config = replace(base, data=replace(base.data, cross_domain=(str(small_squad), "sample")))
    result = run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)
    assert list(result.cross_domain) == [str(small_squad), "sample"]
    home = result.cross_domain[str(small_squad)]
    assert (home.quality, home.data_hash) == (result.quality, result.data["evaluation"]["data_hash"])
    abroad = result.cross_domain["sample"].quality
    assert (abroad.questions, abroad.null_threshold) == (630, result.quality.null_threshold)
    facts = result.data["cross_domain"]["sample"]
    assert (facts["data_hash"], facts["questions"]) == (result.cross_domain["sample"].data_hash, 630)
    assert facts["windows"] >= 630
    json.dumps(as_json(result), allow_nan=False)


def test_the_same_recipe_gives_the_same_numbers_and_another_seed_others(small_squad, cache_dir, tmp_path):
    def losses(name: str, seed: int) -> list[float]:
        result = run(
            _recipe(small_squad, seed=seed), lambda report: None, folder=tmp_path / name, cache_dir=cache_dir
        )
        return [report.train_loss for report in result.curve]

    first = losses("a", 5)
    assert losses("b", 5) == first
    assert losses("c", 6) != first


@pytest.mark.parametrize(
    "methods",
    [
        {"lora": {"rank": 4, "also_train": ["embeddings"]}},
        {
            "distill": {
                "teacher_recipe": {"model": {"checkpoint": "tiny"}, "train": {"budget_examples": 16}},
                "hidden_weight": 1.0,  # with projections, which the checkpoint must hold
            }
        },
    ],
    ids="+".join,
)
def test_a_killed_run_resumes_to_the_same_result(methods, small_squad, cache_dir, tmp_path):
    config = _recipe(small_squad, methods=methods)
    expected = run(config, lambda report: None, folder=tmp_path / "a", cache_dir=cache_dir)

    def kill(report) -> None:
        raise _Killed

    with pytest.raises(_Killed):
        run(config, kill, folder=tmp_path / "b", cache_dir=cache_dir)
    later = []
    resumed = run(config, later.append, folder=tmp_path / "b", cache_dir=cache_dir)
    assert [report.examples_seen for report in later] == [95, 205]  # the rung of the checkpoint again
    assert resumed.quality == expected.quality
    hashes = [artifact.verify(tmp_path / name / "artifact")["files"]["model.safetensors"] for name in "ab"]
    assert hashes[0] == hashes[1]


def test_a_recipe_over_the_memory_budget_is_refused_before_training(small_squad, cache_dir, tmp_path):
    with pytest.raises(OverMemoryBudget, match=r"needs \d+\.\d MB; allowed: 0\.5 MB"):
        run(
            _recipe(small_squad),
            lambda report: pytest.fail("it was trained"),
            folder=tmp_path / "t",
            cache_dir=cache_dir,
            max_memory_mb=0.5,
        )
    assert not (tmp_path / "t" / "artifact").exists()


def test_an_illegal_pair_is_refused_before_the_data_is_read(cache_dir, tmp_path):
    config = _recipe(Path("nowhere.json"), model={"family": "lstm", "checkpoint": "micro"})
    with pytest.raises(IllegalCombination):
        run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)


def test_a_recipe_without_budget_measures_an_artifact_that_it_starts_from(small_squad, cache_dir, tmp_path):
    trained = run(
        _recipe(small_squad, methods={}), lambda r: None, folder=tmp_path / "a", cache_dir=cache_dir
    )
    again = run(
        _recipe(
            small_squad,
            model={"family": "bert", "checkpoint": trained.artifact},
            methods={},
            train={"budget_examples": 0, "precision": "float32"},
            seed=77,
        ),
        lambda report: pytest.fail("there are no rungs"),
        folder=tmp_path / "b",
        cache_dir=cache_dir,
    )
    assert again.quality == trained.quality
    assert [(item.examples_seen, item.budget_examples, item.train_loss) for item in again.curve] == [
        (0, 0, None)
    ]
    assert again.cost.train_peak_bytes is None
    hashes = [artifact.verify(tmp_path / name / "artifact")["files"]["model.safetensors"] for name in "ab"]
    assert hashes[0] == hashes[1]
    assert again.data["start_weights_sha256"] == {"model.safetensors": hashes[0]["sha256"]}
    assert "start_weights_sha256" not in trained.data


def test_an_adapter_can_be_put_on_a_reader_that_is_trained_already(small_squad, cache_dir, tmp_path):
    trained, config = _trained_then(
        small_squad, cache_dir, tmp_path, family="bert", methods={"lora": {"rank": 2}}
    )
    result = run(config, lambda r: None, folder=tmp_path / "b", cache_dir=cache_dir)
    assert 0 < result.cost.trainable_parameters < trained.cost.trainable_parameters
    assert result.data["start_weights_sha256"]


def test_a_start_from_an_artifact_of_another_family_is_refused(small_squad, cache_dir, tmp_path):
    _, config = _trained_then(small_squad, cache_dir, tmp_path, family="distilbert", methods={})
    words = "holds family 'bert' with head 'span'; allowed: family 'distilbert'"
    with pytest.raises(ConfigError, match=words):
        run(config, lambda r: None, folder=tmp_path / "b", cache_dir=cache_dir)


def _trained_then(small_squad, cache_dir, tmp_path, *, family, methods):
    """Train a BERT for two steps; returns its result and a recipe that starts from its artifact."""
    train = {"budget_examples": 16, "batch_size": 8}
    first = _recipe(small_squad, methods={}, train=train)
    trained = run(first, lambda r: None, folder=tmp_path / "a", cache_dir=cache_dir)
    model = {"family": family, "checkpoint": trained.artifact}
    return trained, _recipe(small_squad, model=model, methods=methods, train=train)


class _NotedTurns(Turns):
    """Notes what a run asks of its turns."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @contextmanager
    def _noted(self, name: str):
        self.notes.append(f"{name} (")
        yield
        self.notes.append(")")

    def working(self):
        return self._noted("working")

    def resting(self):
        return self._noted("resting")

    def measuring(self):
        return self._noted("measuring")

    def between_steps(self) -> None:
        if self.notes[-1] != "step":
            self.notes.append("step")


def test_a_run_measures_alone_lets_others_between_steps_and_rests_while_a_teacher_is_trained(
    small_squad, tmp_path
):
    turns = _NotedTurns()
    methods = {
        "distill": {"teacher_recipe": {"train": {"learning_rate": 0.00123}, "model": {"dropout": 0.2}}}
    }
    config = _recipe(
        small_squad, methods=methods, model={"family": "bert", "checkpoint": "tiny", "vocab_size": 311}
    )
    # A cache of its own: what other tests have measured or trained would not be done again.
    run(config, lambda report: None, folder=tmp_path / "t", cache_dir=tmp_path / "cache", turns=turns)
    measures, rests = ["measuring (", ")"], ["resting (", ")"]
    teacher = ["working (", *measures, *rests, "step", *measures, ")"]
    assert turns.notes == [*measures, "resting (", *teacher, ")", "step", *measures]
