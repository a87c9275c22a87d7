"""Two workers run all tests that start Ray; the lists of these and of costly ones name tests that are there."""

import ast
import re
from pathlib import Path

import pytest

from tests.costly import COSTLY
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
    assert {name for name in written if name.startswith("test_other")} == {f"test_other-{other}"}
    assert "@" not in " ".join(line for line in done.outlines if "PASSED" in line)


@pytest.mark.parametrize("listed", [STARTS_RAY, list(COSTLY)], ids=["ray", "costly"])
def test_every_test_of_a_list_is_there(listed: list[str]) -> None:
    assert listed == sorted(set(listed), key=listed.index)
    for item in listed:
        file, _, name = item.partition("::")
        wanted = re.split(r"\[|::", name)[0]
        defined = [
            node.name
            for node in ast.parse((PROJECT / file).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith(wanted or "test_")
        ]
        assert defined, item


def test_a_costly_test_is_left_out_unless_it_is_asked_for(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    pytester.makeconftest(
        """
        import tests.costly
        tests.costly.COSTLY = ("test_one.py::test_first[2]",)
        from tests.conftest import pytest_collection_modifyitems
        """
    )
    text = "import pytest\n@pytest.mark.parametrize('number', [1, 2])\ndef test_first(number): pass"
    pytester.makepyfile(test_one=text)
    for expression, passed in (("not costly", 1), ("costly", 1), ("", 2)):
        done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-m", expression, "-v")
        done.assert_outcomes(passed=passed, deselected=2 - passed)
        assert ("test_first[2] PASSED" in done.stdout.str()) == (expression != "not costly")


def test_every_module_that_runs_a_sweep_is_in_the_list() -> None:
    runs = re.compile(r"\b(run_sweep\(\s*spec|(Long)?Sweep\(|Cluster\(initialize_head)")
    found = {
        path.relative_to(PROJECT).as_posix()
        for path in (PROJECT / "tests").rglob("test_*.py")
        if runs.search(path.read_text(encoding="utf-8"))
    }
    assert len(found) >= 8
    assert found <= {item.partition("::")[0] for item in STARTS_RAY}
