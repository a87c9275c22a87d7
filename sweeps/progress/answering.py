"""How far a model has come with many questions, on the standard error: a bar on a terminal, else a line now and then.

Windows are counted, not questions: they are answered by length, so that a question is done when its last one is.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from sweeps.progress.console import may_be_lost

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def answering(
    windows: int, *, output: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Yield what is called after each batch with the number of windows that it had.

    Args:
        windows: how many there are.
        output: where to write; None for the standard error.
        clock: in seconds.
    """
    stream = output or sys.stderr
    if stream.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(file=stream), transient=True) as bar:
            task = bar.add_task("answering", total=windows)
            yield lambda count: bar.advance(task, count)
        return
    done, last = 0, clock()

    def on_batch(count: int) -> None:
        nonlocal done, last
        done, now = done + count, clock()
        if done < windows and now - last >= SECONDS_BETWEEN_LINES:
            last = now
            with may_be_lost(stream):
                print(f"answered {done:,} of {windows:,} windows", file=stream, flush=True)

    yield on_batch
