"""Sweeps and their models from Python.

    sweep = qa_sweeps.run("my.yaml", train=frame)
    sweep.front()
    sweep.export(max_memory_mb=20, to="model")
    qa_sweeps.load("model").answer("Who built it?", "It was built by the guild.")

What the command line refuses is raised here with the same message, as one of the exceptions of `qa_core/errors.py`;
`QaError` is the base of all of them.
"""

from qa_core.errors import ArtifactError, ConfigError, DataError, QaError, StorageError
from qa_sweeps.reader import Answer, Candidate, Reader, load
from qa_sweeps.running import resume, run
from qa_sweeps.sweep import Export, Plot, Sweep
from qa_sweeps.sweep import open_sweep as open
from sweeps.trials.faults import SweepFault

__all__ = [
    "Answer",
    "ArtifactError",
    "Candidate",
    "ConfigError",
    "DataError",
    "Export",
    "Plot",
    "QaError",
    "Reader",
    "StorageError",
    "Sweep",
    "SweepFault",
    "load",
    "open",
    "resume",
    "run",
]
