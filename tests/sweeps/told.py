"""A console, a tracker or a driver that keeps what it is told."""

import contextlib

import psutil


class Told:
    """Stands in for console and tracker: keeps every call, and where Ray's processes listen meanwhile."""

    parent_run_id = None

    is_closed = False

    def __init__(self) -> None:
        self.lock = contextlib.nullcontext()
        self.calls: list[tuple[str, tuple]] = []
        self.listening: set[str] = set()

    def trial_reported(self, *args) -> None:
        self.calls.append(("trial_reported", args))
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found = [item for item in process.net_connections() if item.status == psutil.CONN_LISTEN]
                self.listening |= {item.laddr.ip for item in found}

    def __getattr__(self, name: str):
        return lambda *args, **kwargs: self.calls.append((name, args))

    def named(self, name: str) -> list[tuple]:
        return [args for called, args in self.calls if called == name]
