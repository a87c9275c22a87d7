"""The script for a machine with a GPU: limits, failures and rows of its steps, and those that a CPU can run."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu

ROW = "print('{\"value\": 1}', flush=True)"


def step(name: str, code: str, seconds: float = 20.0) -> tuple[str, list[str], float]:
    return name, [sys.executable, "-c", code], seconds


def written(out: Path) -> dict[str, dict[str, Any]]:
    return {item["step"]: item for item in json.loads(out.read_text())["steps"]}


def test_a_step_that_fails_or_is_cut_short_keeps_its_rows_and_the_next_one_runs(tmp_path: Path) -> None:
    out = tmp_path / "of a folder" / "gpu.json"
    hanging = (
        "import subprocess, sys; "
        + ROW
        + "; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    started = time.monotonic()
    gpu.run_steps(
        [
            step("falls", f"{ROW}; raise SystemExit('no kernel')"),
            step("hangs", hanging, 2.0),
            step("skips", "print('a library speaks'); print('{\"skipped\": \"needs a CUDA device\"}')"),
            step("works", f"{ROW}; {ROW}"),
        ],
        out,
    )
    assert time.monotonic() - started < 30, "what a step started ends with it"
    found = written(out)
    assert {name: item["status"] for name, item in found.items()} == {
        "falls": "failed",
        "hangs": "cut short",
        "skips": "skipped",
        "works": "done",
    }
    assert {name: len(item["rows"]) for name, item in found.items()} == {
        "falls": 1,
        "hangs": 1,
        "skips": 0,
        "works": 2,
    }
    assert found["falls"]["why"] == ["no kernel"]
    assert found["hangs"]["why"] == ["at its limit of 2 s"]
    assert found["skips"]["why"] == ["needs a CUDA device"]


def test_the_rows_of_a_step_are_in_the_file_before_it_ends(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    reads = (
        f"import json, time; {ROW}; time.sleep(1); print(json.dumps(dict(found=open({str(out)!r}).read())))"
    )
    (outcome,) = gpu.run_steps([step("reads", reads)], out)
    assert outcome.status == "done", outcome.why
    assert json.loads(outcome.rows[1]["found"])["steps"][0]["rows"] == [{"value": 1}]


def test_steps_for_which_no_time_is_left_are_named(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    gpu.run_steps([step("long", "import time; time.sleep(60)"), step("late", ROW)], out, limit_seconds=1.0)
    found = written(out)
    assert found["long"]["status"] == "cut short"
    assert (found["late"]["status"], found["late"]["why"]) == ("skipped", ["no time left of 1 s"])


@pytest.mark.long
def test_all_steps_fit_into_the_limit_and_each_has_one() -> None:
    from benchmarks.gpu_steps import STEPS

    assert set(gpu.STEPS) == set(STEPS)
    assert sum(gpu.STEPS.values()) <= gpu.LIMIT_SECONDS == 480


@pytest.mark.long
def test_a_cpu_stands_in_for_the_steps_but_for_those_that_need_cuda() -> None:
    import torch

    from benchmarks.gpu_steps import STEPS

    if torch.cuda.is_available():
        pytest.skip("a GPU is here: `make gpu` runs the steps themselves")
    rows = {name: list(make(small=True)) for name, make in STEPS.items()}
    (memory,) = rows["memory"]
    for what in ("inference", "inference_batch8", "training"):
        assert memory[f"predicted_{what}_mb"] == memory[f"measured_{what}_mb"] > 0
    assert rows["ours"][0]["tokens"] == rows["trainer"][0]["tokens"] == 64
    assert all(rows[name][0]["examples_per_second"] > 0 for name in ("ours", "trainer"))
    assert [row["encoding"] for row in rows["decode"]] == ["nf4", "nf4, double quantisation", "int8"]
    assert all(row["difference"] < 1e-5 < row["error_of_ours"] for row in rows["decode"])
    assert [row["path"] for row in rows["mamba"]] == ["project-scan", "mamba-ssm"]
    assert rows["mamba"][1]["not_measured"] == "needs a CUDA device and the extra gpu"
    assert rows["sweep"] == rows["tests"] == [{"skipped": "needs a CUDA device"}]
