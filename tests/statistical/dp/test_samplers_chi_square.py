"""Samplers against their probability mass function: chi-square over at most 400 cells, and the low bits of
wide draws.

Every test has p < 1e-11 as its alarm, so that the whole file raises a false alarm in less than one of 10^9
runs.
"""

import math

import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import chi2, norm
from scipy.stats import poisson as poisson_law

from dp.mechanisms import discrete_gaussian, poisson, skellam
from protocols.randomness import SystemRandom

ALARM = 1e-11
RANDOM = SystemRandom()


def chi_square(draws: np.ndarray, edges: np.ndarray, cdf: np.ndarray) -> float:
    """p-value of the counts in (-inf, e0], (e0, e1], ..., (en, inf) against the cumulative probabilities at
    the edges."""
    probabilities = np.diff(np.concatenate([[0.0], cdf, [1.0]]))
    counts = np.bincount(np.searchsorted(edges, draws, side="left"), minlength=edges.size + 1)
    expected = probabilities * draws.size
    assert expected.min() >= 5, "cells too small for the chi-square approximation"
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), edges.size))


def gaussian_cdf(edges: np.ndarray, sigma: float) -> np.ndarray:
    """P[X <= e]: summed for sigma <= 2000; above, the midpoint rule is right to 1 / (24 sigma^2) < 1e-8."""
    if sigma > 2000:
        return norm.cdf((edges + 0.5) / sigma)
    reach = math.ceil(12 * sigma) + 2
    at = np.arange(-reach, reach + 1)
    mass = np.exp(-((at / sigma) ** 2) / 2)
    return (np.cumsum(mass) / mass.sum())[edges + reach]


def edges_for(quantile, cells: int, draws: int, cdf) -> np.ndarray:
    """Distinct integer cell limits with at least 10 draws expected in every cell."""
    edges = np.unique(np.floor(quantile(np.linspace(0, 1, cells + 1)[1:-1])).astype(np.int64))
    while True:
        expected = np.diff(np.concatenate([[0.0], cdf(edges), [1.0]])) * draws
        if expected.min() >= 10:
            return edges
        edges = np.delete(edges, min(int(expected.argmin()), edges.size - 1))


def gaussian_p_value(sigma: float, count: int) -> float:
    def cdf(e: np.ndarray) -> np.ndarray:
        return gaussian_cdf(e, sigma)

    if sigma < 30:  # a cell for every integer that is expected often enough
        reach = math.ceil(6 * sigma) + 1
        edges = np.arange(-reach, reach + 1)
        expected = np.diff(np.concatenate([[0.0], cdf(edges), [1.0]])) * count
        good = np.flatnonzero(expected >= 10)
        edges = edges[good[0] : good[-1]]
        while (np.diff(np.concatenate([[0.0], cdf(edges), [1.0]])) * count).min() < 10:
            edges = edges[1:-1]
    else:
        edges = edges_for(lambda q: norm.ppf(q) * sigma, 400, count, cdf)
    return chi_square(discrete_gaussian(RANDOM, sigma, count), edges, cdf(edges))


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.3, 100.0, 1e6])
def test_discrete_gaussian_follows_its_mass_function(sigma: float) -> None:
    assert gaussian_p_value(sigma, 500_000) > ALARM


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.3, 25.0, 100.0, 1000.0, 12_345.6, 1e6])
def test_discrete_gaussian_follows_its_mass_function_in_ten_million_draws(sigma: float) -> None:
    assert gaussian_p_value(sigma, 10_000_000) > ALARM


@pytest.mark.parametrize("modulus", [2, 16, 101])
def test_residues_of_wide_draws_are_uniform(modulus: int) -> None:
    """For sigma >= modulus / 2 the residues are uniform to exp(-2 pi^2 sigma^2 / modulus^2): here exactly,
    for the test."""
    residues = discrete_gaussian(RANDOM, 1e6, 1_000_000) % modulus
    counts = np.bincount(residues, minlength=modulus)
    expected = residues.size / modulus
    assert chi2.sf(((counts - expected) ** 2 / expected).sum(), modulus - 1) > ALARM


@pytest.mark.parametrize("lag", [1, 2, 1024])
def test_successive_draws_are_uncorrelated(lag: int) -> None:
    draws = discrete_gaussian(RANDOM, 50.0, 1_000_000) / 50.0
    correlation = float(np.mean(draws[:-lag] * draws[lag:]))
    assert abs(correlation) < 7 / math.sqrt(draws.size - lag)  # 7 standard errors: once in 4e11 runs


@pytest.mark.parametrize("mean", [0.7, 40.0, 1000.0, 5000.0])
def test_poisson_follows_its_mass_function(mean: float) -> None:
    law = poisson_law(mean)
    edges = edges_for(law.ppf, 400, 300_000, law.cdf)
    assert chi_square(poisson(RANDOM, mean, 300_000), edges, law.cdf(edges)) > ALARM


def skellam_p_value(variance: float, count: int) -> float:
    """P[X = x] = exp(-v) I_|x|(v), the scaled Bessel function of the total variance v."""
    reach = math.ceil(12 * math.sqrt(variance)) + 40
    mass = ive(np.abs(np.arange(-reach, reach + 1)), variance)

    def cdf(edges: np.ndarray) -> np.ndarray:
        return (np.cumsum(mass) / mass.sum())[edges + reach]

    edges = edges_for(lambda q: norm.ppf(q) * math.sqrt(variance), 400, count, cdf)
    return chi_square(skellam(RANDOM, variance, count), edges, cdf(edges))


@pytest.mark.parametrize("variance", [1.0, 60.0, 3000.0])
def test_skellam_follows_its_mass_function(variance: float) -> None:
    assert skellam_p_value(variance, 300_000) > ALARM


@pytest.mark.slow
@pytest.mark.parametrize("variance", [1.0, 60.0, 3000.0, 1e6])
def test_skellam_follows_its_mass_function_in_ten_million_draws(variance: float) -> None:
    assert skellam_p_value(variance, 10_000_000) > ALARM
