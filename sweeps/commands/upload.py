"""`upload`: a copy of a sweep's folder where it outlives the cluster, through pyarrow's file systems.

A sweep itself writes to plain folders; on a cluster these lie on a file system that every node mounts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qa_core.errors import ConfigError, DataError, StorageError
from sweeps.journal import LOCK_FILE, held
from sweeps.spec import SPEC_FILE

LEFT_OUT = ("ray", LOCK_FILE)  # of the folder's entries: what Ray wrote for itself, and the lock


def upload(run_dir: Path, url: str) -> int:
    """Copy the folder to the URL and check that everything arrived; files of the same names are replaced.

    Args:
        run_dir: a sweep's folder, finished or interrupted; what is there can be resumed after a copy back.
        url: `s3://BUCKET/PATH`, `gs://BUCKET/PATH` or `file:///PATH`, with the options that pyarrow reads from it.

    Raises:
        DataError: it is not the folder of a sweep.
        ConfigError: the URL is not one that pyarrow knows.
        StorageError: the sweep is running, or a file did not arrive whole; what arrived stays.
    """
    from pyarrow import fs

    if not (run_dir / SPEC_FILE).is_file():
        raise DataError(f"{run_dir}: is not the folder of a sweep: it has no {SPEC_FILE}")
    try:
        target, base = fs.FileSystem.from_uri(url)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"URL: found {url!r}; allowed: s3://, gs:// or file:/// with a path: {error}"
        ) from error
    with held(run_dir):
        sizes = dict(_sizes(run_dir))
        try:
            target.create_dir(base, recursive=True)
            for entry in sorted({name.split("/", 1)[0] for name in sizes}):
                fs.copy_files(str(run_dir / entry), f"{base}/{entry}", destination_filesystem=target)
            arrived = dict(_arrived(target, base))
        except OSError as error:
            raise StorageError(f"{url}: cannot be written: {error}") from error
    for name, size in sizes.items():
        if arrived.get(name) != size:
            raise StorageError(f"{url}: {name} has {arrived.get(name, 'no')} bytes there and {size} here")
    print(f"{url}: {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB")
    return 0


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name and bytes of each file to copy."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name.split("/", 1)[0] not in LEFT_OUT:
            yield name, path.stat().st_size


def _arrived(target: Any, base: str) -> Iterator[tuple[str, int]]:
    from pyarrow import fs

    for info in target.get_file_info(fs.FileSelector(base, recursive=True)):
        if info.is_file:
            yield info.path.removeprefix(f"{base.rstrip('/')}/"), info.size
