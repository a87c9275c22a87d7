"""How the learning rate moves over a budget: warm-up, then one of the named decays. Plain functions of shares."""

import math
from collections.abc import Callable, Mapping

# Share of the budget after the warm-up that is spent, 0 to 1 -> factor on the learning rate.
DECAYS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda spent: 1.0 - spent,
    "cosine": lambda spent: (1.0 + math.cos(math.pi * spent)) / 2.0,
    "constant": lambda spent: 1.0,
}


def learning_rate_factor(schedule: str, *, before: float, after: float, warmup: float) -> float:
    """Return the factor on the peak learning rate for one optimiser step.

    Rises linearly over the warm-up and then decays. Without warm-up, the linear step that starts at share s of the
    budget gets 1 - s.

    Args:
        schedule: a name of `DECAYS`.
        before, after: shares of the budget that are spent when the step starts and when it ends, 0 to 1.
        warmup: share of the budget, 0 <= warmup < 1.
    """
    if warmup > 0 and after < warmup:
        return after / warmup
    return DECAYS[schedule](max(0.0, before - warmup) / (1.0 - warmup))
