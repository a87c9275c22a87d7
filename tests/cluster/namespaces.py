"""Machines made of Linux namespaces: a bridge without a way out, and hosts on it that share a folder, as on NFS.

A host has its own network, processes, mounts and name; /tmp, /dev/shm, /run, /mnt and root's home are its own. The
root file system, and with it the Python installation, is the machine's. Needs root. Nothing outside is changed: every
interface lies in a namespace of its own and goes with it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TOOLS = ("ip", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "rsync", "setsid")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHARED = "/mnt/qa-sweeps"  # in every host: the folder that all see
SSHD = """Port 22
HostKey /mnt/lab/host_key
AuthorizedKeysFile /mnt/lab/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
"""
# What a host does when it starts; then it waits for the end.
START = r"""set -e
hostname "$NAME"
ip link set lo up
mount -t tmpfs none /mnt
mkdir -p /mnt/qa-sweeps /mnt/lab /mnt/project /mnt/home/.ssh
mount --bind "$LAB/shared" /mnt/qa-sweeps
mount --bind "$LAB" /mnt/lab
mount --bind "$PROJECT" /mnt/project
mount --bind /mnt/lab/passwd /etc/passwd
mount --bind /mnt/lab/shadow /etc/shadow
mount -t tmpfs none /run
mount -t tmpfs -o size=2g none /dev/shm
mount -t tmpfs none /tmp
mkdir -p /run/sshd
echo '[ -f ~/.bashrc ] && . ~/.bashrc' > /mnt/home/.profile
echo "export PATH=$PYTHON:\$PATH OMP_NUM_THREADS=1" > /mnt/home/.bashrc
cd /mnt/project
if [ "$SSH" = yes ]; then "$SSHD_PATH" -f /mnt/lab/sshd_config -E "/mnt/lab/sshd-$NAME.log"; fi
touch "/mnt/lab/ready-$NAME"
exec sleep infinity
"""


def missing() -> str | None:
    """Return why hosts cannot be made here; None when they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces need Linux and root"
    absent = [
        tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:{SYSTEM_PATH}") is None
    ]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True
    ).returncode:
        return "this system does not let root make namespaces"
    if any(Path(place).resolve().is_relative_to("/tmp") for place in (sys.prefix, sys.base_prefix)):
        return "the Python installation lies under /tmp, which each host has for itself"
    return None


@dataclass
class Host:
    """One machine: `init` is the process that everything on it descends from."""

    name: str
    init: int
    unshare: subprocess.Popen = field(repr=False)

    def run(
        self, command: str, *, timeout: float = 600, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on it as root, in the project's folder; output and errors come as one text."""
        known = {
            "HOME": "/mnt/home",
            "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
            "LANG": "C.UTF-8",
        }
        inside = ["nsenter", "--target", str(self.init), "--all", "bash", "-c", f"cd /mnt/project\n{command}"]
        process = subprocess.Popen(
            inside,
            env={**known, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"{self.name}: {command}: no end after {timeout:.0f} s:\n{output[-4000:]}")
        return subprocess.CompletedProcess(command, process.returncode, output)

    def processes(self) -> list[str]:
        """Return the command lines of everything that runs on it, but of what has ended and nobody waits for."""
        return [
            line
            for line in self.run("ps -eo args --no-headers").stdout.splitlines()
            if " -eo args" not in line and "<defunct>" not in line
        ]

    def stop(self) -> None:
        """End all of its processes at once, as a cut power line does."""
        with suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self.unshare.wait(timeout=30)


class Lab:
    """A bridge in a namespace of its own, hosts on it, and a `caller` without ssh that commands start from."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hosts = folder, dict[str, Host]()
        self._tag = f"qa{os.getpid()}"
        self.namespaces: list[str] = []
        (folder / "shared").mkdir(parents=True)
        (folder / "sshd_config").write_text(SSHD)
        entry = "root:x:0:0:root:/mnt/home:/bin/bash\n"
        others = [
            line for line in Path("/etc/passwd").read_text().splitlines(True) if not line.startswith("root:")
        ]
        (folder / "passwd").write_text(entry + "".join(others))
        (folder / "shadow").write_text("root:*:19000:0:99999:7:::\n")
        for key in ("key", "host_key"):
            _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(folder / key))
        self._bridge = self._namespace("lab")
        _do("ip", "-n", self._bridge, "link", "add", "br0", "type", "bridge")
        _do("ip", "-n", self._bridge, "address", "add", f"{address(1)}/24", "dev", "br0")
        for device in ("br0", "lo"):
            _do("ip", "-n", self._bridge, "link", "set", device, "up")
        self.caller = self._start("caller", self._bridge, has_ssh=False)

    def add_host(self, name: str, number: int) -> Host:
        """Start a host with sshd at `address(number)`."""
        inside, outside = self._namespace(name), f"veth{number}"
        _do("ip", "-n", self._bridge, "link", "add", outside, "type", "veth", "peer", "eth0", "netns", inside)
        _do("ip", "-n", self._bridge, "link", "set", outside, "master", "br0", "up")
        _do("ip", "-n", inside, "address", "add", f"{address(number)}/24", "dev", "eth0")
        _do("ip", "-n", inside, "link", "set", "eth0", "up")
        # Ray finds its own address through the default route, which ends at the bridge.
        _do("ip", "-n", inside, "route", "add", "default", "via", address(1))
        return self._start(name, inside, has_ssh=True)

    def cut_off(self, name: str, number: int) -> None:
        """Take a host's cable out and end everything on it."""
        _do("ip", "-n", self._bridge, "link", "set", f"veth{number}", "down")
        self.hosts[name].stop()

    def close(self) -> None:
        """End all hosts and remove all namespaces, whatever state they are in."""
        for host in self.hosts.values():
            host.stop()
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def _namespace(self, name: str) -> str:
        self.namespaces.append(f"{self._tag}-{name}")
        _do("ip", "netns", "add", self.namespaces[-1])
        return self.namespaces[-1]

    def _start(self, name: str, namespace: str, *, has_ssh: bool) -> Host:
        environment = {
            "PATH": SYSTEM_PATH,
            "NAME": name,
            "LAB": str(self.folder),
            "PROJECT": str(PROJECT),
            "PYTHON": str(Path(sys.executable).parent),
            "SSH": "yes" if has_ssh else "no",
            "SSHD_PATH": shutil.which("sshd", path=SYSTEM_PATH) or "sshd",
        }
        separate = ["--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--mount-proc"]
        log = (self.folder / f"start-{name}.log").open("w")
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "unshare", *separate, "bash", "-c", START],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        ready, deadline = self.folder / f"ready-{name}", time.monotonic() + 60
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"host {name} did not start: {Path(log.name).read_text()}")
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self.hosts[name] = Host(name, int(children[0]), process)
        return self.hosts[name]


def address(number: int) -> str:
    """Return the address of a host; 1 is the bridge."""
    return f"10.203.0.{number}"


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """Yield a lab in the folder, and take it away at the end, however the block ends."""
    made = Lab.__new__(Lab)
    made.hosts, made.namespaces = {}, []
    try:
        made.__init__(folder)  # type: ignore[misc]  # what a failing start has made is taken away too
        yield made
    finally:
        made.close()


def _do(*command: str | Sequence[str]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"
