"""Statistics of experiments, compared with known values."""

from __future__ import annotations

import math
import random

import pytest

from gptkit.experiments.statistics import estimate, holm, paired_test
from gptkit.experiments.student import two_sided_p, two_sided_quantile

# Quantiles of the 95 % interval, from published tables of Student's t distribution.
TABLE_95 = {1: 12.7062047, 2: 4.30265273, 3: 3.18244631, 4: 2.77644511, 5: 2.57058184, 9: 2.26215716, 30: 2.04227246}


@pytest.mark.parametrize(("freedom", "expected"), TABLE_95.items())
def test_quantiles_equal_published_tables(freedom: int, expected: float) -> None:
    assert two_sided_quantile(0.95, freedom) == pytest.approx(expected, rel=1e-8)


def test_quantiles_equal_closed_forms_and_the_normal_limit() -> None:
    for level in (0.5, 0.9, 0.99, 0.999):
        assert two_sided_quantile(level, 1) == pytest.approx(math.tan(math.pi * level / 2), rel=1e-10)
        assert two_sided_quantile(level, 2) == pytest.approx(level * math.sqrt(2 / (1 - level**2)), rel=1e-10)
    assert two_sided_quantile(0.95, 1e7) == pytest.approx(1.959963985, rel=1e-6)


@pytest.mark.parametrize("t", [0.0, 1e-8, 0.1, 0.9, 1.0, 3.0, 50.0, 1e6])
def test_p_values_equal_closed_forms(t: float) -> None:
    assert two_sided_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-6, abs=1e-15)
    expected = 2 / ((2 + t * t) * (1 + t / math.sqrt(2 + t * t)))  # 1 - t / sqrt(2 + t²) without cancellation
    assert two_sided_p(t, 2) == pytest.approx(expected, rel=1e-9)
    assert two_sided_p(-t, 2) == two_sided_p(t, 2)


def test_p_values_equal_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 7, 19, 200):
        for t in (0.01, 0.5, 1.7, 4.0, 12.0):
            assert two_sided_p(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9)


def test_interval_of_a_mean() -> None:
    result = estimate([4.0, 5.0, 6.0])
    assert result.mean == 5.0
    assert result.deviation == pytest.approx(1.0)
    assert result.half == pytest.approx(4.30265273 / math.sqrt(3))
    assert estimate([4.0]).half is None


def test_paired_test_of_the_sleep_data() -> None:
    """Student's own example (1908): t = -4.0621, p = 0.002833 with 9 degrees of freedom, interval -2.4599 to -0.7001."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    test = paired_test([a - b for a, b in zip(first, second, strict=True)])
    assert test.p == pytest.approx(0.00283289, rel=1e-5)
    assert test.difference.low == pytest.approx(-2.4598858, abs=1e-5)
    assert test.difference.high == pytest.approx(-0.7001142, abs=1e-5)
    # No difference is positive and one is zero: its sign does not matter.
    assert test.p_flips == pytest.approx(2 / 2**9)
    assert test.smallest_p_flips == pytest.approx(2 / 2**10)


def test_sign_flips_are_enumerated() -> None:
    assert paired_test([1.0, 2.0, 3.0]).p_flips == pytest.approx(2 / 8)
    assert paired_test([1.0, -2.0, 3.0]).p_flips == pytest.approx(6 / 8)  # |2| is reached by all but ±(1 - 2 + … = 0)
    assert paired_test([0.0, 0.0]).p_flips == 1.0
    assert paired_test([0.0, 0.0]).p == 1.0
    assert paired_test([0.5]).p is None
    assert paired_test([0.1 * i for i in range(20)]).p_flips is None


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_p_values_of_equal_variants_are_uniform(n_seeds: int) -> None:
    """With normal noise, the test at 5 % rejects 5 % of the repetitions, and the interval covers zero in 95 %."""
    draw, repetitions = random.Random(7), 6000
    rejected = covered = 0
    for _ in range(repetitions):
        test = paired_test([draw.gauss(0, 0.02) - draw.gauss(0, 0.02) for _ in range(n_seeds)])
        assert test.p is not None
        assert test.difference.low is not None
        assert test.difference.high is not None
        rejected += test.p <= 0.05
        covered += test.difference.low <= 0 <= test.difference.high
    spread = 4 * math.sqrt(0.05 * 0.95 / repetitions)
    assert rejected / repetitions == pytest.approx(0.05, abs=spread)
    assert covered == repetitions - rejected
