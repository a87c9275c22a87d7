"""Calls to MLflow again that failed for a reason which passes: a busy database, a server that restarts."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

ATTEMPTS = 4
RETRY_SECONDS = 15.0  # after which a call is not tried again
TRANSIENT = {"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "RESOURCE_EXHAUSTED", "REQUEST_LIMIT_EXCEEDED"}
Value = TypeVar("Value")


def retry(call: Callable[[], Value]) -> Value:
    """Call again after transient trouble of a database or a server, with growing, jittered pauses."""
    from mlflow.exceptions import MlflowException

    started = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except (MlflowException, OSError) as error:
            is_transient = isinstance(error, OSError) or error.error_code in TRANSIENT
            is_last = attempt == ATTEMPTS or time.monotonic() - started > RETRY_SECONDS
            if is_last or not is_transient:
                raise
        # Only spreads retries in time; training never draws from this generator.
        time.sleep(0.1 * 2**attempt * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")
