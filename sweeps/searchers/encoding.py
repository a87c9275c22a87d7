"""Recipes as points: the coordinates on which a model of a space measures how alike two recipes are.

One group of columns for each searched path, so that entries that search the same path under other conditions share what
is learnt. Used by `sweeps/searchers/surrogate.py`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.space.domains import Choice, Domain
from sweeps.space.paths import METHODS_PATH, method_names
from sweeps.space.space import Space

MIDDLE = 0.5  # of a number's range: where a recipe stands that has no such number


class Encoding:
    """Places the recipes of a space.

    - Words: one column for each value, and one for "does not apply". Two different words are at a distance of 1.
    - Numbers: from 0 to 1 over all values of the path, on a logarithm unless a range of it is linear or a value is not
      positive; and a second column that is 1 where the setting does not apply, with the number in the middle.
    - Methods: one column for each method, 1 where it is part of the product.

    Attributes:
        groups: [columns] the number of each column's path, from 0.
        paths: of the groups.
    """

    def __init__(self, space: Space) -> None:
        domains: dict[str, list[Domain]] = defaultdict(list)
        ids: dict[str, list[str]] = defaultdict(list)
        for parameter in space.parameters:
            domains[parameter.path].append(parameter.domain)
            ids[parameter.path].append(parameter.id)
        self.paths = tuple(domains)
        self._ids = tuple(tuple(ids[path]) for path in self.paths)
        self._scales = tuple(_scale(path, found) for path, found in domains.items())
        sizes = [scale.columns for scale in self._scales]
        self.groups: NDArray[np.int64] = np.repeat(np.arange(len(sizes)), sizes)

    def place(self, assignment: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return [columns] of a recipe; a parameter that it has no value for does not apply."""
        parts = []
        for ids, scale in zip(self._ids, self._scales, strict=True):
            values = [assignment[identity] for identity in ids if identity in assignment]
            parts.append(scale.place(values[0]) if values else scale.absent())
        return np.concatenate(parts) if parts else np.empty(0)


class _Words:
    def __init__(self, values: Sequence[Any]) -> None:
        self._columns = {repr(value): column for column, value in enumerate(values)}
        self.columns = len(self._columns) + 1

    def place(self, value: Any) -> NDArray[np.float64]:
        return self._at(self._columns[repr(value)])

    def absent(self) -> NDArray[np.float64]:
        return self._at(self.columns - 1)

    def _at(self, column: int) -> NDArray[np.float64]:
        found = np.zeros(self.columns)
        found[column] = math.sqrt(0.5)
        return found


class _Numbers:
    columns = 2

    def __init__(self, low: float, high: float, *, log: bool) -> None:
        self._log = log
        self._low, high = self._scaled(low), self._scaled(high)
        self._span = high - self._low or 1.0

    def place(self, value: Any) -> NDArray[np.float64]:
        return np.array([(self._scaled(value) - self._low) / self._span, 0.0])

    def absent(self) -> NDArray[np.float64]:
        return np.array([MIDDLE, 1.0])

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else float(value)


class _Methods:
    def __init__(self, products: Sequence[Any]) -> None:
        self._names = sorted({name for product in products for name in method_names(product)})
        self.columns = len(self._names)

    def place(self, value: Any) -> NDArray[np.float64]:
        chosen = method_names(value)
        return np.array([float(name in chosen) for name in self._names])

    def absent(self) -> NDArray[np.float64]:
        return np.zeros(self.columns)


def _scale(path: str, domains: Sequence[Domain]) -> _Words | _Numbers | _Methods:
    choices = [value for domain in domains if isinstance(domain, Choice) for value in domain.values]
    if path == METHODS_PATH:
        return _Methods(choices)
    ranges = [domain for domain in domains if not isinstance(domain, Choice)]
    if not all(type(value) in (int, float) for value in choices):
        return _Words(list(dict.fromkeys(choices)))
    ends = [*choices, *(end for domain in ranges for end in (domain.low, domain.high))]
    low, high = float(min(ends)), float(max(ends))
    return _Numbers(low, high, log=low > 0 and all(domain.log for domain in ranges))
