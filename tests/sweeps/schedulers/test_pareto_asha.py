"""Halving on all objectives: the contract, who is stopped, and a real sweep in which the front survives."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import ConfigError, DataError
from sweeps.nodes.ray_environment import RayTarget
from sweeps.run_folder import records
from sweeps.run_folder.layout import RECORDS_FILE
from sweeps.schedulers.pareto_asha import ParetoAsha, is_at_floor
from sweeps.schedulers.pausing import Situation, Verdict
from sweeps.spec.objectives import Objective
from sweeps.trials import ray_driver
from tests.contracts.scheduler import BUDGET, EM, MEMORY, FakeTrial, SchedulerContract, decide
from tests.sweeps.small_sweep import small_spec
from tests.sweeps.told import Told

F1 = Objective(name="f1_percent", goal="max", reference=0)


class TestParetoAsha(SchedulerContract):
    name = "pareto_asha"
    options = {"grace_examples": 1000, "eta": 3}

    def test_with_equal_memory_the_best_third_goes_on(self) -> None:
        assert decide(self.make(), [30.0, 60.0, 45.0, 10.0, 50.0, 55.0]) == {
            "t0": ["PAUSE"],  # the first to come; last of 3, once there are 3
            "t1": ["PAUSE", "PAUSE", "CONTINUE"],  # best of 3; then best of 2, where no other comes any more
            "t2": ["STOP"],  # second of 3
            "t3": ["STOP"],
            "t4": ["STOP"],  # second of 5
            "t5": ["CONTINUE", "PAUSE"],  # second of 6, then second of 2
        }


class TestProgressiveParetoAsha(SchedulerContract):
    name = "pareto_asha"
    options = {"grace_examples": 1000, "eta": 3, "progressive": True}


def report(em: float, memory: float, *, seen: int = 1000) -> dict[str, float]:
    return {
        "examples_seen": seen,
        "selection_em_percent": em,
        "selection_f1_percent": em,
        "memory_mb": memory,
    }


def verdicts(objectives: list[Objective], reports: list[dict[str, float]], **options: object) -> list[str]:
    scheduler = ParetoAsha.from_options({"grace_examples": 1000, **options})
    ray_scheduler = scheduler.ray_scheduler(objectives, BUDGET)
    return [settled(ray_scheduler, f"t{index}", item) for index, item in enumerate(reports)]


def settled(ray_scheduler: Any, trial: str, item: dict[str, float]) -> str:
    """Return the decision on a report at a rung that no other trial will reach, so that nothing waits for more."""
    decision = ray_scheduler.on_trial_result(None, FakeTrial(trial), item)
    if ray_scheduler.verdicts[trial] is Verdict.PAUSE:
        paused = Situation(paused={trial: int(item["examples_seen"])})
        return "CONTINUE" if trial in ray_scheduler.judge.candidates(paused).promotions else "STOP"
    return decision


def test_memory_keeps_a_small_poor_model_whatever_the_order_of_objectives() -> None:
    reports = [report(80, 100), report(70, 90), report(20, 4), report(19, 5), report(60, 95)]
    expected = ["CONTINUE", "CONTINUE", "CONTINUE", "STOP", "STOP"]
    assert verdicts([EM, MEMORY], reports) == expected
    assert verdicts([MEMORY, EM], reports) == expected
    assert verdicts([EM, F1, MEMORY], reports) == expected
    assert verdicts([EM], reports) == ["CONTINUE", *["STOP"] * 4]


def test_memory_bins_are_bands_of_memory() -> None:
    reports = [report(90, 4), report(95, 64), report(30, 20), report(20, 21)]
    assert verdicts([EM, MEMORY], reports)[2:] == ["STOP", "STOP"]
    for objectives in ([MEMORY, EM], [EM, MEMORY], [EM, F1, MEMORY]):
        assert verdicts(objectives, reports, memory_bins=4)[2:] == ["CONTINUE", "STOP"]


def test_the_final_report_and_one_before_the_first_rung_are_not_compared() -> None:
    reports = [report(80, 4, seen=seen) for seen in (1000, BUDGET)]
    reports += [report(10, 9, seen=seen) for seen in (999, BUDGET, 1000)]
    assert verdicts([EM, MEMORY], reports) == [*["CONTINUE"] * 4, "STOP"]


@pytest.mark.parametrize("bad", [None, float("nan"), "12"])
def test_a_report_that_slips_through_stops_its_trial_and_leaves_no_trace(bad: object) -> None:
    scheduler = ParetoAsha.from_options({"grace_examples": 1000}).ray_scheduler([EM, MEMORY], BUDGET)
    good = report(50, 10)
    assert scheduler.on_trial_result(None, FakeTrial("bad"), {**good, "memory_mb": bad}) == "STOP"
    assert scheduler.on_trial_result(None, FakeTrial("bad2"), {"examples_seen": 1000}) == "STOP"
    assert scheduler.halving.seen() == [0, 0]
    assert settled(scheduler, "good", good) == "CONTINUE"
    assert "1000: 1" in scheduler.debug_string()


def test_a_pickled_scheduler_knows_its_results() -> None:
    scheduler = ParetoAsha.from_options({"grace_examples": 1000}).ray_scheduler([EM, MEMORY], BUDGET)
    scheduler.on_trial_result(None, FakeTrial("a"), report(50, 10))
    copy = pickle.loads(pickle.dumps(scheduler))
    assert copy.halving.state() == scheduler.halving.state()
    assert settled(copy, "b", report(40, 10)) == "STOP"


def test_a_history_that_cannot_be_compared_is_refused() -> None:
    scheduler = ParetoAsha.from_options({"grace_examples": 1000})
    with pytest.raises(DataError, match="memory_mb: found nothing"):
        scheduler.ray_scheduler(
            [EM, MEMORY], BUDGET, history={"t0": [{"examples_seen": 1000, "selection_em_percent": 1.0}]}
        )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "grace_examples: missing"),
        ({"grace_examples": 0}, "grace_examples: found 0; allowed: 1 or more"),
        ({"grace_examples": 10, "eta": 1}, "eta: found 1.0; allowed: a number above 1"),
        ({"grace_examples": 10, "memory_bins": 0}, "memory_bins: found 0; allowed: 1 or more"),
        ({"grace_examples": 10, "memory_bins": 1.5}, "memory_bins: found 1.5; allowed: a whole number"),
        (
            {"grace_examples": 10, "floor": "of"},
            "floor: found 'of'; allowed: pause or stop or off; did you mean 'off'",
        ),
        ({"grace_examples": 10, "progressive": "yes"}, "progressive: found 'yes'; allowed: true or false"),
        ({"grace_examples": 10, "max_budget": 100}, "unknown setting 'max_budget'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        ParetoAsha.from_options(options)


def test_it_refuses_what_it_could_not_compare() -> None:
    options = {"grace_examples": 1000, "memory_bins": 3, "progressive": True}
    every = ParetoAsha.from_options(options)
    every.check([EM, MEMORY], BUDGET)
    late = Objective(name="latency_p50_ms", goal="min", reference=100)
    with pytest.raises(ConfigError, match="'latency_p50_ms' is measured only on the finished artifact"):
        every.check([EM, late], BUDGET)
    with pytest.raises(ConfigError, match="memory_bins: found 3; allowed: 1, unless memory_mb"):
        every.check([EM, F1], BUDGET)
    with pytest.raises(ConfigError, match=r"progressive: found True; .* 2000 \(found 1000\)"):
        every.check([EM, MEMORY], 2000)
    with pytest.raises(ConfigError, match=r"below budget\.examples = 1000"):
        every.check([EM, MEMORY], 1000)


@pytest.mark.parametrize(
    ("gain", "error", "expected"),
    [
        (2.0, 1.0, True),
        (2.001, 1.0, False),
        (0.0, 0.0, True),  # answers as the baseline does
        (0.5, 0.0, False),
        (-3.0, 1.0, True),
        (-3.0, None, False),  # a single question
        (None, None, False),  # of an older version
    ],
)
def test_at_the_floor_is_a_difference_of_at_most_two_of_its_own_errors(
    gain: float | None, error: float | None, expected: bool
) -> None:
    fields = {"selection_gain_percent": gain, "selection_gain_error_percent": error}
    assert is_at_floor(fields) == expected
    assert not is_at_floor({})


def floored(em: float, *, seen: int) -> dict[str, Any]:
    learnt = {
        "selection_baseline": "no_answer",
        "selection_gain_percent": em - 26.5,
        "selection_gain_error_percent": 1.0,
        "train_loss": 2.0,
    }
    return {**report(em, 10, seen=seen), **learnt}


@pytest.mark.parametrize("written", ["off", False], ids=["text", "as-yaml-reads-off"])
def test_the_floor_can_be_off(written: object) -> None:
    scheduler = ParetoAsha.from_options({"grace_examples": 1000, "floor": written})
    judge = scheduler.judge([EM, MEMORY], BUDGET)
    found = [judge.verdict(f"t{index}", floored(em, seen=3000)) for index, em in enumerate((26.5, 28, 28.5))]
    assert found == [Verdict.PAUSE, Verdict.PAUSE, Verdict.GO_ON]


def test_a_sweep_begun_without_baselines_in_its_reports_goes_on_without_a_floor() -> None:
    scheduler = ParetoAsha.from_options({"grace_examples": 1000})
    finished, few_shot = report(50, 10, seen=BUDGET), report(30, 10, seen=0)  # no reports of a rung
    new = scheduler.judge([EM, MEMORY], BUDGET, {"t0": [floored(40, seen=3000), finished], "t1": [few_shot]})
    old = scheduler.judge([EM, MEMORY], BUDGET, {"t0": [report(40, 10, seen=3000), finished]})
    assert [judge.halving.settings.floor for judge in (new, old)] == ["pause", "off"]


def test_a_rung_that_tells_nothing_yet_is_named_with_its_baseline() -> None:
    judge = ParetoAsha.from_options({"grace_examples": 1000}).judge([EM, MEMORY], BUDGET)
    for index in range(3):
        assert judge.silent_rungs() == {}
        judge.verdict(f"t{index}", floored(26.5, seen=3008))
    assert judge.silent_rungs() == {
        3000: "rung 3000 tells nothing yet: 3 of 3 trials at the score of no answer"
    }
    assert judge.why("t0", 3008) == "at the score of no answer"
    judge.verdict("t9", floored(50, seen=1000))
    assert judge.why("t9", 1000) == "fewer than 3 results at this rung"


MODELS = {  # a learning rate of the grid stands for a model: EM and memory
    0.001: (60.0, 6.0),
    0.002: (70.0, 6.1),
    0.003: (40.0, 6.2),  # behind the first two
    0.004: (20.0, 3.0),
    0.005: (10.0, 2.0),  # the poorest and the smallest
}


def _run_toys(folder: Path, small_squad: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch):
    """Run a sweep whose trials look up in `MODELS` what training would find; returns records by learning rate."""
    models = dict(MODELS)

    def toy_trial(values: dict) -> None:  # defined in here, so that it travels to the worker by value
        from ray import tune

        from sweeps.trials.task import from_values

        task = from_values(values)
        train = task.recipe["train"]
        em, memory = models[train["learning_rate"]]
        curve = [
            {
                "examples_seen": seen,
                "budget_examples": train["budget_examples"],
                "train_loss": 1.0,
                "train_seconds": 0.0,
                "selection_em_percent": em * seen / train["budget_examples"],
                "selection_f1_percent": em,
                "memory_mb": memory,
                "memory_batch8_mb": memory,
                "inference_peak_bytes": int(memory * 1e6),
                "weights_bytes": int(memory * 1e6),
                "artifact_bytes": int(memory * 1e6),
            }
            for seen in (*train["rungs"], train["budget_examples"])
        ]
        for progress in curve[:-1]:
            tune.report({**progress, "final": False})
        result = {
            "quality": {"em_percent": em},
            "cost": {"inference_peak_bytes": memory * 1e6, "device": "toy"},
            "curve": curve,
            "cross_domain": {},
            "prerequisites": {},
            "data": {"evaluation": {"data_hash": "toy"}},
            "artifact": task.folder,
        }
        tune.report({**curve[-1], "final": True, "result": result})

    monkeypatch.setattr(ray_driver, "run_trial", toy_trial)
    spec = small_spec(
        folder.parent,
        small_squad,
        scheduler={"name": scheduler, "options": {"grace_examples": 50, "eta": 2}},
        budget={"trials": 5, "examples": 120, "concurrent": 1},
        space=[
            {"set": "model.family", "choice": ["lstm"]},
            {"set": "train.learning_rate", "choice": list(models)},
        ],
    )
    outcome = ray_driver.run_sweep(spec, folder=folder, target=RayTarget(), console=Told(), tracker=Told())
    found = records.load(folder / RECORDS_FILE).records
    front = {point.trial_id for point in outcome.front.front}
    return {
        record.config["train"]["learning_rate"]: (record.status, record.trial_id in front) for record in found
    }


@pytest.mark.slow
def test_in_a_real_sweep_asha_stops_the_small_models_of_the_front_and_pareto_asha_does_not(
    small_squad, tmp_path, monkeypatch
):
    assert _run_toys(tmp_path / "asha", small_squad, "asha", monkeypatch) == {
        0.001: ("ok", True),
        0.002: ("ok", True),
        0.003: ("stopped", False),
        0.004: ("stopped", False),
        0.005: ("stopped", False),
    }
    assert _run_toys(tmp_path / "pareto", small_squad, "pareto_asha", monkeypatch) == {
        0.001: ("ok", True),
        0.002: ("ok", True),
        0.003: ("stopped", False),
        0.004: ("ok", True),
        0.005: ("ok", True),
    }
