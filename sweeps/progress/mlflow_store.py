"""The store in which sweeps are mirrored: where it lies, how it is opened, and how it follows a folder that moved.

The embedded store is a SQLite file beside the run folders, with the artifacts beside it. It holds absolute addresses of
artifacts, so a folder that was moved or copied names the former place until `reroot` has put in its own. Another
database, such as PostgreSQL, may be shared by several folders and machines. What is written into a store:
`mlflow_runs.py`.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core import files
from qa_core.data.cache import default_cache_dir
from qa_core.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from sqlalchemy.engine import URL

EXPERIMENT = "qa-sweeps"
STORE_FILE, ARTIFACTS, LOCK_FILE = "mlflow.db", "mlartifacts", "mlflow.lock"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # that MLflow takes
POSTGRES_DRIVERS = ("psycopg2", "psycopg")
STORE_ATTEMPTS = 3  # of MLflow itself, to open a database
LOCK_SECONDS = 30.0  # for another sweep that makes the tables of the same database
# Columns of MLflow's tables that hold addresses of artifacts.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
LONGEST_ARTIFACT_URI = 200  # characters of a column, which every database but SQLite holds to
ARTIFACTS_OF_RUN = f"/{'0' * 32}/artifacts"  # what MLflow puts behind the address of an experiment
CONNECT_SECONDS = 10  # for a database on another machine; libpq's default is the system's, over two minutes
STORES = (
    "http://HOST:PORT of a running server, sqlite:///FILE, postgresql://USER@HOST/DATABASE with its password in "
    "~/.pgpass or PGPASSWORD"
)
FORMER_PLACE = re.compile(rf"(file://.*/{ARTIFACTS})(?:/|$)")


def default_tracking_uri(run_folder: Path) -> str:
    """Return the embedded store's address: a SQLite file beside all run folders, for one UI over them all."""
    return tracking_uri_in(run_folder.resolve().parent)


def tracking_uri_in(folder: Path) -> str:
    """Return the address of the embedded store in a folder of run folders."""
    return _address_of(folder.resolve() / STORE_FILE)


def _address_of(file: Path) -> str:
    """Return the address of a SQLite file."""
    from sqlalchemy.engine import URL

    # SQLAlchemy's own form: characters that mean something in an address are quoted as the reader expects them.
    return URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)


def sqlite_file(tracking_uri: str) -> Path | None:
    """Return the file of a SQLite store; None of other stores and of addresses that cannot be read."""
    url = database_url(tracking_uri)
    return Path(url.database) if url and url.get_backend_name() == "sqlite" and url.database else None


def database_url(tracking_uri: str) -> "URL | None":
    """Return the parts of a database's address; None of servers and of addresses that cannot be read."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(tracking_uri)
    except (ArgumentError, ValueError):  # the second: of a port
        return None
    return url if url.get_backend_name() in DATABASES else None


@dataclass(frozen=True)
class Store:
    """An opened store.

    Attributes:
        tracking_uri: with which it was opened, and which other programs can open it with.
        client: of it.
        artifacts: address of the folder of artifacts; None: a server knows its own place.
        longest_artifact_uri: characters that the store takes of the address of a run's artifacts; None: any number.
        lock: held while something is made that two sweeps would make at once.
    """

    tracking_uri: str
    client: "MlflowClient"
    artifacts: str | None
    longest_artifact_uri: int | None
    lock: Path

    def experiment_id(self, name: str) -> str:
        """Return the experiment of a name, made where there is none and restored where it was deleted.

        Raises:
            ConfigError: the folder's path is too long for this database.
            Exception: whatever MLflow or its database raise.
        """
        from filelock import FileLock

        with FileLock(self.lock, timeout=LOCK_SECONDS):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                return self._made(name)
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def _made(self, name: str) -> str:
        """Make an experiment, unless another folder's sweep has, which our lock does not hold."""
        from mlflow.exceptions import MlflowException

        uri = f"{self.artifacts}{ARTIFACTS_OF_RUN}"
        if self.longest_artifact_uri is not None and len(uri) > self.longest_artifact_uri:
            raise ConfigError(
                f"{self.artifacts}: with a run's name the address of its artifacts has {len(uri)} characters; "
                f"allowed: {self.longest_artifact_uri} in this database; take a folder with a shorter path, or a server"
            )
        try:
            return str(self.client.create_experiment(name, artifact_location=self.artifacts))
        except MlflowException as error:
            found = self.client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return str(found.experiment_id)


def open_store(tracking_uri: str, root: Path) -> Store:
    """Return a store, whose tables are made where they are missing.

    Args:
        tracking_uri: of a server or a database.
        root: folder of the run folders; the embedded store lies there, and a lock file.

    Raises:
        ConfigError: the package through which this database is spoken to is missing.
        Exception: whatever MLflow or its database raise.
    """
    root.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock

    url = database_url(tracking_uri)
    # Two sweeps that start at once would both create the tables of a new database.
    with FileLock(root / LOCK_FILE, timeout=LOCK_SECONDS):
        file = sqlite_file(tracking_uri)
        if file is not None and not file.exists():
            with suppress(StorageError, OSError, sqlite3.Error):  # MLflow makes its tables then, in seconds
                _copy(empty_store(), file)
        client = client_of(tracking_uri)
        if file == root / STORE_FILE:
            reroot(root)
    # Without a location, a database's artifacts go to ./mlruns; a server knows its own place.
    location = None if url is None else (root / ARTIFACTS).as_uri()
    is_bounded = url is not None and url.get_backend_name() != "sqlite"
    longest = LONGEST_ARTIFACT_URI if is_bounded else None
    return Store(with_driver(tracking_uri), client, location, longest, root / LOCK_FILE)


def empty_store() -> Path:
    """Return a SQLite file with the tables of this version of MLflow and nothing in them, which is made once.

    MLflow makes its tables by all migrations since its first version, which takes seconds of CPU; a copy of such a
    file takes none. It lies in the cache folder and is made again where it is damaged.

    Raises:
        StorageError: the cache folder cannot be written, or another process takes too long with it.
    """
    folder = files.check_writable(default_cache_dir())
    file = folder / f"mlflow-{version('mlflow')}-empty.db"
    busy = StorageError(f"{file}: another process has been making it for {LOCK_SECONDS:g} s")
    with files.locked(file.with_suffix(".lock"), seconds=LOCK_SECONDS, busy=busy):
        if not _is_empty_store(file):
            with files.written_file(file) as aside:
                client_of(_address_of(aside))
                # The default experiment names a folder: each store makes its own.
                with closing(sqlite3.connect(aside)) as base, base:
                    base.execute("DELETE FROM experiments")
    return file


def _is_empty_store(file: Path) -> bool:
    """Tell whether a file has the tables of a store and no experiment; False where it is not there or damaged."""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as base:
            is_whole = base.execute("PRAGMA quick_check").fetchone() == ("ok",)
            versions = base.execute("SELECT count(*) FROM alembic_version").fetchone()
            experiments = base.execute("SELECT count(*) FROM experiments").fetchone()
    except sqlite3.Error:
        return False
    return is_whole and (versions, experiments) == ((1,), (0,))


def _copy(store: Path, to: Path) -> None:
    """Copy a SQLite file to a place where none is, whole or not at all."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with (
        files.written_file(to) as aside,
        closing(sqlite3.connect(store)) as source,
        closing(sqlite3.connect(aside)) as copy,
    ):
        source.backup(copy)


def client_of(tracking_uri: str) -> "MlflowClient":
    """Return a client of a store, whose tables are made where they are missing; errors are those of `open_store`."""
    prepare_mlflow()
    from mlflow import MlflowClient

    uri = with_driver(tracking_uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def with_driver(tracking_uri: str) -> str:
    """Return the address of a PostgreSQL database with a driver that is installed, unless it names one.

    Which one SQLAlchemy takes without a name depends on its version.

    Raises:
        ConfigError: none is installed, or not the named one.
    """
    url = database_url(tracking_uri)
    if url is None or url.get_backend_name() != "postgresql":
        return tracking_uri
    named = url.drivername.partition("+")[2]
    for driver in [named] if named else POSTGRES_DRIVERS:
        if find_spec(driver) is not None:
            return url.set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)
    raise ConfigError(
        f"found no package {named or ' or '.join(POSTGRES_DRIVERS)}, through which it would be spoken to: "
        "pip install 'qa-sweeps[postgres]'"
    )


def reroot(root: Path) -> int:
    """Let the embedded store of a folder name artifacts in this folder, wherever it was when they were written.

    Addresses that are not of an embedded store, such as those of a bucket, stay. Nothing happens in a folder that has
    not moved.

    Returns:
        How many addresses were changed.

    Raises:
        StorageError: the store is not there, is no store of MLflow, or cannot be written.
    """
    file = root.resolve() / STORE_FILE
    if not file.is_file():
        raise StorageError(f"{file}: found no such file; a sweep in {root} makes it")
    here = (root.resolve() / ARTIFACTS).as_uri()
    try:
        with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as base, base:
            return sum(_moved(base, former, here) for former in sorted(_former_places(base) - {here}))
    except sqlite3.Error as error:
        raise StorageError(f"{file}: cannot be used as a store of MLflow: {error}") from error


def experiment_in(root: Path) -> str | None:
    """Return the id of the sweeps' experiment in the embedded store of a folder; None: it has none."""
    with closing(sqlite3.connect(root.resolve() / STORE_FILE, timeout=LOCK_SECONDS)) as base:
        found = base.execute("SELECT experiment_id FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
    return None if found is None else str(found[0])


def experiment_at(tracking_uri: str) -> str | None:
    """Return the id of the sweeps' experiment in a store; None: it has none. Errors are those of `open_store`."""
    found = client_of(tracking_uri).get_experiment_by_name(EXPERIMENT)
    return None if found is None else str(found.experiment_id)


def _former_places(base: sqlite3.Connection) -> set[str]:
    rows = base.execute(
        "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location IS NOT NULL"
    )
    found = (FORMER_PLACE.match(str(location)) for (location,) in rows)
    return {match.group(1) for match in found if match}


def _moved(base: sqlite3.Connection, former: str, here: str) -> int:
    """Put one folder in the place of another at the beginning of every address."""
    changed = 0
    for table, column in _present(base):
        done = base.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # names of ADDRESSES alone
            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (here, len(former) + 1, former, len(former) + 1, f"{former}/"),
        )
        changed += done.rowcount
    return changed


def _present(base: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield the columns of `ADDRESSES` that this version of MLflow's tables has."""
    for table, column in ADDRESSES:
        columns = base.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
        if (column,) in columns:
            yield table, column


def prepare_mlflow() -> None:
    """Import MLflow so that it sends no usage data, soon gives up on a dead server and is quiet."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("PGCONNECT_TIMEOUT", str(CONNECT_SECONDS))
    import mlflow  # noqa: F401 - sets up its own logging on import
    from mlflow.store.db import utils

    # No option sets it; by default, a damaged database costs 100 seconds.
    utils.MAX_RETRY_COUNT = STORE_ATTEMPTS
    # It takes a quoted address for a path, and would make a folder of that name beside the true one.
    utils._make_parent_dirs_if_sqlite = _make_folder_of

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs each attempt and each failure over many lines; ours is one line, and its traceback is in a file.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _make_folder_of(db_uri: str) -> None:
    """Make the folder of a SQLite store."""
    file = sqlite_file(db_uri)
    if file is not None and str(file) != ":memory:":
        file.parent.mkdir(parents=True, exist_ok=True)
