"""Which version of a pretrained network a name stood for: its commit on the hub, or the hashes of its files."""

import hashlib
from pathlib import Path
from typing import Any

PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json")


def checkpoint_identity(checkpoint: str, *, place: str | None = None) -> dict[str, Any]:
    """Return JSON values that tell two versions of a checkpoint apart, once it has been loaded.

    `revision` is the commit of the hub's `main` that lies in the cache; None for a folder, or where none lies there.
    `sha256` maps each weight and configuration file of a folder to its hash; it is empty for a hub name.

    Args:
        checkpoint: the name in the recipe.
        place: the folder that the name stands for; None: the name is that of the folder, or the hub's.
    """
    folder = Path(place or checkpoint).expanduser()
    if folder.is_dir():
        files = sorted({file for pattern in PATTERNS for file in folder.glob(pattern) if file.is_file()})
        return {"name": checkpoint, "revision": None, "sha256": {file.name: _sha256(file) for file in files}}
    return {"name": checkpoint, "revision": _cached_commit(checkpoint), "sha256": {}}


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _cached_commit(name: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # no name of the hub
        return None
    # CACHE/models--ORGANISATION--NAME/snapshots/COMMIT/config.json
    return Path(found).parent.name if isinstance(found, str) else None
