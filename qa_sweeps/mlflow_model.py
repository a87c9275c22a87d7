"""What MLflow loads a registered model with: its folder holds data, and its code is this package, of the same version.

The name of this module stands in registries of users, so it stays. The model: `sweeps/commands/served.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.commands.served import AnsweringModel


def _load_pyfunc(data_path: str) -> "AnsweringModel":
    """Load an artifact for MLflow, which calls this function by its name; raises ArtifactError."""
    from sweeps.commands.predict import load_artifact
    from sweeps.commands.served import AnsweringModel

    return AnsweringModel(load_artifact(Path(data_path)), device="auto")
