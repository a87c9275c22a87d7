"""What a node says of itself: devices only where it is asked, and free disk where a folder is yet to be made."""

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qa_core import hardware
from sweeps.nodes import report as node_report
from sweeps.nodes.preflight import as_report
from sweeps.nodes.report import CUDA_KERNELS, PROJECT_SOURCE, NodeReport, Request, look
from sweeps.run_folder import provenance


def test_versions_and_sources_are_those_of_the_process_that_answers(tmp_path: Path) -> None:
    found = look(asdict(Request()))
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["versions"]["torch"] == provenance.package_versions()["torch"] is not None
    assert found["versions"][PROJECT_SOURCE] == provenance.source_hash()
    assert "device" not in found
    assert "words" not in found


def test_sources_and_networks_are_known_by_name_and_content(tmp_path: Path) -> None:
    for package in ("qa_core", "sweeps"):
        (tmp_path / package / "inner").mkdir(parents=True)
        (tmp_path / package / "inner" / "module.py").write_text("x = 1\n")
    seen = {provenance.source_hash(tmp_path)}
    (tmp_path / "sweeps" / "inner" / "notes.txt").write_text("not a source")
    assert provenance.source_hash(tmp_path) in seen
    (tmp_path / "sweeps" / "inner" / "module.py").write_text("x = 2\n")
    seen.add(provenance.source_hash(tmp_path))
    (tmp_path / "sweeps" / "inner" / "module.py").rename(tmp_path / "sweeps" / "module.py")
    seen.add(provenance.source_hash(tmp_path))
    for content in (b"weights", b"others"):
        (tmp_path / "qa_core" / "inner" / "model.safetensors").write_bytes(content)
        seen.add(provenance.source_hash(tmp_path))
    assert len(seen) == 5


def test_free_disk_is_that_of_the_nearest_folder_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=7))
    folders = {"run folder": str(tmp_path), "cache folder": str(tmp_path / "not" / "yet")}
    found = look(asdict(Request(folders=folders)))
    assert found["free_bytes"] == {"run folder": 7, "cache folder": 7}
    assert asked == [tmp_path, tmp_path]


@pytest.mark.parametrize(("wanted", "device"), [("auto", "cuda: Some GPU"), ("cpu", "cpu: ")])
def test_gpus_are_described_as_torch_sees_them(
    wanted: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = SimpleNamespace(name="Some GPU", total_memory=24 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: gpu.name)
    monkeypatch.setattr(hardware, "_computes_in_bfloat16", lambda device_type: device_type == "cuda")

    def import_module(name: str) -> None:
        if name == "mamba_ssm":
            raise OSError("undefined symbol: _ZN2at4_ops5zeros4callE")

    monkeypatch.setattr(node_report.importlib, "import_module", import_module)
    report = as_report(look(asdict(Request(device=wanted))), NodeReport("aa", True))
    assert report.failure is None
    assert str(report.device).startswith(device)
    assert report.bfloat16 is (wanted == "auto")
    assert [(item.name, item.memory_bytes) for item in report.gpus or ()] == [("Some GPU", 24 * 10**9)] * 2
    assert report.kernels == {name: name != "mamba_ssm" for name in CUDA_KERNELS}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_kernels_are_not_judged() -> None:
    report = as_report(look(asdict(Request(device="auto"))), NodeReport("aa", True))
    assert (report.gpus, report.kernels) == ((), None)
    assert str(report.device).startswith("cpu: ")
