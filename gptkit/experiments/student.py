"""Student's t distribution: distribution function and quantiles, without further dependencies."""

from __future__ import annotations

import math
from functools import cache

__all__ = ["two_sided_p", "two_sided_quantile"]

_TINY = 1e-300
_ITERATIONS = 10_000


def two_sided_p(t: float, freedom: float) -> float:
    """Return P(|T| >= |t|).

    Uses P(|T| >= |t|) = I_x(ν/2, 1/2) with x = ν / (ν + t²), where I is the regularized incomplete beta function.

    Args:
        t: the statistic; infinite for differences without spread.
        freedom: degrees of freedom ν.
    """
    if math.isinf(t):
        return 0.0
    square = t * t
    return _beta(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square))


@cache
def two_sided_quantile(level: float, freedom: float) -> float:
    """Return q with P(|T| <= q) = `level`: the factor of a confidence interval.

    Args:
        level: the confidence level, as in 0.95.
        freedom: degrees of freedom.
    """
    target = 1 - level
    low, high = 0.0, 1.0
    while two_sided_p(high, freedom) > target:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if two_sided_p(middle, freedom) > target:
            low = middle
        else:
            high = middle


def _beta(a: float, b: float, x: float, complement: float) -> float:
    """Return I_x(a, b); `complement` is 1 - x, given apart so that small values keep their digits."""
    if x <= 0 or complement <= 0:
        return 0.0 if x <= 0 else 1.0
    factor = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(complement))
    # The fraction converges fast on one side of the mean only; the other side is its complement.
    if x < (a + 1) / (a + b + 2):
        return factor * _fraction(a, b, x) / a
    return 1 - factor * _fraction(b, a, complement) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction of the incomplete beta function by Lentz's method.

    Source: Press et al., Numerical Recipes, 3rd edition, section 6.4.
    """
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _ITERATIONS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _nonzero(1 + term * d)
            c = _nonzero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
