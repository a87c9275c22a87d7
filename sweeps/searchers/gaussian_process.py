"""Gaussian-process regression on points whose columns come in groups, each with a length scale of its own.

NumPy and SciPy alone; knows nothing of recipes. Used by `sweeps/searchers/surrogate.py`. The covariance of two points
is a Matern function of order 5/2 (Rasmussen and Williams 2006, equation 4.17) of their distance, whose square is the
sum over the groups of weight times squared distance. Weights, signal and noise are those of the greatest posterior
density under log-normal priors, which keep a fit to a few values from being certain of anything.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Priors of the logarithms: mean and standard deviation.
WEIGHT_SUM, WEIGHT_DEVIATION = 3.0, 1.25  # the mean weight of a group is the sum over the number of groups
SIGNAL_MEAN, SIGNAL_DEVIATION = 0.0, 0.5
NOISE_MEAN, NOISE_DEVIATION = math.log(0.02), 1.0
STEPS = 30  # of the search for the greatest density
JITTER = 1e-8  # of the signal: keeps a covariance of equal points positive definite
DRAW_JITTER = 1e-6  # the same for a posterior, a difference that has lost digits


@dataclass(frozen=True)
class Scales:
    """What is fitted, for values of mean 0 and deviation 1.

    Attributes:
        weights: [groups] of squared distance.
        signal: variance of the function.
        noise: variance of a value around it.
    """

    weights: Array
    signal: float
    noise: float


class GaussianProcess:
    """A function seen at some points with noise.

    Args:
        points: [n, columns], n from 1.
        groups: [columns] number of each column's group, from 0 without gaps.
        values: [n] in any unit.
        scales: as of `fitted_scales`.
    """

    def __init__(self, points: Array, groups: NDArray[np.int64], values: Array, scales: Scales) -> None:
        from scipy.linalg import cho_factor, cho_solve

        self._groups, self._scales = groups, scales
        self._center, self._unit = _center(values)
        self._points = points
        noise = scales.noise + JITTER * scales.signal
        covariance = self._covariance(points, points) + noise * np.eye(len(points))
        self._factor = cho_factor(covariance, lower=True)
        self._weights = cho_solve(self._factor, (values - self._center) / self._unit)

    @classmethod
    def fit(cls, points: Array, groups: NDArray[np.int64], values: Array, *, most: int | None = None) -> Self:
        """Return the process with scales fitted to at most `most` of the points, evenly spaced; None: to all."""
        step = 1 if most is None else -(-len(points) // most)
        scales = fitted_scales(points[::step], groups, values[::step])
        return cls(points, groups, values, scales)

    def posterior(self, at: Array) -> tuple[Array, Array]:
        """Return mean [m] and covariance [m, m] of the function, without noise, at the points [m, columns]."""
        from scipy.linalg import solve_triangular

        across = self._covariance(self._points, at)  # [n, m]
        mean = across.T @ self._weights
        half = solve_triangular(self._factor[0], across, lower=True)
        covariance = self._covariance(at, at) - half.T @ half
        return self._center + self._unit * mean, self._unit**2 * covariance

    def draw(self, at: Array, rng: np.random.Generator) -> Array:
        """Return [m] values of one function drawn from the posterior, at the points [m, columns]."""
        mean, covariance = self.posterior(at)
        jitter = DRAW_JITTER * self._unit**2 * self._scales.signal
        root = np.linalg.cholesky(covariance + jitter * np.eye(len(at)))
        return mean + root @ rng.standard_normal(len(at))

    def _covariance(self, some: Array, others: Array) -> Array:
        roots = np.sqrt(self._scales.weights[self._groups])
        squares = _squared_distances(some * roots, others * roots)
        return self._scales.signal * _matern(squares)[0]


def fitted_scales(points: Array, groups: NDArray[np.int64], values: Array) -> Scales:
    """Return the scales of the greatest posterior density; the arguments are as of `GaussianProcess`."""
    from scipy.optimize import minimize

    count = int(groups.max()) + 1
    apart = np.stack(
        [_squared_distances(points[:, groups == group], points[:, groups == group]) for group in range(count)]
    )  # [groups, n, n]
    center, unit = _center(values)
    means = np.array([*[math.log(WEIGHT_SUM / count)] * count, SIGNAL_MEAN, NOISE_MEAN])
    deviations = np.array([*[WEIGHT_DEVIATION] * count, SIGNAL_DEVIATION, NOISE_DEVIATION])
    scaled = (values - center) / unit

    def minus_density(logs: Array) -> tuple[float, Array]:
        value, slope = minus_log_likelihood(np.exp(logs), apart, scaled)
        off = (logs - means) / deviations
        return value + 0.5 * float(off @ off), slope * np.exp(logs) + off / deviations

    bounds = list(zip(means - 4 * deviations, means + 4 * deviations, strict=True))
    found = minimize(
        minus_density, means, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS}
    )
    *weights, signal, noise = np.exp(found.x).tolist()
    return Scales(np.array(weights), signal, noise)


def minus_log_likelihood(scales: Array, apart: Array, values: Array) -> tuple[float, Array]:
    """Return minus the log marginal likelihood of the values, without its constant, and its slope in the scales.

    Args:
        scales: [groups + 2] weights, signal and noise.
        apart: [groups, n, n] squared distances within each group.
        values: [n] of mean 0.

    Source: Rasmussen and Williams 2006, equations 5.8 and 5.9.
    """
    from scipy.linalg import cho_factor, cho_solve

    weights, signal, noise = scales[:-2], scales[-2], scales[-1]
    shape, slope = _matern(np.tensordot(weights, apart, axes=1))
    identity = np.eye(len(values))
    factor = cho_factor(signal * shape + (noise + JITTER * signal) * identity, lower=True)
    solved = cho_solve(factor, values)
    value = 0.5 * float(values @ solved) + float(np.log(np.diag(factor[0])).sum())
    inner = cho_solve(factor, identity) - np.outer(solved, solved)  # [n, n]
    in_weights = 0.5 * signal * np.tensordot(apart, inner * slope, axes=([1, 2], [0, 1]))
    in_signal = 0.5 * float((inner * (shape + JITTER * identity)).sum())
    in_noise = 0.5 * float(np.trace(inner))
    return value, np.array([*in_weights, in_signal, in_noise])


def _center(values: Array) -> tuple[float, float]:
    """Return mean and standard deviation, 1 where all values are equal."""
    return float(values.mean()), float(values.std()) or 1.0


def _matern(squares: Array) -> tuple[Array, Array]:
    """Return the function of squared distance, 1 at 0, and its slope in it."""
    scaled = np.sqrt(5.0 * squares)
    decay = np.exp(-scaled)
    return (1.0 + scaled + 5.0 / 3.0 * squares) * decay, -5.0 / 6.0 * (1.0 + scaled) * decay


def _squared_distances(some: Array, others: Array) -> Array:
    """Return [n, m] squared Euclidean distances."""
    from scipy.spatial.distance import cdist

    return cdist(some, others, "sqeuclidean") if some.shape[1] else np.zeros((len(some), len(others)))
