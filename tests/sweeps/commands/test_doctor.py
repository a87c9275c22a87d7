"""`doctor`: what a sweep depends on, and which servers other machines reach."""

import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import cli
from sweeps.commands.doctor import is_loopback


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.1.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),  # how a server that listens for both kinds shows IPv4
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:0.0.0.0", False),
        ("::ffff:10.0.0.7", False),
        ("192.168.1.5", False),
        ("fe80::1%eth0", False),
    ],
)
def test_an_address_of_the_loopback_is_known_in_each_of_its_forms(address: str, expected: bool) -> None:
    assert is_loopback(address) == expected


def test_doctor_reports_what_a_sweep_depends_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for start in (
        "system:",
        "cpu:",
        "package: torch",
        "gpu:",
        "kernels: mamba_ssm",
        "threads:",
        "space: runs",
    ):
        assert f"\n{start}" in f"\n{shown}"
    assert "listens beyond the loopback" in shown or "listeners: no server" in shown


def test_doctor_warns_of_a_server_that_other_machines_can_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import socket, sys; s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(); print(s.getsockname()[1], flush=True); sys.stdin.read()"  # noqa: E501
    command = [sys.executable, "-c", code, "raylet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        assert cli.main(["doctor"]) == 0
        assert server.stdin is not None
        server.stdin.close()
    warnings = [line for line in capsys.readouterr().out.splitlines() if "beyond the loopback" in line]
    assert any(port in line and str(server.pid) in line for line in warnings)
