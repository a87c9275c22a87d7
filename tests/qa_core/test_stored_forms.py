"""Stored forms of one training: what other recipes would give, made once each, whatever happens in between."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qa_core import run as spine
from qa_core import stored_forms
from qa_core.artifact import artifact
from qa_core.config import Form, RunConfig, form_of
from qa_core.errors import ConfigError, DataError, OverMemoryBudget, Paused, StorageError
from qa_core.form_folder import FormFolder
from qa_core.run import run
from qa_core.schema import FormResult, Progress, RunResult
from qa_core.scoring.answer_file import read_scores
from qa_core.stored_forms import AS_GOOD, OVER_BUDGET
from qa_core.training.checkpoint import TrainState
from qa_core.values import from_dict

pytestmark = pytest.mark.numeric

MICRO = {"family": "bert", "checkpoint": "micro", "vocab_size": 300}
# Of one form and another run of it: what is measured in time, and what this process has held before.
TIMES = ("rss_peak_bytes", "train_seconds", "train_examples_per_second", "rung_seconds")
LATENCIES = ("latency_p50_ms", "latency_p95_ms")
# At the rungs of a recipe that deploys another form, that form is in memory beside the network.
OF_TRAINING = ("train_peak_bytes", "trainable_parameters", "micro_batch_parts")
OF_THE_RECIPE = ("artifact_bytes", "predicted_artifact_bytes")  # recipe.json is in it


class Killed(BaseException):
    """What ends a worker that nothing catches."""


def recipe(data: Path, methods: Mapping[str, Any] | None = None, **model: Any) -> RunConfig:
    values = {
        "model": {**MICRO, **model},
        "methods": methods or {},
        "data": {
            "train": str(data),
            "evaluation": str(data),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {"budget_examples": 60, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32"},
        "evaluation": {"precision": "float32", "latency_runs": 1, "max_new_tokens": 4},
        "seed": 5,
    }
    return from_dict(RunConfig, values)


def quantised(config: RunConfig, *bits: tuple[int, int]) -> list[Form]:
    """The twin, and a form for each (bits, embedding bits)."""
    settings = [
        {"methods.quantize.bits": body, "methods.quantize.embedding_bits": table} for body, table in bits
    ]
    return [form_of(config, "float32", {})] + [
        form_of(config, f"b{body}e{table}", found)
        for (body, table), found in zip(bits, settings, strict=True)
    ]


def stored(config: RunConfig, folder: Path, cache_dir: Path, **options: Any) -> RunResult:
    return run(
        config,
        lambda progress: None,
        folder=folder,
        cache_dir=cache_dir,
        **{"skips_as_good": False, **options},
    )


def by_label(result: RunResult) -> dict[str, FormResult]:
    return {form.label: form for form in result.forms}


def check_equal(form: FormResult, alone: RunResult, folder: Path, *, is_trained_alike: bool) -> None:
    """A form and a recipe of its own: weights, threshold, scores, memory and single answers, to the last digit."""
    assert form.status == "ok", form.reason
    assert form.quality == alone.quality
    assert form.cost is not None
    assert form.artifact is not None
    found, wanted = vars(form.cost), vars(alone.cost)
    differ = (*TIMES, *LATENCIES, *OF_TRAINING, *(() if is_trained_alike else OF_THE_RECIPE))
    assert {name for name in found if found[name] != wanted[name]} <= set(differ)
    manifests = [artifact.verify(Path(place)) for place in (form.artifact, alone.artifact)]
    files = [dict(item["files"]) for item in manifests]
    if (
        not is_trained_alike
    ):  # what was trained, and a tokenizer that was read from a folder: of other lengths
        for item in files:
            assert {item.pop(name)["bytes"] > 0 for name in ("recipe.json", "tokenizer_config.json")} == {
                True
            }
    assert files[0] == files[1]
    assert manifests[0]["forms"] == manifests[1]["forms"]
    assert manifests[0]["null_threshold"] == manifests[1]["null_threshold"]
    answers = [
        read_scores(Path(place).parent / "answers.parquet") for place in (form.artifact, alone.artifact)
    ]
    assert answers[0][0] == answers[1][0]
    assert (answers[0][1] == answers[1][1]).all()
    own, others = (Path(place).parent / "answers.parquet" for place in (form.artifact, alone.artifact))
    assert own.read_bytes() == others.read_bytes()
    assert folder in own.parents


@pytest.mark.parametrize(
    ("methods", "model"),
    [
        ({}, {}),
        ({}, {"family": "lstm"}),
        ({}, {"family": "t5", "head": "span"}),
        ({}, {"family": "t5", "head": "generate"}),
        ({}, {"family": "mamba", "head": "span"}),
        ({"lora": {"rank": 4}}, {}),
    ],
    ids=["bert", "lstm", "t5", "t5-generate", "mamba", "lora"],
)
@pytest.mark.long
def test_a_form_is_what_a_recipe_makes_of_the_trial_s_artifact(
    methods: dict[str, Any], model: dict[str, Any], small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    config = recipe(small_squad, methods, **model)
    forms = quantised(config, (8, 8), (4, 32))
    result = stored(config, tmp_path / "t", cache_dir, forms=forms)
    assert sorted(by_label(result)) == sorted(form.label for form in forms)
    weights = {
        artifact.load(Path(form.artifact or "")).weights_sha256["model.safetensors"] for form in result.forms
    }
    assert len(weights) == 3  # else the comparison below could not fail
    for form in forms[1:]:
        alone = replace(
            config,
            model=replace(config.model, checkpoint=result.artifact),
            methods={"quantize": form.recipe.methods["quantize"]},
            train=replace(config.train, budget_examples=0),
        )
        found = stored(alone, tmp_path / f"alone-{form.label}", cache_dir)
        check_equal(by_label(result)[form.label], found, tmp_path / "t" / "forms", is_trained_alike=False)


@pytest.mark.parametrize(
    ("methods", "settings"),
    [
        (
            {"static_prune": {"density": 0.3}},
            [
                {"methods.static_prune.resident": "packed"},
                {"methods.static_prune.value_bits": 16},
                {"methods.static_prune.resident": "packed", "methods.quantize.bits": 8},
            ],
        ),
        (
            {"lora": {"rank": 4, "also_train": ["embeddings"]}},
            [{"methods.lora.merge": False}, {"methods.lora.merge": False, "methods.quantize.bits": 8}],
        ),
        ({"lora": {"rank": 4, "merge": False}}, [{"methods.lora.merge": True}, {"methods.quantize.bits": 4}]),
        ({"ia3": {}}, [{"methods.ia3.merge": False}]),
    ],
    ids=["static_prune", "lora-merged", "lora-apart", "ia3"],
)
@pytest.mark.long
def test_a_form_is_what_training_with_its_options_gives(
    methods: dict[str, Any],
    settings: list[dict[str, Any]],
    small_squad: Path,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    config = recipe(small_squad, methods)
    forms = [form_of(config, f"form-{number}", found) for number, found in enumerate([{}, *settings])]
    result = stored(config, tmp_path / "t", cache_dir, forms=forms)
    plain = stored(config, tmp_path / "plain", cache_dir)
    check_equal(by_label(result)["form-0"], plain, tmp_path / "t", is_trained_alike=True)
    assert result.quality == plain.quality  # forms change nothing in training
    for form in forms[1:]:
        alone = stored(form.recipe, tmp_path / form.label, cache_dir)
        found = by_label(result)[form.label]
        assert found.artifact == str(FormFolder(tmp_path / "t" / "forms" / form.label).artifact)
        check_equal(found, alone, tmp_path / "t" / "forms", is_trained_alike=True)


@pytest.fixture
def small(small_squad: Path) -> RunConfig:
    return recipe(small_squad)


def test_forms_come_from_the_smallest_up_and_are_compared_with_the_twin(
    small: RunConfig, cache_dir: Path, tmp_path: Path
) -> None:
    forms = quantised(small, (8, 32), (4, 8), (32, 8))
    result = stored(small, tmp_path / "t", cache_dir, forms=forms)
    assert [form.label for form in result.forms] == ["b4e8", "b8e32", "b32e8", "float32"]
    memory = [form.cost.memory_mb for form in result.forms if form.cost is not None]
    assert memory == sorted(memory)
    twin = by_label(result)["float32"]
    assert (twin.settings, twin.quality, twin.cost, twin.artifact) == (
        {},
        result.quality,
        result.cost,
        str(tmp_path / "t" / "artifact"),
    )
    assert twin.against_twin is None
    for form in result.forms[:-1]:
        assert form.against_twin is not None
        assert form.quality is not None
        difference = form.quality.em_percent - result.quality.em_percent
        assert form.against_twin.em_difference_percent == pytest.approx(difference)
        assert (form.against_twin.unit, form.against_twin.clusters) == ("article", 12)
    assert not (tmp_path / "t" / "checkpoint").exists()


def test_the_twin_is_the_reference_also_where_it_is_not_listed(
    small: RunConfig, cache_dir: Path, tmp_path: Path
) -> None:
    forms = quantised(small, (8, 32))[1:]
    result = stored(small, tmp_path / "t", cache_dir, forms=forms)
    assert [form.label for form in result.forms] == ["b8e32"]
    assert Path(result.artifact, "manifest.json").is_file()
    assert result.cost.memory_mb > by_label(result)["b8e32"].cost.memory_mb  # type: ignore[union-attr]


def test_two_forms_that_are_stored_alike_are_one(small: RunConfig, cache_dir: Path, tmp_path: Path) -> None:
    forms = [
        form_of(small, "first", {"methods.quantize.bits": 8}),
        form_of(small, "again", {"methods.quantize.bits": 8, "methods.quantize.scheme": "weight_only"}),
        form_of(small, "as-trained", {"methods.quantize.bits": 32}),
        form_of(small, "twin", {}),
    ]
    result = stored(small, tmp_path / "t", cache_dir, forms=forms)
    assert [form.label for form in result.forms] == ["first", "twin"]


def test_what_does_not_fit_the_budget_is_skipped_and_the_smallest_form_admits_the_training(
    small: RunConfig, cache_dir: Path, tmp_path: Path
) -> None:
    forms = quantised(small, (8, 8), (4, 8))
    whole = by_label(stored(small, tmp_path / "a", cache_dir, forms=forms))
    need = {label: form.cost.memory_mb for label, form in whole.items() if form.cost is not None}
    between = (need["b4e8"] + need["b8e8"]) / 2
    result = stored(small, tmp_path / "t", cache_dir, forms=forms, max_memory_mb=between)
    assert {form.label: (form.status, form.reason) for form in result.forms} == {
        "b4e8": ("ok", None),
        "b8e8": ("skipped", OVER_BUDGET),
        "float32": ("skipped", OVER_BUDGET),
    }
    assert by_label(result)["float32"].artifact is None
    assert result.quality == whole["float32"].quality  # the reference is measured all the same
    assert [path.name for path in sorted((tmp_path / "t" / "forms").iterdir())] == ["b4e8", "twin.json"]
    with pytest.raises(OverMemoryBudget, match="the smallest stored form, b4e8, needs"):
        stored(small, tmp_path / "u", cache_dir, forms=forms, max_memory_mb=need["b4e8"] - 0.001)
    assert not (tmp_path / "u").exists()


def test_a_form_is_skipped_where_a_smaller_one_reaches_the_twin_and_the_twin_never(
    small: RunConfig, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = quantised(small, (8, 8), (4, 8))
    score = {"b4e8": 40.0, "b8e8": 49.0, "float32": 50.0}  # on the selection split

    def pretend(**scores: float) -> Callable[..., stored_forms.Stored]:
        measure = stored_forms.measure_form

        def measured(place: FormFolder, *args: Any, **options: Any) -> stored_forms.Stored:
            label = "float32" if place.path == tmp_path / folder else place.path.name
            return replace(measure(place, *args, **options), selection=(scores[label], 0.0))

        return measured

    def statuses(result: RunResult) -> dict[str, str | None]:
        return {form.label: form.reason for form in result.forms}

    for folder, changed, reasons in (
        ("a", {}, [None, None, None]),
        ("b", {"b4e8": 49.9}, [None, None, None]),
        ("c", {"b4e8": 50.0}, [None, AS_GOOD, None]),
    ):
        with monkeypatch.context() as patch:
            pretended = pretend(**{**score, **changed})
            patch.setattr(stored_forms, "measure_form", pretended)
            patch.setattr(spine, "measure_form", pretended)
            result = stored(small, tmp_path / folder, cache_dir, forms=forms, skips_as_good=True)
        assert statuses(result) == dict(zip(["b4e8", "b8e8", "float32"], reasons, strict=True)), folder


def test_a_form_that_fails_leaves_the_trial_and_the_others(
    small: RunConfig, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = stored_forms.write_form

    def broken(network: Any, config: RunConfig, *args: Any) -> None:
        write(network, config, *args)
        if config.methods.get("quantize", {}).get("bits") == 4:
            raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(stored_forms, "write_form", broken)
    result = stored(small, tmp_path / "t", cache_dir, forms=quantised(small, (8, 8), (4, 8)))
    found = by_label(result)
    assert {label: form.status for label, form in found.items()} == {
        "b4e8": "failed",
        "b8e8": "ok",
        "float32": "ok",
    }
    assert found["b4e8"].reason == "RuntimeError: no such kernel"
    assert "in broken" in (found["b4e8"].traceback or "")
    assert not FormFolder(tmp_path / "t" / "forms" / "b4e8").artifact.exists()


def test_a_full_disk_is_no_fault_of_the_form(
    small: RunConfig, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(stored_forms, "write_form", full)
    with pytest.raises(StorageError, match="no space left"):
        stored(small, tmp_path / "t", cache_dir, forms=quantised(small, (8, 8)))
    assert (tmp_path / "t" / "checkpoint").is_dir()


def test_options_that_the_network_refuses_are_skipped_with_the_reason(
    small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    config = recipe(small_squad, {"static_prune": {"density": 0.5}})
    settings = {"methods.quantize.bits": 8, "methods.quantize.scheme": "dynamic"}
    forms = [form_of(config, "dynamic", settings), form_of(config, "twin", {})]
    result = stored(config, tmp_path / "t", cache_dir, forms=forms)
    assert [(form.label, form.status) for form in result.forms] == [("twin", "ok"), ("dynamic", "skipped")]
    assert "for weights that are packed" in (by_label(result)["dynamic"].reason or "")
    with pytest.raises(ConfigError, match=r"forms: none can be made of this recipe: .* packed"):
        stored(config, tmp_path / "u", cache_dir, forms=forms[:1])


def outcome(result: RunResult) -> list[Any]:
    """All that must be the same whatever happened in between, of the trial and of its forms."""
    return [
        (form.label, form.status, form.reason, form.quality, form.against_twin)
        for form in (
            FormResult("trial", {}, "ok", quality=result.quality),
            *result.forms,
        )
    ]


POINTS = {  # where a worker can be killed
    "write": (artifact, "write"),
    "load": (artifact, "load"),
    "note": (stored_forms, "_write"),
}


@pytest.fixture(scope="module")
def unhurt(
    small_squad: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Form], RunResult]:
    """Two forms beside the twin, made without a disturbance."""
    config = recipe(small_squad)
    forms = quantised(config, (8, 8), (4, 8))
    return forms, stored(config, tmp_path_factory.mktemp("unhurt") / "t", cache_dir, forms=forms)


@pytest.mark.parametrize(("point", "number"), [("write", 1), ("note", 1), ("load", 2), ("note", 3)])
def test_a_killed_worker_makes_only_the_missing_forms(
    point: str,
    number: int,
    unhurt: tuple[list[Form], RunResult],
    small: RunConfig,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed at the `number`th form, the twin being the first: before it, with it half done, or without its note."""
    forms, whole = unhurt
    home, name = POINTS[point]
    called = 0
    original = getattr(home, name)

    def killed(*args: Any, **options: Any) -> Any:
        nonlocal called
        called += 1
        if called == number:
            raise Killed
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(home, name, killed)
        with pytest.raises(Killed):
            stored(small, tmp_path / "t", cache_dir, forms=forms)
    before = {path: path.stat().st_mtime_ns for path in noted_weights(tmp_path / "t")}
    assert len(before) == number - 1
    trained = []
    monkeypatch.setattr(
        "qa_core.training.train.accumulate",
        lambda *args: trained.append(args) or pytest.fail("it trained again"),
    )
    result = stored(small, tmp_path / "t", cache_dir, forms=forms)
    assert outcome(result) == outcome(whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert result.curve[-1].examples_seen == small.train.budget_examples
    assert result.data == whole.data
    assert not (tmp_path / "t" / "checkpoint").exists()


def noted_weights(folder: Path) -> list[Path]:
    """The weights of the twin and of the forms whose outcome was written."""
    noted = [path.parent for path in (folder / "forms").glob("*/outcome.json")]
    noted += [folder] * (folder / "forms" / "twin.json").is_file()
    return [place / "artifact" / "model.safetensors" for place in noted]


@pytest.mark.parametrize("damage", ["weights", "outcome", "recipe"])
def test_what_is_damaged_or_of_another_recipe_is_made_again(
    damage: str,
    unhurt: tuple[list[Form], RunResult],
    small: RunConfig,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    forms, whole = unhurt
    asked = iter([False, True])

    def pause() -> bool:
        is_training = not (tmp_path / "t" / "forms").exists()
        return False if is_training else next(asked)

    with pytest.raises(Paused, match="before the form b8e8"):
        stored(small, tmp_path / "t", cache_dir, forms=forms, is_to_pause=pause)
    made = FormFolder(tmp_path / "t" / "forms" / "b4e8")
    if damage == "weights":
        weights = made.artifact / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    elif damage == "outcome":
        made.outcome.write_text("{")
    else:
        made.outcome.write_text(json.dumps({**json.loads(made.outcome.read_text()), "recipe": "another"}))
    result = stored(small, tmp_path / "t", cache_dir, forms=forms)
    assert outcome(result) == outcome(whole)
    artifact.verify(made.artifact)
    assert json.loads(made.outcome.read_text())["recipe"] != "another"


def test_forms_of_a_training_that_begins_anew_are_made_anew(
    small: RunConfig, cache_dir: Path, tmp_path: Path
) -> None:
    """Its checkpoint is gone, and with it the network that the forms were made of."""
    forms = quantised(small, (8, 8))
    first = stored(small, tmp_path / "t", cache_dir, forms=forms)
    note = FormFolder(tmp_path / "t" / "forms" / "b8e8").outcome
    before = note.stat().st_mtime_ns
    again = stored(small, tmp_path / "t", cache_dir, forms=forms)
    assert outcome(again) == outcome(first)
    assert note.stat().st_mtime_ns > before


def test_an_artifact_that_is_only_stored_anew_has_forms_too(
    small: RunConfig, cache_dir: Path, tmp_path: Path
) -> None:
    start = stored(small, tmp_path / "start", cache_dir)
    config = replace(
        small,
        model=replace(small.model, checkpoint=start.artifact),
        train=replace(small.train, budget_examples=0),
    )
    result = stored(config, tmp_path / "t", cache_dir, forms=quantised(config, (8, 8)))
    assert by_label(result)["float32"].quality == start.quality
    assert by_label(result)["b8e8"].status == "ok"
    again = stored(config, tmp_path / "t", cache_dir, forms=quantised(config, (8, 8)))
    assert outcome(again) == outcome(result)


@pytest.mark.parametrize(
    ("methods", "settings"),
    [
        (
            {},
            [
                {"methods.quantize.bits": 8, "methods.quantize.embedding_bits": 8},
                {"methods.quantize.bits": 4},
            ],
        ),
        (
            {"static_prune": {"density": 0.3}},
            [
                {"methods.static_prune.resident": "packed"},
                {"methods.static_prune.value_bits": 16},
                {"methods.static_prune.resident": "packed", "methods.quantize.bits": 8},
            ],
        ),
        ({"lora": {"rank": 4, "merge": False}}, [{"methods.quantize.bits": 4}]),
    ],
    ids=["plain", "static_prune", "lora-apart"],
)
def test_a_form_of_a_finished_trial_is_the_one_that_its_training_would_have_left(
    methods: dict[str, Any],
    settings: list[dict[str, Any]],
    small_squad: Path,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    config = recipe(small_squad, methods)
    forms = [form_of(config, f"form-{number}", found) for number, found in enumerate(settings)]
    at_once = stored(config, tmp_path / "t", cache_dir, forms=forms)
    ended = stored(config, tmp_path / "ended", cache_dir)
    later = stored_forms.more_forms(config, forms, **of_the_end(ended, tmp_path / "ended", cache_dir))
    assert [form.label for form in later] == [form.label for form in at_once.forms]
    for one, other in zip(later, at_once.forms, strict=True):
        assert (one.status, one.quality, one.against_twin) == ("ok", other.quality, other.against_twin)
        manifests = [artifact.verify(Path(form.artifact or "")) for form in (one, other)]
        assert manifests[0] == manifests[1]  # hashes of all files, forms, threshold
    assert stored(config, tmp_path / "again", cache_dir).quality == ended.quality


def of_the_end(result: RunResult, folder: Path, cache_dir: Path) -> dict[str, Any]:
    """What a record says of the end of a training."""
    last = result.curve[-1]
    selection = (last.selection_em_percent, last.selection_f1_percent)
    return {
        "twin": stored_forms.Stored(result.quality, result.cost, selection),
        "folder": folder,
        "cache_dir": cache_dir,
        "state": TrainState(examples_seen=last.examples_seen, train_seconds=result.cost.train_seconds),
        "facts": result.data,
        "skips_as_good": False,
    }


def test_what_the_artifact_does_not_hold_fails_with_the_reason(
    small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    """Adapters that are merged cannot be told from the base, and 16 bits do not become 32."""
    for number, (methods, settings, expected) in enumerate(
        (
            (
                {"lora": {"rank": 4}},
                {"methods.lora.merge": False},
                "methods.lora: found an artifact that is stored",
            ),
            (
                {"static_prune": {"value_bits": 16}},
                {"methods.static_prune.value_bits": 32},
                "value_bits: found 32 for values stored as half; allowed: no more bits",
            ),
        )
    ):
        config = recipe(small_squad, methods)
        folder = tmp_path / str(number)
        ended = stored(config, folder, cache_dir)
        (found,) = stored_forms.more_forms(
            config, [form_of(config, "x", settings)], **of_the_end(ended, folder, cache_dir)
        )
        assert found.status == "failed"
        assert expected in (found.reason or "")


def test_more_forms_are_refused_on_other_questions_and_another_device(
    small: RunConfig, cache_dir: Path, tmp_path: Path
) -> None:
    ended = stored(small, tmp_path / "t", cache_dir)
    given = of_the_end(ended, tmp_path / "t", cache_dir)
    forms = quantised(small, (8, 8))
    other = replace(small, data=replace(small.data, evaluation_questions=10))
    with pytest.raises(
        DataError, match=r"data.evaluation: found questions with hash .* allowed: .* of the training"
    ):
        stored_forms.more_forms(other, forms, **given)
    twin = replace(given["twin"], cost=replace(ended.cost, device="cuda: another"))
    with pytest.raises(ConfigError, match=r"device: found cpu.* allowed: cuda: another"):
        stored_forms.more_forms(small, forms, **{**given, "twin": twin})
    assert not (tmp_path / "t" / "forms").exists()


def test_reports_name_the_forms_that_fit_with_the_costs_that_decide_it(
    small: RunConfig, cache_dir: Path, tmp_path: Path
) -> None:
    config = replace(small, train=replace(small.train, rungs=(30,)))
    forms = quantised(config, (8, 8), (4, 8))

    def reported(config: RunConfig, folder: str, **options: Any) -> tuple[Any, RunResult]:
        reports: list[Progress] = []
        options = {"folder": tmp_path / folder, "cache_dir": cache_dir, "skips_as_good": False, **options}
        result = run(config, reports.append, **options)
        assert [report.forms for report in result.curve] == [reports[0].forms, None]
        return reports[0].forms, result

    found, result = reported(config, "all", forms=forms, reports_forms=True)
    assert [(form["label"], form["kind"]) for form in found] == [
        ("float32", "scored at rungs: float32"),
        ("b8e8", "int8+e8"),
        ("b4e8", "nf4+e8"),
    ]
    for form in found:
        cost = by_label(result)[form["label"]].cost
        assert cost is not None
        assert {name: form[name] for name in ("inference_peak_bytes", "weights_bytes")} == {
            "inference_peak_bytes": cost.inference_peak_bytes,
            "weights_bytes": cost.weights_bytes,
        }
        assert (form["memory_mb"], form["memory_batch8_mb"]) == (cost.memory_mb, cost.memory_batch8_mb)
        assert form["artifact_bytes"] == cost.predicted_artifact_bytes
    limit = (found[1]["memory_mb"] + found[2]["memory_mb"]) / 2
    fitting, _ = reported(config, "limited", forms=forms, reports_forms=True, max_memory_mb=limit)
    assert fitting == [found[2]]
    alone, _ = reported(
        config, "alone", reports_forms=True
    )  # of a recipe that no form of the sweep applies to
    assert alone == [{**found[0], "label": None}]
    assert reported(config, "without", forms=forms)[0] is None
