"""All that a machine with a GPU is to be asked, in one command of at most 8 minutes.

    make gpu                              or: python -m benchmarks.gpu
    python -m benchmarks.gpu --small      sizes of a test, on a CPU too

Installs nothing and asks no hub. Each step runs in a process of its own with a time limit; its rows are written to the
JSON file as they come, so that a step that fails, or is cut short, loses nothing of what it measured, and the next one
begins. What a machine cannot measure is named with the reason. What the steps measure is in `gpu_steps.py`.
"""

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 480.0  # for all steps together
# Step -> seconds that it may take. The order is that of worth: what comes first is sure to be measured.
STEPS = {
    "memory": 150.0,
    "ours": 45.0,
    "trainer": 45.0,
    "decode": 30.0,
    "mamba": 30.0,
    "sweep": 120.0,
    "tests": 60.0,
}
LINES_KEPT = 20  # of what a failed step wrote on its error stream
DONE, SKIPPED, FAILED, CUT_SHORT = "done", "skipped", "failed", "cut short"


@dataclass
class Outcome:
    """What came of one step: `rows` are its measurements, `why` says why it has none, or no more."""

    step: str
    status: str = DONE
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    why: list[str] = field(default_factory=list)


def run_steps(
    steps: Sequence[tuple[str, Sequence[str], float]], out: Path, *, limit_seconds: float = LIMIT_SECONDS
) -> list[Outcome]:
    """Run the steps in turn and return what came of them; the file is written again after each row.

    Args:
        steps: name, command, and seconds that it may take. A command prints one JSON object a line.
        out: the JSON file.
        limit_seconds: for all together; what is left of it shortens the last steps, and with none they are skipped.
    """
    ends = time.monotonic() + limit_seconds
    outcomes: list[Outcome] = []
    for name, command, seconds in steps:
        outcome = Outcome(name)
        outcomes.append(outcome)
        left = ends - time.monotonic()
        if left <= 0:
            outcome.status, outcome.why = SKIPPED, [f"no time left of {limit_seconds:g} s"]
        else:
            _run(command, min(seconds, left), outcome, lambda: _write(out, outcomes))
        why = f": {outcome.why[-1]}" if outcome.why else ""
        print(f"{name}: {outcome.status}, {outcome.seconds:.1f} s{why}", flush=True)
        _write(out, outcomes)
    return outcomes


def _run(command: Sequence[str], seconds: float, outcome: Outcome, write: Any) -> None:
    """Run one command and collect its rows; at its limit it ends with all that it started."""
    started = time.monotonic()
    log = b""
    process = subprocess.Popen(
        list(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=_environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process, selectors.DefaultSelector() as streams:
        streams.register(process.stdout, selectors.EVENT_READ)
        streams.register(process.stderr, selectors.EVENT_READ)
        unfinished = b""
        while streams.get_map():
            left = started + seconds - time.monotonic()
            if left <= 0:
                outcome.status, outcome.why = CUT_SHORT, [f"at its limit of {seconds:.0f} s"]
                os.killpg(process.pid, signal.SIGKILL)
                break
            for key, _ in streams.select(timeout=left):
                read = os.read(key.fd, 65536)
                if not read:
                    streams.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    log = (log + read)[-65536:]
                else:
                    *lines, unfinished = (unfinished + read).split(b"\n")
                    for line in lines:
                        if _take(line, outcome):
                            write()
        process.wait()
    outcome.seconds = round(time.monotonic() - started, 1)
    if outcome.status == DONE and process.returncode != 0:
        said = log.decode(errors="replace").strip().splitlines()[-LINES_KEPT:]
        outcome.status, outcome.why = FAILED, said or [f"exit {process.returncode}"]


def _take(line: bytes, outcome: Outcome) -> bool:
    """Take a line of a step: a row, or why there is none; returns whether it was one. Other lines are a library's."""
    try:
        row = json.loads(line)
    except ValueError:
        return False
    if not isinstance(row, dict):
        return False
    if set(row) == {SKIPPED}:
        outcome.status, outcome.why = SKIPPED, [row[SKIPPED]]
        return True
    outcome.rows.append(row)
    print(f"  {json.dumps(row)}", flush=True)
    return True


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def _write(out: Path, outcomes: Sequence[Outcome]) -> None:
    versions = {
        name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes", "qa-sweeps")
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.new")
    temporary.write_text(
        json.dumps({"versions": versions, "steps": [vars(item) for item in outcomes]}, indent=1)
    )
    temporary.replace(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps, print their rows and write the JSON file; returns 1 where one failed or was cut short."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="sizes of a test")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/gpu.json"))
    given = parser.parse_args(arguments)
    more = ["--small"] if given.small else []
    commands = [
        (name, [sys.executable, "-m", "benchmarks.gpu_steps", name, *more], STEPS[name])
        for name in given.steps
    ]
    outcomes = run_steps(commands, given.out)
    print(f"written to {given.out}")
    return int(any(item.status in (FAILED, CUT_SHORT) for item in outcomes))


if __name__ == "__main__":
    sys.exit(main())
