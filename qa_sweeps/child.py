"""The process in which a sweep runs that was started from Python; the other side is `qa_sweeps/running.py`.

It reads a request from its standard input, prints what the command line would print of the sweep's course, and writes
into a file how the sweep ended. When its standard input is closed, its parent has died: it then ends as for SIGTERM.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import qa_core.errors
from qa_core import files
from qa_core.errors import QaError
from sweeps.trials import signals
from sweeps.trials.faults import SweepFault


def main() -> int:
    """Carry out a request and return 0, or 1 where it was refused or interrupted."""
    line = sys.stdin.readline()
    if not line.endswith("\n"):  # the parent has died, or was interrupted
        return 1
    request = json.loads(line)
    result = Path(request["result"])
    threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
    try:
        with signals.raised():
            values = _carried_out(request)
    except QaError as error:
        values = {"error": _name_of(error), "message": str(error)}
    except KeyboardInterrupt:
        values = {"interrupted": True}
    if result.parent.is_dir():  # else the parent has died
        files.write_json(result, values)
    return 0 if "ended_by" in values else 1


def _carried_out(request: dict[str, Any]) -> dict[str, Any]:
    from sweeps.commands.options import resumed_spec
    from sweeps.commands.run import Target, carry_out
    from sweeps.progress.console import SweepConsole
    from sweeps.spec.load import load_spec, spec_of

    folder = Path(request["folder"])
    is_new = "more_trials" not in request
    if not is_new:
        unchanged = dict.fromkeys(("total_examples", "concurrent", "max_disk_gb"))
        spec = resumed_spec(folder, {**unchanged, "trials": f"+{request['more_trials']}"})
    elif "config" in request:
        spec = load_spec(request["config"], request["overrides"], scales=request["scales"])
    else:
        spec = spec_of(request["values"], request["overrides"], scales=request["scales"])
    target = Target(
        folder,
        request["address"],
        request["tracking_uri"],
        dashboard=False,
        allow_mixed=request["allow_mixed"],
    )
    console = SweepConsole(is_quiet=request["quiet"])
    done = carry_out(spec, target, console=console, resume=not is_new)
    if done.outcome.ended_by is not None:
        print(f"the sweep ended early: {done.outcome.ended_by}; qa_sweeps.resume({str(folder)!r}) goes on")
    return {"ended_by": done.outcome.ended_by}


def _name_of(error: QaError) -> str:
    """Return the nearest class of an error that its parent knows by name."""
    names = [kind.__name__ for kind in type(error).__mro__ if hasattr(qa_core.errors, kind.__name__)]
    return SweepFault.__name__ if isinstance(error, SweepFault) else names[0]


def _watch_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
