"""Asynchronous successive halving: the contract, Ray's own milestones, and who is stopped."""

import math

import pytest

from qa_core.errors import ConfigError
from sweeps.schedulers.asha import Asha
from sweeps.spec.objectives import Objective
from tests.contracts.scheduler import BUDGET, EM, MEMORY, FakeTrial, SchedulerContract, decide


class TestAsha(SchedulerContract):
    name = "asha"
    options = {"grace_examples": 1000, "eta": 3}

    def test_a_worse_trial_is_stopped_at_the_first_rung_and_a_better_one_goes_on(self) -> None:
        # The cut-off is the 2/3 quantile of the values seen before: 30; then of 30 and 60: 50.
        decisions = decide(self.make(), [30.0, 60.0, 45.0, 10.0])
        assert decisions["t2"] == decisions["t3"] == ["STOP"]
        assert decisions["t1"][:2] == ["CONTINUE", "CONTINUE"]

    def test_a_goal_to_be_minimised_keeps_the_smallest(self) -> None:
        scheduler = self.make().ray_scheduler([MEMORY], BUDGET)
        found = []
        for index, memory in enumerate([30.0, 10.0, 40.0]):
            trial = FakeTrial(f"t{index}")
            scheduler.on_trial_add(None, trial)
            found.append(scheduler.on_trial_result(None, trial, {"examples_seen": 1000, "memory_mb": memory}))
        assert found == ["CONTINUE", "CONTINUE", "STOP"]

    def test_a_history_of_a_goal_to_be_minimised_keeps_the_smallest(self) -> None:
        history = {
            f"t{memory}": [{"examples_seen": 1000, "memory_mb": memory}] for memory in (10.0, 20.0, 30.0)
        }
        for memory, expected in ((9.0, "CONTINUE"), (31.0, "STOP")):
            scheduler = self.make().ray_scheduler([MEMORY], BUDGET, history=history)
            trial = FakeTrial("new")
            scheduler.on_trial_add(None, trial)
            report = {"examples_seen": 1000, "memory_mb": memory}
            assert scheduler.on_trial_result(None, trial, report) == expected

    def test_the_final_report_ends_a_trial_without_comparing_it(self) -> None:
        decisions = decide(self.make(), [60.0])
        assert decisions["t0"] == ["CONTINUE", "CONTINUE", "STOP"]  # Ray's word for "reached the end"


@pytest.mark.parametrize("grace", [1, 7, 500, 1000, 3000])
@pytest.mark.parametrize("eta", [2, 2.5, 3, 4])
@pytest.mark.parametrize("budget", [3001, 9000, 9001, 27_000, 81_000])
def test_rungs_are_the_milestones_that_ray_computes(grace: int, eta: float, budget: int) -> None:
    scheduler = Asha.from_options({"grace_examples": grace, "eta": eta})
    (bracket,) = scheduler.ray_scheduler([EM], budget)._brackets
    milestones = sorted(math.ceil(milestone) for milestone, _ in bracket._rungs)
    assert scheduler.rungs(budget) == tuple(milestone for milestone in milestones if milestone < budget)


def test_rungs_of_the_usual_settings() -> None:
    assert Asha.from_options({"grace_examples": 1000, "eta": 3}).rungs(9000) == (1000, 3000)
    assert Asha.from_options({"grace_examples": 1000, "eta": 3}).rungs(9001) == (1000, 3000, 9000)
    assert Asha.from_options({"grace_examples": 100, "eta": 2.5}).rungs(1000) == (100, 250, 625)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "grace_examples: missing"),
        ({"grace_examples": 0}, "grace_examples: found 0; allowed: 1 or more"),
        ({"grace_examples": 10, "eta": 1}, "eta: found 1.0; allowed: a number above 1"),
        ({"grace_examples": "some"}, "grace_examples: found 'some'; allowed: a whole number"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Asha.from_options(options)


def test_it_refuses_what_it_could_not_compare() -> None:
    asha = Asha.from_options({"grace_examples": 1000})
    asha.check([EM, MEMORY], 9000)
    with pytest.raises(ConfigError, match=r"below budget\.examples = 1000"):
        asha.check([EM], 1000)
    late = Objective(name="latency_p50_ms", goal="min", reference=100)
    asha.check([EM, late], 9000)  # only the first objective is compared
    with pytest.raises(
        ConfigError, match=r"'latency_p50_ms' is measured only on .* artifact_bytes, em_percent, .*memory_mb"
    ):
        asha.check([late, EM], 9000)
