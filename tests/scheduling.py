"""Which tests start Ray: two workers of pytest-xdist run them in two sequences, while the others run all else.

All else goes to workers by class or module, so that a network or a store that several tests read is made once and not
once in each worker.

Such a test mostly waits: for Ray, for workers that import, for a process that it killed. Two at once fill that time.

The names are listed and not marked: xdist's own groups of marked tests are lost with pytest 9.2 (pytest-xdist #1386),
and they put the group's name behind ids, which then cannot be pasted back.
"""

from typing import Any

from xdist.scheduler import LoadScopeScheduling

SEQUENCES = (  # of beginnings of ids, about equally long; a worker each
    (
        "tests/cluster/test_chaos.py",
        "tests/cluster/test_local_up.py",
        "tests/compatibility/test_compatibility.py::test_the_interrupted_sweep_is_resumed",
        "tests/sweeps/nodes/test_survey.py",
        "tests/sweeps/replay/test_replay_of_records.py::test_the_records_of_live_sweeps_replay_to_their_own_verdicts",
        "tests/sweeps/schedulers/test_pareto_asha.py::test_in_a_real_sweep",
        "tests/sweeps/trials/test_faults.py::test_a_sweep_whose_front_cannot_be_renewed",
        "tests/sweeps/trials/test_full_disk.py",
        "tests/sweeps/trials/test_resume.py",
    ),
    (
        "tests/qa_sweeps/test_notebook.py",
        "tests/qa_sweeps/test_run.py",
        "tests/sweeps/trials/test_ray_driver.py",
        "tests/sweeps/trials/test_ray_losses.py",
        "tests/sweeps/trials/test_ray_resources.py",
        "tests/sweeps/trials/test_signals.py",
        "tests/sweeps/trials/test_soak.py",
    ),
)


class RayOnTwoWorkers(LoadScopeScheduling):
    """Hands out the sequences of tests that start Ray first, then classes and modules whole, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        for number, beginnings in enumerate(SEQUENCES):
            if nodeid.startswith(beginnings):
                return _name(number)
        return nodeid.partition("[")[0].rpartition("::")[0]

    def _assign_work_unit(self, node: Any) -> None:
        for number in reversed(range(len(SEQUENCES))):
            if _name(number) in self.workqueue:
                self.workqueue.move_to_end(_name(number), last=False)
        super()._assign_work_unit(node)


def _name(sequence: int) -> str:
    return f"sequence {sequence}"
