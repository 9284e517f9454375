"""Schedules against their closed forms."""

from __future__ import annotations

import math

import pytest

from gptkit.components.schedule.constant import ConstantSpec
from gptkit.components.schedule.cosine import CosineSpec
from gptkit.components.schedule.linear import LinearSpec
from gptkit.components.schedule.wsd import WSDSpec
from gptkit.kinds.optimizer import ScheduleSpec

ALL = [ConstantSpec, CosineSpec, LinearSpec, WSDSpec]


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


@pytest.mark.parametrize("spec", ALL)
@pytest.mark.parametrize("warmup", [0, 1, 7, 50])
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_factors_are_between_0_and_1(spec: type[ScheduleSpec], warmup: int, steps: int) -> None:
    schedule = spec.model_validate({"warmup_steps": warmup})
    factors = [schedule.factor(step, steps) for step in range(steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0
