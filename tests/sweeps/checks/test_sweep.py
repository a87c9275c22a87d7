"""The checks of a whole sweep: everything is made once, and what an earlier call worked out is looked up."""

from pathlib import Path

import pytest

from qa_core.errors import ConfigError
from sweeps.budget import references
from sweeps.budget.memory import MemoryForecast
from sweeps.checks import sweep as checks
from sweeps.spec.load import load_spec
from sweeps.spec.sections import SweepSpec
from tests.sweeps.from_scratch import FROM_SCRATCH

SPACE = [{"set": "model.options.hidden_size", "choice": [4, 8]}]


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(tmp_path / "cache"))
    values = load_spec(FROM_SCRATCH).as_dict()
    model = {"family": "lstm", "checkpoint": "micro", "vocab_size": 1500}
    recipe = {**values["recipe"], "model": model}
    return SweepSpec.model_validate({**values, "recipe": recipe, "space": SPACE})


def test_a_second_call_works_nothing_out(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[int] = []
    first = checks.check(spec, before_work=lambda: worked.append(1))
    found = first.references()
    assert worked == [1]
    for place, name in ((MemoryForecast, "_tried"), (references, "_baseline")):
        monkeypatch.setattr(place, name, lambda *others, **named: pytest.fail("it was worked out again"))
    monkeypatch.setattr("sweeps.checks.data.look_at_data", lambda *others, **named: pytest.fail("read again"))
    second = checks.check(spec, before_work=lambda: worked.append(2))
    assert second.references() == found
    assert second.report == first.report
    assert worked == [1]


def test_a_refusal_keeps_what_it_took_to_refuse(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    tight = spec.model_copy(update={"budget": spec.budget.model_copy(update={"max_memory_mb": 0.0001})})
    with pytest.raises(ConfigError, match="max_memory_mb") as first:
        checks.check(tight)
    monkeypatch.setattr(MemoryForecast, "_tried", lambda *others: pytest.fail("it was predicted again"))
    with pytest.raises(ConfigError) as second:
        checks.check(tight)
    assert str(second.value) == str(first.value)
