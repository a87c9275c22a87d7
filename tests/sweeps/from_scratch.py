"""The configuration `from_scratch.yaml`, and the options that take the fewest recipes of it."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FROM_SCRATCH = PROJECT / "tests" / "sweeps" / "from_scratch.yaml"
# One family: fewer recipes whose memory is predicted.
SMALL = ["--config", str(FROM_SCRATCH), "--set", "space.model.family.choice=[lstm]"]
