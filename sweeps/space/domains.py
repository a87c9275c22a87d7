"""The values a searched setting can take: a choice, a float range or an integer range."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Choice:
    """One of a few values, in the order of the spec."""

    values: tuple[Any, ...]

    def sample(self, rng: np.random.Generator) -> Any:
        """Return one value, each as likely as any other."""
        return self.values[int(rng.integers(len(self.values)))]

    def at(self, share: float) -> Any:
        """Return the value at a share of the choice, from 0 to below 1; each value has an equal part."""
        return self.values[int(share * len(self.values))]

    def grid(self, points: int) -> tuple[Any, ...]:
        """Return all values, whatever `points` is."""
        return self.values

    def extremes(self) -> tuple[Any, ...]:
        """Return the values whose validity implies that of all others: every one."""
        return self.values


@dataclass(frozen=True)
class FloatRange:
    """A float in [low, high], uniform in its value or, with `log`, in its logarithm."""

    low: float
    high: float
    log: bool

    def sample(self, rng: np.random.Generator) -> float:
        """Return one value of the range."""
        if not self.log:
            return float(rng.uniform(self.low, self.high))
        value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(value, self.low), self.high)

    def at(self, share: float) -> float:
        """Return the value at a share of the range, from 0 to below 1, on the scale on which `sample` is uniform."""
        if not self.log:
            return self.low + share * (self.high - self.low)
        low, high = math.log(self.low), math.log(self.high)
        return min(max(math.exp(low + share * (high - low)), self.low), self.high)

    def grid(self, points: int) -> tuple[float, ...]:
        """Return `points` evenly spaced values with both ends; the middle when `points` is 1."""
        space = np.geomspace if self.log else np.linspace
        if points == 1:
            return (float(space(self.low, self.high, 3)[1]),)
        return tuple(float(value) for value in space(self.low, self.high, points))

    def extremes(self) -> tuple[float, ...]:
        """Return both ends."""
        return (self.low, self.high)


@dataclass(frozen=True)
class IntRange:
    """An integer in [low, high], both included, uniform in its value or, with `log`, in its logarithm."""

    low: int
    high: int
    log: bool

    def sample(self, rng: np.random.Generator) -> int:
        """Return one value of the range."""
        if not self.log:
            return int(rng.integers(self.low, self.high + 1))
        # Half a unit on either side gives the ends their full share after rounding.
        value = round(math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5))))
        return min(max(value, self.low), self.high)

    def at(self, share: float) -> int:
        """Return the value at a share of the range, from 0 to below 1, each as likely as in `sample`."""
        if not self.log:
            return self.low + int(share * (self.high - self.low + 1))
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(round(math.exp(low + share * (high - low))), self.low), self.high)

    def grid(self, points: int) -> tuple[int, ...]:
        """Return at most `points` evenly spaced values, rounded; fewer where they coincide."""
        floats = FloatRange(self.low, self.high, self.log).grid(points)
        return tuple(sorted({round(value) for value in floats}))

    def extremes(self) -> tuple[int, ...]:
        """Return both ends."""
        return (self.low, self.high)


Domain = Choice | FloatRange | IntRange
