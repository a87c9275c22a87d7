"""Two workers run all tests that start Ray, and the lists of them name tests that are there."""

import ast
import re
from pathlib import Path

import pytest

from tests.scheduling import SEQUENCES

PROJECT = Path(__file__).resolve().parents[1]


STARTS_RAY = [beginning for beginnings in SEQUENCES for beginning in beginnings]


def test_one_worker_runs_a_sequence_of_tests_that_start_ray(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    pytester.makeconftest(
        """
        import tests.scheduling
        tests.scheduling.SEQUENCES = (("test_one.py", "test_two.py::test_first"), ("test_four.py",))
        from tests.conftest import pytest_xdist_make_scheduler
        """
    )
    text = """
        import os, time
        from pathlib import Path
        import pytest
        @pytest.mark.parametrize("number", range(4))
        @pytest.mark.parametrize("name", ["{name}"])
        def test_first(name, number):
            time.sleep(0.1)
            Path(name + "-" + os.environ["PYTEST_XDIST_WORKER"]).touch()
        """
    pytester.makepyfile(
        **{name: text.format(name=name) for name in ("test_one", "test_two", "test_four", "test_other")}
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "3", "--dist", "loadgroup", "-v")
    done.assert_outcomes(passed=16)
    written = {path.name for path in pytester.path.glob("test_*-gw?")}
    (first,) = {name[-3:] for name in written if name.startswith(("test_one", "test_two"))}
    (second,) = {name[-3:] for name in written if name.startswith("test_four")}
    (other,) = {"gw0", "gw1", "gw2"} - {first, second}
    assert f"test_other-{other}" in written
    assert "@" not in " ".join(line for line in done.outlines if "PASSED" in line)


def test_every_test_of_the_list_is_there() -> None:
    for item in STARTS_RAY:
        file, _, name = item.partition("::")
        defined = [
            node.name
            for node in ast.parse((PROJECT / file).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith(name or "test_")
        ]
        assert defined, item


def test_every_module_that_runs_a_sweep_is_in_the_list() -> None:
    runs = re.compile(r"\b(run_sweep\(\s*spec|(Long)?Sweep\(|Cluster\(initialize_head)")
    found = {
        path.relative_to(PROJECT).as_posix()
        for path in (PROJECT / "tests").rglob("test_*.py")
        if runs.search(path.read_text(encoding="utf-8"))
    }
    assert len(found) >= 8
    assert found <= {item.partition("::")[0] for item in STARTS_RAY}
