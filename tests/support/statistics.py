"""Bounds of statistics tests: five standard deviations, so that a sound generator fails once in two million tests."""

import numpy as np

SIGMAS = 5


def assert_share(hits: int, trials: int, share: float) -> None:
    """`hits` of `trials` is what chance makes of a probability of `share`."""
    sigma = np.sqrt(share * (1 - share) / trials)
    assert abs(hits / trials - share) < SIGMAS * sigma, f"{hits / trials:.5f}, not {share} ± {SIGMAS * sigma:.5f}"


def assert_frequencies(observed: np.ndarray, expected: np.ndarray, freedom: int | None = None) -> None:
    """Chi-squared test of counts against expected counts; by default one degree of freedom goes to the total."""
    observed, expected = np.ravel(observed), np.ravel(expected)
    freedom = len(observed) - 1 if freedom is None else freedom
    chi_squared = np.sum((observed - expected) ** 2 / expected)
    z = (chi_squared - freedom) / np.sqrt(2 * freedom)
    assert abs(z) < SIGMAS, f"chi-squared {chi_squared:.0f} of {freedom} degrees of freedom, z = {z:.1f}"


def assert_uncorrelated(a: np.ndarray, b: np.ndarray) -> None:
    """No linear correlation between two long samples."""
    z = np.corrcoef(a, b)[0, 1] * np.sqrt(len(a))
    assert abs(z) < SIGMAS, f"correlation of {z:.1f} standard deviations"


def best_accuracy(feature: np.ndarray, label: np.ndarray) -> float:
    """The accuracy of the best classifier of a binary label by one small integer."""
    counts = np.stack([np.bincount(feature[label == value], minlength=feature.max() + 1) for value in (0, 1)])
    return counts.max(axis=0).sum() / counts.sum()
