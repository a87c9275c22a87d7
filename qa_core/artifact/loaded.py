"""A trained network read back from its folder, with all that is needed to answer questions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core.artifact.manifest import MANIFEST
from qa_core.config import RunConfig

if TYPE_CHECKING:
    from torch import nn

    from qa_core.families.base import Family


@dataclass(frozen=True)
class LoadedArtifact:
    """A model read back from its folder, in evaluation mode, on the CPU."""

    model: "nn.Module"
    family: "Family"
    tokenizer: Any
    config: RunConfig
    manifest: Mapping[str, Any]
    folder: Path | None = None  # None: of a network that was never written

    @property
    def artifact_bytes(self) -> int:
        """Bytes of the whole folder that ships: every recorded file, and the manifest that records them."""
        assert self.folder is not None, "it was never written"
        recorded = sum(item["bytes"] for item in self.manifest["files"].values())
        return recorded + (self.folder / MANIFEST).stat().st_size

    @property
    def weights_sha256(self) -> dict[str, str]:
        """Weight file -> SHA-256 of it as written."""
        return {name: self.manifest["files"][name]["sha256"] for name in self.manifest["weight_files"]}

    @property
    def null_threshold(self) -> float | None:
        """Null odds above which the answer is "no answer"; None when the model always answers."""
        return self.manifest["null_threshold"]
