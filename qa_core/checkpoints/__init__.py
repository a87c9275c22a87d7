"""Pretrained networks that are part of the package: small ones, so that adapters have a start without a hub.

`FAMILY/NAME/` is a folder as transformers writes it: config.json, float16 safetensors, tokenizer files. A recipe names
it by NAME alone (`model.checkpoint: sample-tiny`), and each machine finds it in its own installation. What the networks
were taught, and how they are made again, is in `benchmarks/pretrain_sample.py`; their licence is in LICENSE.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def shipped_names(family: str) -> tuple[str, ...]:
    """Return the names of a family's networks in this package, sorted; none for most families' names."""
    return tuple(sorted(path.parent.name for path in (FOLDER / family).glob("*/config.json")))


def shipped_folder(family: str, name: str) -> Path | None:
    """Return where a network of this package lies; None when the family has none of this name."""
    return FOLDER / family / name if name in shipped_names(family) else None
