"""`new`: the file that it writes is read back, fits the memory, and says what it leaves out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import qa_core
from qa_core.calibration import Timing
from qa_core.errors import ConfigError, DataError, StorageError
from sweeps.budget.memory import MemoryForecast
from sweeps.budget.starting import SHIPPED
from sweeps.commands import new
from sweeps.commands.new import Wanted
from sweeps.space.compile import compile_space
from sweeps.spec.load import load_spec

OWN_BERT = Path(qa_core.__file__).parent / "checkpoints" / "bert" / "sample-micro"


@pytest.fixture
def here(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No hub answers, and timing takes no time."""

    def no_hub(place: str, name: str) -> None:
        raise ConfigError(f"{place}: found {name!r}, which is not in the cache, and the hub does not answer")

    monkeypatch.setattr(new, "check_hub", no_hub)
    monkeypatch.setattr("qa_core.calibration.timed_recipe", lambda *args, **options: Timing(0.01, 0.005, 1.0))
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_is_a_sweep_of_networks_that_fit(
    small_squad: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [start for start in new.STARTS if start.family in ("bert", "mamba")]  # others are predicted alike
    monkeypatch.setattr(new, "STARTS", few)
    assert new.new(Wanted(str(small_squad), max_memory_mb=2.0, minutes=30), Path("my.yaml")) == 0
    output, text = capsys.readouterr().out, Path("my.yaml").read_text()
    spec = load_spec("my.yaml")
    assert spec.budget.max_memory_mb == 2.0
    assert spec.budget.time_minutes == 30
    assert spec.scheduler.name == "fifo"  # 5 questions for a rung say nothing
    assert spec.recipe["data"]["train"] == str(small_squad)
    assert {item["methods"] for item in compile_space(spec).legal} == {"full", "lora"}
    forecast = MemoryForecast.of(spec)
    recipes = new._first_recipes(spec)
    assert {cell.family for cell in recipes} == {"bert"}
    assert all(map(forecast.admits, recipes.values()))
    assert re.search(r"^# mamba sample-tiny: needs 2\.\d MB or more, and is left out$", text, flags=re.M)
    assert "cannot be loaded here; bert starts from sample-tiny" in text
    assert "at most, every trial to the full budget" in output
    assert "qa-sweep run --config my.yaml" in output
    assert max(len(line) for line in output.splitlines() if "qa-sweep" not in line) <= 80
    assert max(map(len, text.splitlines())) <= 125


def test_families_too_slow_for_the_time_are_left_out_and_other_work_is_allowed_for(
    small_squad: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [
        start for start in new.STARTS if (start.family, start.is_hub) in (("bert", False), ("lstm", False))
    ]
    monkeypatch.setattr(new, "STARTS", few)
    seconds = {"bert": 1.0, "lstm": 0.01}

    monkeypatch.setattr(
        "qa_core.calibration.timed_recipe",
        lambda recipe, **options: Timing(seconds[recipe.model.family], 0.005, 1.0),
    )
    monkeypatch.setattr(new, "slowdown_of", lambda clock, work: 2.0)
    assert new.new(Wanted(str(small_squad), minutes=30), Path("my.yaml")) == 0
    text = Path("my.yaml").read_text()
    assert {item["model.family"] for item in compile_space(load_spec("my.yaml")).legal} == {"lstm"}
    assert "choice: [full]" in text  # no adapter fits a BiLSTM
    line = r"^# bert sample-tiny: is left out, since trials in 30 minutes would be too short to learn; --minutes \d+ "
    assert re.search(line, text, flags=re.M)
    assert "#   bert:" not in text
    assert "# other work slows this machine down: a second of work took 2.0 s; sizes allow for it" in text


def test_a_machine_counts_as_busy_where_the_clock_runs_well_ahead_of_the_work() -> None:
    assert new.slowdown_of(30.0, 10.0) == 3.0
    assert new.slowdown_of(12.0, 10.0) == 1.0
    assert new.slowdown_of(5.0, 0.1) == 1.0  # too little work to tell


def test_what_is_refused(small_squad: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new, "STARTS", [start for start in new.STARTS if start.family == "bert"])
    out = Path("my.yaml")
    with pytest.raises(ConfigError, match=r"--max-memory-mb: found 0.1; allowed: [\d.]+ or more"):
        new.new(Wanted(str(small_squad), max_memory_mb=0.1), out)
    with pytest.raises(ConfigError, match="--minutes: found 0; allowed: a number above 0"):
        new.new(Wanted(str(small_squad), minutes=0), out)
    with pytest.raises(DataError, match=r"gone.csv: found no such file"):
        new.new(Wanted("gone.csv"), out)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(StorageError, match=r"my.yaml: exists already; choose another file with --out"):
        new.new(Wanted(str(small_squad)), out)
    assert out.read_text() == "mine"


def test_columns_names_with_signs_and_a_hub_that_answers_are_written_as_they_are(
    small_squad: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new, "check_hub", lambda place, name: None)
    starts, lines = new.loadable(on_gpu=True)
    assert [start.name for start in starts][:2] == [
        "google-bert/bert-base-uncased",
        "distilbert/distilbert-base-uncased",
    ]
    assert lines == []
    wanted = Wanted('my: "data" #1.csv', "dev.csv", {"question": "q: #"}, max_memory_mb=None, minutes=5)
    found = new.Found(900, 100, 200, 256, 64, 1200)
    text = new.as_yaml(new.Plan(wanted, found, starts, new.Sizes(8, 9000, 3000, 500), True), [])
    Path("my.yaml").write_text(text)
    spec = load_spec("my.yaml")
    assert spec.recipe["data"]["train"] == 'my: "data" #1.csv'
    assert spec.recipe["data"]["columns"] == {"question": "q: #"}
    assert spec.scheduler.options["grace_examples"] == 3000
    assert spec.resources.is_auto
    assert spec.name == "my---data---1"
    rates = [entry.when for entry in spec.space if entry.path == "train.learning_rate"]
    assert {family for when in rates for family in when["model.family"]} == set(new_families_of(starts))


def test_long_lines_of_what_is_left_out_are_broken() -> None:
    line = f"{', '.join(['family network'] * 8)}: are left out"
    found = new.Found(900, 100, 200, 256, 64, 1200)
    plan = new.Plan(
        Wanted("my.csv"), found, new.STARTS[-1:], new.Sizes(8, 9000, 3000, 500), False, left_out=[line]
    )
    text = new.as_yaml(plan, [])
    assert max(map(len, text.splitlines())) <= 120
    assert " ".join(text.replace("#", " ").split()).count(line) == 1
    assert max(map(len, new._broken(line, 78))) <= 78


def test_long_answers_raise_the_limit_that_would_refuse_them(here: Path) -> None:
    words = " ".join(f"word{number}" for number in range(100))
    rows = [
        {"question": f"What is {number}?", "context": f"It is {number}. {words}", "answer": words}
        for number in range(20)
    ]
    Path("long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    start = next(start for start in new.STARTS if start.name == SHIPPED)
    found = new.look(Wanted("long.jsonl"), start)
    assert found.answer_tokens == 240  # each word is two tokens or more
    text = new.as_yaml(new.Plan(Wanted("long.jsonl"), found, [start], new.PLACEHOLDER, False), [])
    Path("my.yaml").write_text(text)
    assert load_spec("my.yaml").recipe["evaluation"] == {"precision": "float32", "max_answer_tokens": 240}


def test_a_sweep_is_named_for_its_data() -> None:
    names = {"a/b.v2.0-x.json.gz": "b.v2.0-x", "owner/name@dev": "name@dev", "x.csv": "x", "sample": "sample"}
    assert {source: new._stem(source) for source in names} == names


def new_families_of(starts: Any) -> list[str]:
    return [start.family for start in starts]


def test_a_sweep_starts_from_the_networks_that_are_named(small_squad: Path, here: Path) -> None:
    wanted = Wanted(str(small_squad), minutes=30, checkpoints=[str(OWN_BERT)])
    assert new.new(wanted, Path("my.yaml")) == 0
    spec = load_spec("my.yaml")
    assert {item["model.family"] for item in compile_space(spec).legal} == {"bert"}
    (recipe, *_) = new._first_recipes(spec).values()
    assert recipe.model.checkpoint == str(OWN_BERT)
    assert "cannot be loaded here" not in Path("my.yaml").read_text()


def test_a_named_network_that_cannot_be_started_from_is_refused(here: Path) -> None:
    (here / "other").mkdir()
    (here / "other" / "config.json").write_text('{"model_type": "gpt2"}')
    (here / "empty").mkdir()
    for names, said in (
        (["other"], "found a network of type 'gpt2'; allowed: bert, distilbert, t5, mamba"),
        (["empty"], "found no configuration that can be read"),
        ([str(OWN_BERT)] * 2, "found a second network of family bert"),
        (["somebody/some-bert"], "the hub does not answer"),
    ):
        with pytest.raises(ConfigError, match=said):
            new.named_starts(names)


def test_without_a_hub_it_is_said_that_the_packages_networks_know_little(here: Path) -> None:
    assert any("--checkpoint NAME" in line for line in new.loadable(on_gpu=False)[1])
