"""Whether somebody computes on a GPU already: a stand-in for the driver's tool says what it holds."""

from pathlib import Path

import pytest

from sweeps.nodes import gpu_use
from sweeps.nodes.gpu_use import GpuUse, read_use, settled_use
from sweeps.nodes.preflight import Preflight, as_report, compare
from sweeps.nodes.report import NodeReport, look

FREE = "0, GPU-aaaa, 400, 40960\n1, GPU-bbbb, 600, 40960\n"
BUSY = "0, GPU-aaaa, 30000, 40960\n1, GPU-bbbb, 600, 40960\n"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a tool on the path that prints the given texts in turn, the last one from then on."""
    monkeypatch.delenv(gpu_use.VISIBLE, raising=False)
    monkeypatch.setattr(gpu_use, "LOOK_SECONDS", 0.01)

    def install(*texts: str, code: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for number, text in enumerate(texts):
            (folder / f"text{number}").write_text(text)
        script = folder / gpu_use.TOOL
        script.write_text(
            f'#!/bin/sh\ncd "{folder}"\necho call >> calls\n'
            f"number=$(($(wc -l < calls) - 1))\n[ $number -lt {len(texts)} ] || number={len(texts) - 1}\n"
            f'while IFS= read -r line; do echo "$line"; done < text$number\nexit {code}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return folder / "calls"

    return install


def test_the_use_of_each_gpu_is_read(tool) -> None:
    tool(BUSY)
    assert read_use() == (GpuUse(0, 30000 * 2**20, 40960 * 2**20), GpuUse(1, 600 * 2**20, 40960 * 2**20))
    assert [gpu.is_busy for gpu in read_use()] == [True, False]


@pytest.mark.parametrize(
    ("visible", "indices"),
    [("1", [1]), ("GPU-aaaa", [0]), ("GPU-b", [1]), ("1,0", [0, 1]), ("", []), ("10", [])],
)
def test_a_gpu_that_is_hidden_from_this_process_does_not_count(tool, visible, indices, monkeypatch) -> None:
    tool(FREE)
    monkeypatch.setenv(gpu_use.VISIBLE, visible)
    assert [gpu.index for gpu in read_use()] == indices


@pytest.mark.parametrize("text", ["", "No devices were found\n", "0, GPU-a, [N/A], 40960\n"])
def test_an_answer_that_cannot_be_read_says_nothing(tool, text) -> None:
    tool(text)
    assert read_use() == ()


def test_a_tool_that_fails_or_is_missing_says_nothing(tool, tmp_path, monkeypatch) -> None:
    tool(FREE, code=9)
    assert read_use() == ()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert read_use() == ()


def test_a_gpu_that_becomes_free_is_waited_for(tool) -> None:
    calls = tool(BUSY, BUSY, FREE)
    assert not any(gpu.is_busy for gpu in settled_use(wait_seconds=30.0))
    assert len(calls.read_text().splitlines()) == 3


def test_a_gpu_that_stays_busy_is_not_waited_for_for_ever(tool) -> None:
    tool(BUSY)
    assert settled_use(wait_seconds=0.05)[0].is_busy


def test_a_node_says_it_and_a_sweep_that_wants_gpus_is_refused_unless_told_otherwise(
    tool, monkeypatch
) -> None:
    tool(BUSY)
    monkeypatch.setattr(gpu_use, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr("sweeps.nodes.report.settled_use", lambda: settled_use(wait_seconds=0.0))
    report = as_report(look({"wants_gpus": True}), NodeReport("aa", True))
    assert report.failure is None
    assert [gpu.index for gpu in report.gpu_use] == [0, 1]
    (finding,) = compare([report], wants_gpus=True)
    assert finding.is_difference
    assert finding.text == (
        "node aa: GPU 0: found 31.5 of 42.9 GB in use before the first trial; allowed: 10% or less, so that nobody "
        "else's process changes what trials measure"
    )
    assert compare([report], wants_gpus=False) == ()
    assert look({}).get("gpu_use") is None
    assert Preflight(allow_mixed=True, wants_gpus=True).settle([report]).mixed == (finding.text,)
