"""`upload`: a copy of a sweep's folder where it outlives the cluster, through pyarrow's file systems.

A sweep itself writes to plain folders; on a cluster these lie on a file system that every node mounts.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from qa_core import files
from qa_core.errors import ConfigError, DataError, StorageError
from sweeps.run_folder.journal import held
from sweeps.run_folder.layout import DRIVER_LOCK, RAY_FOLDER, SPEC_FILE, RunFolder
from sweeps.run_folder.masking import masked_text, printable

LEFT_OUT = (RAY_FOLDER, DRIVER_LOCK)  # of the folder's entries: what Ray wrote for itself, and the lock


def upload(run_dir: Path, url: str) -> int:
    """Copy the folder to the URL and check that everything arrived; files of the same names are replaced.

    Links are left out, each with a line: what they lead to may be anything of this machine.

    Args:
        run_dir: a sweep's folder, finished or interrupted; what is there can be resumed after a copy back.
        url: `s3://BUCKET/PATH`, `gs://BUCKET/PATH` or `file:///PATH`, with the options that pyarrow reads from it.

    Raises:
        DataError: it is not the folder of a sweep.
        ConfigError: the URL is not one that pyarrow knows.
        StorageError: the sweep is running, or a file did not arrive whole; what arrived stays.
    """
    from pyarrow import fs

    if not files.is_file(RunFolder(run_dir).spec):
        raise DataError(f"{run_dir}: is not the folder of a sweep: it has no {SPEC_FILE}")
    try:
        target, base = fs.FileSystem.from_uri(url)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"URL: found {url!r}; allowed: s3://, gs:// or file:/// with a path: {error}"
        ) from error
    with held(run_dir):
        for link in files.links_below(run_dir):
            print(f"left out: {printable(str(link))}: a link")
        sizes = dict(_sizes(run_dir))
        try:
            target.create_dir(base, recursive=True)
            for folder in sorted({str(PurePosixPath(name).parent) for name in sizes} - {"."}):
                target.create_dir(f"{base}/{folder}", recursive=True)
            for name in sizes:
                fs.copy_files(str(run_dir / name), f"{base}/{name}", destination_filesystem=target)
            arrived = dict(_arrived(target, base))
        except OSError as error:
            raise StorageError(f"{url}: cannot be written: {error}") from error
    for name, size in sizes.items():
        if arrived.get(name) != size:
            raise StorageError(f"{url}: {name} has {arrived.get(name, 'no')} bytes there and {size} here")
    print(f"{masked_text(url)}: {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB")
    return 0


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name and bytes of each file to copy; no link is followed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for file in sorted(names):
            path = Path(root) / file
            name = path.relative_to(folder).as_posix()
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and name.split("/", 1)[0] not in LEFT_OUT:
                yield name, found.st_size


def _arrived(target: Any, base: str) -> Iterator[tuple[str, int]]:
    from pyarrow import fs

    for info in target.get_file_info(fs.FileSelector(base, recursive=True)):
        if info.is_file:
            yield info.path.removeprefix(f"{base.rstrip('/')}/"), info.size
