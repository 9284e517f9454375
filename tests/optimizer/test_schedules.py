"""Schedules against their closed forms."""

from __future__ import annotations

import itertools
import math

import pytest

from gptkit.components.schedule.constant import ConstantSpec
from gptkit.components.schedule.cosine import CosineSpec
from gptkit.components.schedule.cosine_restarts import CosineRestartsSpec
from gptkit.components.schedule.inverse_sqrt import InverseSqrtSpec
from gptkit.components.schedule.linear import LinearSpec
from gptkit.components.schedule.polynomial import PolynomialSpec
from gptkit.components.schedule.wsd import WSDSpec
from gptkit.kinds.optimizer import ScheduleSpec

ALL = [ConstantSpec, CosineSpec, CosineRestartsSpec, InverseSqrtSpec, LinearSpec, PolynomialSpec, WSDSpec]


@pytest.mark.parametrize("spec", ALL)
def test_warmup_rises_linearly_and_reaches_the_peak_at_its_last_step(spec: type[ScheduleSpec]) -> None:
    schedule = spec.model_validate({"warmup_steps": 10})
    assert [schedule.factor(step, 100) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert schedule.factor(10, 100) == pytest.approx(1.0)


def test_constant_rate_after_warmup() -> None:
    assert {ConstantSpec().factor(step, 100) for step in (0, 50, 99)} == {1.0}


@pytest.mark.parametrize("step", [20, 35, 60, 99, 100])
def test_cosine_equals_its_formula(step: int) -> None:
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 20) / 80)) / 2
    assert CosineSpec(warmup_steps=20, final=0.1).factor(step, 100) == pytest.approx(expected)


def test_cosine_at_known_points() -> None:
    schedule = CosineSpec(final=0.2)
    assert [schedule.factor(step, 100) for step in (0, 50, 100, 150)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


@pytest.mark.parametrize(("step", "expected"), [(20, 1.0), (40, 0.8), (60, 0.6), (100, 0.2), (120, 0.2)])
def test_linear_equals_its_formula(step: int, expected: float) -> None:
    assert LinearSpec(warmup_steps=20, final=0.2).factor(step, 100) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "quarter"), [("linear", 0.25), ("sqrt", 0.5), ("cosine", (1 - math.cos(math.pi / 4)) / 2)]
)
def test_wsd_decays_at_the_end(shape: str, quarter: float) -> None:
    schedule = WSDSpec.model_validate({"decay": 0.4, "shape": shape, "final": 0.1})
    assert schedule.factor(60, 100) == 1.0
    assert schedule.factor(70, 100) == pytest.approx(1 - 0.9 * quarter)
    assert schedule.factor(100, 100) == pytest.approx(0.1)


def test_wsd_before_its_decay_does_not_depend_on_the_length() -> None:
    schedule = WSDSpec(warmup_steps=5, decay=0.2)
    assert [schedule.factor(step, 100) for step in range(80)] == [schedule.factor(step, 500) for step in range(80)]


def test_exponential_decay_of_wsd_has_equal_ratios() -> None:
    schedule = WSDSpec(decay=0.4, shape="exponential", final=0.01)
    factors = [schedule.factor(step, 100) for step in range(60, 101)]
    assert (factors[0], factors[-1]) == pytest.approx((1.0, 0.01))
    assert [b / a for a, b in itertools.pairwise(factors)] == pytest.approx([0.01 ** (1 / 40)] * 40)


def test_exponential_decay_to_zero_is_rejected() -> None:
    (problem,) = WSDSpec(shape="exponential").problems(None)
    assert problem.path == ("shape",)
    assert not list(WSDSpec(shape="exponential", final=0.01).problems(None))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # arXiv 1706.03762, equation 3, relative to the peak
        ({"warmup_steps": 40}, [math.sqrt(40 / step) for step in (40, 41, 160, 4000)]),
        # arXiv 1804.04235: min(0.01, 1 / sqrt(t)), relative to 0.01
        ({"timescale": 10_000, "shift": 0}, [min(1.0, 100 / math.sqrt(step)) for step in (40, 41, 160, 4000)]),
        ({"timescale": 100, "shift": 0}, [min(1.0, 10 / math.sqrt(step)) for step in (40, 41, 160, 4000)]),
        ({"warmup_steps": 10, "timescale": 50}, [math.sqrt(50 / (step - 10 + 50)) for step in (40, 41, 160, 4000)]),
    ],
)
def test_inverse_sqrt_equals_its_forms(fields: dict[str, int], expected: list[float]) -> None:
    schedule = InverseSqrtSpec.model_validate(fields)
    for steps in (100, 5000):
        assert [schedule.factor(step, steps) for step in (40, 41, 160, 4000)] == pytest.approx(expected)


@pytest.mark.parametrize(("step", "expected"), [(20, 1.0), (40, 0.2 + 0.8 * 0.75**3), (60, 0.3), (100, 0.2), (120, 0.2)])
def test_polynomial_equals_its_formula(step: int, expected: float) -> None:
    assert PolynomialSpec(warmup_steps=20, power=3.0, final=0.2).factor(step, 100) == pytest.approx(expected)


def test_polynomial_of_power_1_is_linear() -> None:
    pair = PolynomialSpec(warmup_steps=7, power=1.0, final=0.1), LinearSpec(warmup_steps=7, final=0.1)
    one, other = ([schedule.factor(step, 60) for step in range(61)] for schedule in pair)
    assert one == pytest.approx(other)


@pytest.mark.parametrize("growth", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("cycles", [1, 2, 3, 6])
def test_each_cycle_of_cosine_restarts_is_a_cosine(growth: float, cycles: int) -> None:
    first, warmup = 64, 5
    lengths = [round(first * growth**cycle) for cycle in range(cycles)]
    if any(length != first * growth**cycle for cycle, length in enumerate(lengths)):
        lengths = lengths[:1]  # cycles of whole steps only
        cycles = 1
    schedule = CosineRestartsSpec(warmup_steps=warmup, cycles=cycles, growth=growth, final=0.1)
    steps, begin = warmup + sum(lengths), warmup
    for length in lengths:
        cycle = CosineSpec(final=0.1)
        factors = [schedule.factor(begin + step, steps) for step in range(length)]
        assert factors == pytest.approx([cycle.factor(step, length) for step in range(length)])
        begin += length
    assert schedule.factor(steps, steps) == pytest.approx(0.1)


@pytest.mark.parametrize("cycles", range(1, 12))
def test_a_cycle_begins_at_the_peak_whatever_the_rounding(cycles: int) -> None:
    for length in (7, 10, 49, 93):
        schedule = CosineRestartsSpec(cycles=cycles)
        assert all(schedule.factor(length * cycle, length * cycles) == 1.0 for cycle in range(cycles))


@pytest.mark.parametrize("spec", ALL)
@pytest.mark.parametrize("warmup", [0, 1, 7, 50])
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_factors_are_between_0_and_1(spec: type[ScheduleSpec], warmup: int, steps: int) -> None:
    schedule = spec.model_validate({"warmup_steps": warmup})
    factors = [schedule.factor(step, steps) for step in range(steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0
