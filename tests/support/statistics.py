"""Statistical tests with bounds of five standard deviations: one false alarm in two million tests."""

import numpy as np

SIGMAS = 5


def assert_share(hits: int, trials: int, share: float) -> None:
    """Checks that `hits` of `trials` are consistent with a probability of `share`."""
    sigma = np.sqrt(share * (1 - share) / trials)
    assert abs(hits / trials - share) < SIGMAS * sigma, f"{hits / trials:.5f}, expected {share} ± {SIGMAS * sigma:.5f}"


def assert_frequencies(observed: np.ndarray, expected: np.ndarray, freedom: int | None = None) -> None:
    """Chi-squared test of counts; by default the total takes one degree of freedom."""
    observed, expected = np.ravel(observed), np.ravel(expected)
    freedom = len(observed) - 1 if freedom is None else freedom
    chi_squared = np.sum((observed - expected) ** 2 / expected)
    z = (chi_squared - freedom) / np.sqrt(2 * freedom)
    assert abs(z) < SIGMAS, f"chi-squared {chi_squared:.0f} of {freedom} degrees of freedom, z = {z:.1f}"


def assert_uncorrelated(a: np.ndarray, b: np.ndarray) -> None:
    """Checks that two long samples have no linear correlation."""
    z = np.corrcoef(a, b)[0, 1] * np.sqrt(len(a))
    assert abs(z) < SIGMAS, f"correlation of {z:.1f} standard deviations"


def best_accuracy(feature: np.ndarray, label: np.ndarray) -> float:
    """The accuracy of the best classifier of a binary label from one small integer."""
    counts = np.stack([np.bincount(feature[label == value], minlength=feature.max() + 1) for value in (0, 1)])
    return counts.max(axis=0).sum() / counts.sum()
