"""Which trials compare, without Ray: what a sweep was measured on, and what it would be measured on now."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qa_core.config import RunConfig
from qa_core.errors import ConfigError
from qa_core.values import from_dict
from sweeps.front.comparability import Machine, Terms, check, commit_note
from sweeps.spec.objectives import Objective
from tests.sweeps.front.test_front import BOTH, record

HERE = Machine("cpu: some processor", computes_in_bfloat16=False)
LATENCY = Objective(name="latency_p95_ms", goal="min", reference=100)


def recipe(squad: Path, **evaluation: Any) -> RunConfig:
    return from_dict(
        RunConfig,
        {
            "model": {"family": "lstm"},
            "data": {"train": str(squad), "evaluation": str(squad)},
            "train": {"budget_examples": 900},
            "evaluation": {"precision": "float32", **evaluation},
        },
    )


def copy_of(squad: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "dev.json"
    copy.write_text(squad.read_text())
    return copy


def measured(squad: Path, cache: Path, trial_id: str = "t0", **changes: Any) -> Any:
    """Return the record of a trial that finished on the terms of `recipe(squad)` on `HERE`."""
    from qa_core.data.prepare import evaluation_part

    table, _ = evaluation_part(recipe(squad), cache_dir=cache)
    cost = {"inference_peak_bytes": 1, "precision": "torch.float32", "protocol_version": _protocol()}
    values = {"objectives": {"em_percent": 5.0, "memory_mb": 1.0, "latency_p95_ms": 3.0}, "cost": cost}
    return record(trial_id, **{**values, "data": {"evaluation": {"data_hash": table.data_hash}}, **changes})


def _protocol() -> int:
    from qa_core.memory import protocol

    return protocol.PROTOCOL_VERSION


def checked(finished: Any, recipes: Any, cache: Path, **changes: Any) -> tuple[str, ...]:
    notes: list[str] = []
    values: dict[str, Any] = {
        "machines": lambda device: (HERE,),
        "cache_dir": cache,
        "allow_mixed": False,
        "note": notes.append,
        **changes,
    }
    found = check(finished, recipes, values.pop("objectives", BOTH), **values)
    assert notes == [f"warning: --allow-mixed: {line}" for line in found]
    return found


def test_a_sweep_goes_on_on_the_terms_on_which_it_was_begun(small_squad: Path, tmp_path: Path) -> None:
    finished = [measured(small_squad, tmp_path)]
    assert checked(finished, [recipe(small_squad)], tmp_path) == ()
    assert checked([], [recipe(small_squad)], tmp_path) == ()


def test_an_edited_evaluation_file_is_refused_with_both_hashes_and_a_way_on(
    small_squad: Path, tmp_path: Path
) -> None:
    file = copy_of(small_squad, tmp_path)
    finished = [measured(file, tmp_path), measured(file, tmp_path, "t1")]
    before = finished[0].data["evaluation"]["data_hash"][:12]
    file.write_text(file.read_text().replace("amber", "umber"))
    with pytest.raises(ConfigError) as refused:
        checked(finished, [recipe(file)], tmp_path)
    message = str(refused.value)
    assert "evaluation data: found " in message
    assert f"for the next trials; {before} for 2 finished trials (t0, t1)" in message
    assert "--out" in message
    assert "--allow-mixed" in message
    (allowed,) = checked(finished, [recipe(file)], tmp_path, allow_mixed=True)
    assert allowed in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"budget_examples": 500, "examples_seen": 500},
            "budget in examples: found 900 for the next trials; 500",
        ),
        ({"device": "cuda: H200"}, "device: found cpu for the next trials; cuda: H200"),
        (
            {"cost": {"precision": "torch.bfloat16", "protocol_version": 99}},
            "compute precision: found float32 for the next trials; bfloat16",
        ),
        (
            {"cost": {"precision": "torch.float32", "protocol_version": 99}},
            f"measuring protocol: found {_protocol()} for the next trials; 99",
        ),
    ],
)
def test_each_of_the_terms_is_compared(
    changes: dict[str, Any], expected: str, small_squad: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=expected):
        checked([measured(small_squad, tmp_path, **changes)], [recipe(small_squad)], tmp_path)


def test_another_cpu_is_refused_only_where_an_objective_depends_on_it(
    small_squad: Path, tmp_path: Path
) -> None:
    finished = [measured(small_squad, tmp_path)]
    other = Machine("cpu: another processor", computes_in_bfloat16=False)
    there = {"machines": lambda device: (other,)}
    assert checked(finished, [recipe(small_squad)], tmp_path, **there) == ()
    with pytest.raises(
        ConfigError, match=r"device: found cpu: another processor .*; cpu: some processor for 1"
    ):
        checked(finished, [recipe(small_squad)], tmp_path, objectives=[*BOTH, LATENCY], **there)


def test_a_cpu_that_computes_in_bfloat16_by_itself_is_refused_unless_the_recipe_pins_its_precision(
    small_squad: Path, tmp_path: Path
) -> None:
    finished = [measured(small_squad, tmp_path)]
    there = {"machines": lambda device: (replace(HERE, computes_in_bfloat16=True),)}
    assert checked(finished, [recipe(small_squad)], tmp_path, **there) == ()
    with pytest.raises(ConfigError, match="compute precision: found bfloat16 for the next trials; float32"):
        checked(finished, [recipe(small_squad, precision="auto")], tmp_path, **there)


def test_the_terms_that_decide_are_those_of_the_largest_group(small_squad: Path, tmp_path: Path) -> None:
    mixed = [measured(small_squad, tmp_path, f"t{index}") for index in range(2)]
    mixed.append(measured(small_squad, tmp_path, "t2", device="cuda: H200"))
    assert checked(mixed, [recipe(small_squad)], tmp_path) == ()


def test_recipes_that_do_not_compare_with_each_other_are_refused_before_there_is_a_trial(
    small_squad: Path, tmp_path: Path
) -> None:
    both = [recipe(small_squad), recipe(small_squad, precision="bfloat16")]
    with pytest.raises(
        ConfigError, match="precision: found bfloat16 for some of the next trials; float32 for others"
    ):
        checked([], both, tmp_path)
    sources = [
        recipe(small_squad),
        replace(recipe(small_squad), data=replace(both[0].data, evaluation="sample")),
    ]
    with pytest.raises(ConfigError, match="evaluation data"):
        checked([], sources, tmp_path)


def test_another_commit_is_worth_a_note(small_squad: Path) -> None:
    git = {"git": {"commit": "a" * 40}}
    finished = [record("t0", provenance=git), record("t1", provenance=git), record("t2")]
    assert commit_note(finished, "a" * 40) is None
    assert commit_note(finished, None) is None
    assert commit_note(finished, "b" * 40) == (
        "the project's commit is now bbbbbbbbb; of the finished trials, 2 by aaaaaaaaa"
    )


def test_terms_name_what_differs_and_a_budget_of_nothing_differs_from_none() -> None:
    one = Terms("a", 900, 1, "cpu", "torch.float32")
    assert one.differing(replace(one, budget=0)) == ()
    assert one.differing(replace(one, budget=800, device="cuda: x")) == ("budget", "device")
