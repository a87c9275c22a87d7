"""Which tests start Ray: two workers of pytest-xdist run them in two sequences, while the others run all else.

Such a test mostly waits: for Ray, for workers that import, for a process that it killed. Two at once fill that time.

The names are listed and not marked: xdist's own groups of marked tests are lost with pytest 9.2 (pytest-xdist #1386),
and they put the group's name behind ids, which then cannot be pasted back.
"""

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
        "tests/sweeps/trials/test_signals.py",
        "tests/sweeps/trials/test_soak.py",
    ),
)


class RayOnTwoWorkers(LoadScopeScheduling):
    """Hands out single tests, and the sequences of those that start Ray whole and first, as they are the largest."""

    def _split_scope(self, nodeid: str) -> str:
        for number, beginnings in enumerate(SEQUENCES):
            if nodeid.startswith(beginnings):
                return f"sequence {number}"
        return nodeid
