"""Statistics of repeated trainings: intervals of means, paired tests, and the correction for several tests.

Losses of seeds are treated as independent draws of a normal distribution. Differences are paired: the losses of two variants
with the same seed share the order of the data, so the spread that they have in common cancels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gptkit.experiments.student import two_sided_p, two_sided_quantile

__all__ = ["LEVEL", "Estimate", "PairedTest", "estimate", "holm", "paired_test"]

LEVEL = 0.95
"""Confidence level of intervals; an effect is distinguishable from noise if its corrected p-value is at most 1 - LEVEL."""

_PERMUTED = 16
"""Maximum number of pairs for which all sign flips are computed."""


@dataclass(frozen=True)
class Estimate:
    """Mean of several values, with its confidence interval.

    Attributes:
        mean: the mean.
        low: lower bound of the interval; None for a single value.
        high: upper bound.
        deviation: standard deviation of the values (with n - 1); None for a single value.
        n: number of values.
    """

    mean: float
    low: float | None
    high: float | None
    deviation: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half of the width of the interval."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True)
class PairedTest:
    """Test of the mean of paired differences against zero.

    Attributes:
        difference: the mean difference and its interval.
        p: two-sided p-value of the paired t-test; None for a single pair.
        p_flips: two-sided p-value of the sign-flip permutation test, which assumes symmetry only; None for a single pair, or
            for more pairs than can be enumerated.
        smallest_p_flips: the smallest value that `p_flips` can have with this number of pairs.
    """

    difference: Estimate
    p: float | None
    p_flips: float | None
    smallest_p_flips: float | None


def estimate(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Return the mean of values and its confidence interval by Student's t: mean ± t · s / √n.

    Args:
        values: at least one finite value.
        level: the confidence level.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, None, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = two_sided_quantile(level, n - 1) * deviation / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, deviation, n)


def paired_test(differences: Sequence[float], level: float = LEVEL) -> PairedTest:
    """Test whether the mean of paired differences is zero.

    Args:
        differences: one difference per seed.
        level: confidence level of the interval.
    """
    difference = estimate(differences, level)
    if difference.deviation is None:
        return PairedTest(difference, None, None, None)
    if difference.deviation == 0:
        p = 1.0 if difference.mean == 0 else 0.0
    else:
        p = two_sided_p(difference.mean / (difference.deviation / math.sqrt(difference.n)), difference.n - 1)
    flips = _flips(differences) if difference.n <= _PERMUTED else None
    return PairedTest(difference, p, flips, None if flips is None else 2.0 ** (1 - difference.n))


def _flips(differences: Sequence[float]) -> float:
    """Return the share of all assignments of signs whose sum is at least as far from zero as the observed one."""
    observed = abs(math.fsum(differences))
    # Rounding of sums must not decide about ties.
    limit = observed - 1e-12 * max(1.0, math.fsum(abs(value) for value in differences))
    first, *rest = differences
    # Flipping all signs gives the same distance, so the first sign is fixed.
    signs = itertools.product((1, -1), repeat=len(rest))
    sums = (first + math.fsum(sign * value for sign, value in zip(each, rest, strict=True)) for each in signs)
    return sum(abs(total) >= limit for total in sums) / float(2 ** len(rest))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for several tests, in their order.

    The smallest of m is multiplied by m, the next one by m - 1, and so on; a corrected value is never below an earlier one.
    The probability of at least one wrong rejection is at most the level, for any dependence between the tests.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
