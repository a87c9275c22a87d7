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
