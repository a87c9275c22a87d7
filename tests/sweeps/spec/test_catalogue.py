"""The catalogue of settings: complete, readable, and the same as what is checked."""

from pathlib import Path

import pytest

from qa_core import registry
from qa_core.errors import ConfigError
from sweeps import registry as parts
from sweeps.spec import catalogue
from sweeps.spec.load import load_spec

DOCS = Path(__file__).resolve().parents[3] / "docs"


def row(path: str, owner: str = "") -> catalogue.Row:
    (found,) = (item for item in catalogue.rows(path) if (item.path, item.owner) == (path, owner))
    return found


def test_every_setting_has_a_meaning() -> None:
    found = catalogue.rows()
    assert len(found) >= 120
    assert [
        item.path for item in found if len(item.meaning.split()) < 2 or not item.meaning.endswith(".")
    ] == []


def test_null_is_explained_wherever_it_is_the_default() -> None:
    found = [
        item for item in catalogue.rows() if item.default == "null" and not item.path.startswith("space[]")
    ]
    assert len(found) >= 25
    assert [item.path for item in found if "null:" not in item.meaning] == []


def test_options_of_all_families_methods_searchers_and_schedulers_are_there() -> None:
    owners = {item.owner for item in catalogue.rows()} - {""}
    without_options = {"t5", "sobol"}
    expected = {*registry.FAMILIES, *registry.METHODS, *parts.SEARCHERS, *parts.SCHEDULERS}
    assert owners == expected - without_options


def test_a_row_says_type_default_range_and_unit() -> None:
    batch = row("train.batch_size")
    assert (batch.kind, batch.default, batch.allowed, batch.unit) == (
        "a whole number",
        "16",
        "1 or more",
        "windows",
    )
    assert row("train.warmup_share").allowed == "0 <= share < 1"
    assert row("budget.hang_minutes").allowed == "0 < value <= 525600"
    assert row("budget.trials").default == "required"
    assert row("model.head").allowed == "span or generate"
    assert row("searcher.name").allowed == "grid, optuna, random, sobol, surrogate"
    assert row("scheduler.options.eta", "asha").allowed == "a number above 1"
    assert row("space[].set").default == "required"  # as YAML names it


def test_a_range_that_is_listed_is_the_range_that_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        "name: small\nobjectives: [{name: em_percent, goal: max}]\nsearcher: {name: random}\n"
        "scheduler: {name: fifo}\nbudget: {trials: 1, examples: 0}\nrecipe: {model: {family: lstm}}\n"
    )
    for path, value in (
        ("budget.trials", "0"),
        ("budget.hang_minutes", "525601"),
        ("budget.keep_artifacts", "no"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_spec(file, [f"{path}={value}"])
        listed = row(path)
        assert str(caught.value).endswith(f"allowed: {listed.allowed or listed.kind}")


@pytest.mark.parametrize(
    ("prefix", "first", "last"),
    [
        ("budget", "budget.trials", "budget.keep_artifacts"),
        ("train.", "train.budget_examples", "train.gradient_checkpointing"),
        ("recipe.train.", "train.budget_examples", "train.gradient_checkpointing"),
        ("methods.lora.", "methods.lora.rank", "methods.lora.merge"),
        ("data.window", "data.window", "data.window"),
        ("forms.", "forms", "forms"),
    ],
)
def test_a_prefix_chooses_a_part(prefix: str, first: str, last: str) -> None:
    found = catalogue.rows(prefix)
    assert (found[0].path, found[-1].path) == (first, last)


@pytest.mark.parametrize(
    ("prefix", "nearest"),
    [("trian.", "train"), ("budgte", "budget"), ("batch_sizes", "batch_size")],
)
def test_an_unknown_prefix_is_refused_with_the_nearest_name(prefix: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue.rows(prefix)
    assert f"found the prefix {prefix!r}; did you mean {nearest!r}?" in str(caught.value)


def test_the_text_fits_a_terminal_of_80_columns() -> None:
    text = catalogue.as_text(catalogue.rows())
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert text.count("\n\n") == len(catalogue.rows()) - 1


def test_the_document_is_what_the_code_says_now() -> None:
    stored = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert stored == catalogue.as_markdown(), "run `qa-sweep settings --markdown > docs/settings.md`"
