"""Gaussian-process regression: against the formulas written out, against differences, and what scales must find."""

import numpy as np
import pytest

from sweeps.searchers.gaussian_process import GaussianProcess, Scales, fitted_scales, minus_log_likelihood

GROUPS = np.array([0, 0, 1])
SCALES = Scales(np.array([0.7, 2.5]), signal=1.3, noise=0.05)


def slow_covariance(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the Matern function of order 5/2, one pair after another."""
    found = np.zeros((len(some), len(others)))
    for row, first in enumerate(some):
        for column, second in enumerate(others):
            r = np.sqrt(sum(SCALES.weights[GROUPS[k]] * (first[k] - second[k]) ** 2 for k in range(3)))
            root = np.sqrt(5.0) * r
            found[row, column] = SCALES.signal * (1 + root + root**2 / 3) * np.exp(-root)
    return found


def test_the_posterior_is_that_of_the_formulas() -> None:
    rng = np.random.default_rng(0)
    points, at, values = rng.uniform(size=(9, 3)), rng.uniform(size=(5, 3)), 30 + 4 * rng.standard_normal(9)
    mean, covariance = GaussianProcess(points, GROUPS, values, SCALES).posterior(at)
    inverse = np.linalg.inv(slow_covariance(points, points) + SCALES.noise * np.eye(9))
    across = slow_covariance(points, at)
    scaled = (values - values.mean()) / values.std()
    expected = values.mean() + values.std() * across.T @ inverse @ scaled
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    expected = values.var() * (slow_covariance(at, at) - across.T @ inverse @ across)
    np.testing.assert_allclose(covariance, expected, rtol=1e-5, atol=1e-6)


def test_the_slope_of_the_likelihood_is_that_of_differences_and_its_value_that_of_the_density() -> None:
    rng = np.random.default_rng(1)
    points, values = rng.uniform(size=(7, 3)), rng.standard_normal(7)
    parts = (points[:, :2], points[:, 2:])
    apart = np.stack([((part[:, None] - part[None]) ** 2).sum(axis=-1) for part in parts])
    scales = np.array([*SCALES.weights, SCALES.signal, SCALES.noise])
    value, slope = minus_log_likelihood(scales, apart, values)
    covariance = slow_covariance(points, points) + SCALES.noise * np.eye(7)
    density = 0.5 * values @ np.linalg.solve(covariance, values) + 0.5 * np.linalg.slogdet(covariance)[1]
    assert value == pytest.approx(density, rel=1e-6)
    for index in range(4):
        step = np.eye(4)[index] * 1e-5
        high, low = (minus_log_likelihood(scales + sign * step, apart, values)[0] for sign in (1, -1))
        assert slope[index] == pytest.approx((high - low) / 2e-5, rel=1e-4, abs=1e-6)


def test_the_scales_find_the_group_that_matters_and_the_noise() -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform(size=(60, 3))
    values = 50 + 10 * np.sin(6 * points[:, 2]) + 0.5 * rng.standard_normal(60)
    scales = fitted_scales(points, GROUPS, values)
    assert scales.weights[1] > 10 * scales.weights[0]
    assert 0.1 < scales.noise * values.var() / 0.5**2 < 4
    mean, covariance = GaussianProcess.fit(points, GROUPS, values).posterior(points)
    assert np.abs(mean - (50 + 10 * np.sin(6 * points[:, 2]))).max() < 1.5
    assert np.sqrt(np.diag(covariance)).max() < 1.5


def test_draws_have_the_mean_and_the_covariance_of_the_posterior() -> None:
    rng = np.random.default_rng(3)
    points, at, values = rng.uniform(size=(6, 3)), rng.uniform(size=(4, 3)), rng.standard_normal(6)
    process = GaussianProcess(points, GROUPS, values, SCALES)
    mean, covariance = process.posterior(at)
    draws = np.array([process.draw(at, rng) for _ in range(4000)])
    deviation = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - mean) < 4 * deviation / np.sqrt(4000)).all()
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1 * deviation.max() ** 2)


def test_equal_values_and_equal_points_are_no_special_case() -> None:
    points = np.array([[0.2, 0.4, 1.0]] * 3)
    process = GaussianProcess.fit(points, GROUPS, np.full(3, 7.0))
    assert process.posterior(points)[0] == pytest.approx([7.0, 7.0, 7.0])
    assert process.draw(points, np.random.default_rng(0)) == pytest.approx([7.0] * 3, abs=3.0)


def test_scales_are_fitted_to_evenly_spaced_points_where_there_are_too_many() -> None:
    rng = np.random.default_rng(4)
    points, values = rng.uniform(size=(31, 3)), rng.standard_normal(31)
    few = GaussianProcess.fit(points, GROUPS, values, most=8)
    expected = GaussianProcess(points, GROUPS, values, fitted_scales(points[::4], GROUPS, values[::4]))
    np.testing.assert_array_equal(few.posterior(points)[0], expected.posterior(points)[0])
