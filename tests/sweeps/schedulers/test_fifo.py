"""No early stopping: the contract, and where trials report."""

import pytest

from qa_core.errors import ConfigError
from sweeps.schedulers.fifo import Fifo
from tests.contracts.scheduler import SchedulerContract, decide


class TestFifo(SchedulerContract):
    name = "fifo"

    def test_no_trial_is_ever_stopped(self) -> None:
        decisions = decide(self.make(), [1.0, 90.0, 0.0, 45.0])
        assert decisions == {f"t{index}": ["CONTINUE"] * 4 for index in range(4)}


@pytest.mark.parametrize(
    ("reports", "budget", "expected"),
    [(3, 9000, (2250, 4500, 6750)), (2, 100, (33, 67)), (0, 100, ()), (1, 1, ()), (9, 3, (1, 2))],
)
def test_reports_cut_the_budget_into_equal_parts(
    reports: int, budget: int, expected: tuple[int, ...]
) -> None:
    assert Fifo.from_options({"reports": reports}).rungs(budget) == expected


def test_a_negative_number_of_reports_is_refused() -> None:
    with pytest.raises(ConfigError, match="reports: found -1; allowed: 0 or more"):
        Fifo.from_options({"reports": -1})


def test_reports_at_named_points_are_kept_below_the_budget() -> None:
    named = Fifo.from_options({"at": [900, 100, 300], "reports": 7})
    assert named.rungs(900) == (100, 300)
    assert named.rungs(901) == (100, 300, 900)


def test_a_point_before_the_first_example_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at: found \[0, 5\]; allowed: each 1 or more, or null"):
        Fifo.from_options({"at": [0, 5]})
