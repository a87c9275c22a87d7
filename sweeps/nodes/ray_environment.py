"""Where a sweep runs, and the environment that Ray reads: some of it once, when it is imported.

Ray itself is not imported here. For an embedded Ray, call `RayTarget.set_environment` before
`sweeps.trials.ray_driver` is imported; `ray_service.start_ray` calls it again for what Ray reads later.
"""

import os
from dataclasses import dataclass

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records.jsonl and MLflow are the logs
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Seconds, for ever: its own state is never read back, and with each save it keeps all trials once more as text.
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a call after Ray's end would start another one
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a spec mean the same on the driver and on its workers
    # Ray takes Ctrl-C for "stop and return what there is": the exit code would say that all went well.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Its memory monitor kills workers in a way that Tune does not expect and that ends the whole sweep. Without it the
    # kernel kills the worker, whose trial then fails alone.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
NODE_DIGITS = 12  # of the number that Ray draws for a node at each start of it, and by which we call it
# Only for a Ray of our own: every process of it listens on the loopback, as Ray does by default on macOS and Windows.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class RayTarget:
    """An embedded Ray on this machine, or a cluster's address."""

    address: str | None = None
    dashboard: bool = False
    allow_mixed: bool = False  # the cluster's nodes may differ in versions and devices

    def set_environment(self) -> None:
        """Set what Ray reads from the environment; what the user has set stays."""
        for name, value in (RAY_ENVIRONMENT if self.address else RAY_ENVIRONMENT | LOOPBACK).items():
            os.environ.setdefault(name, value)
