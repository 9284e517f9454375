"""Power laws fitted to losses, and the coverage of their predictions."""

from __future__ import annotations

import random

import pytest

from gptkit.experiments import power_law
from gptkit.experiments.power_law import PowerLaw, fit_law, fit_power_law

SIZES = (2e5, 5e5, 1e6, 2e6, 5e6)


@pytest.mark.parametrize("exponent", [0.05, 0.34, 0.8])
@pytest.mark.parametrize("floor", [0.0, 1.69])
def test_exact_losses_give_the_law_back(exponent: float, floor: float) -> None:
    law = PowerLaw(floor, 406.4 if exponent > 0.1 else 8.0, exponent)
    fitted = fit_power_law(SIZES, [law(x) for x in SIZES], floor=floor > 0)
    assert fitted.exponent == pytest.approx(exponent, rel=1e-3)
    assert fitted.floor == pytest.approx(floor, abs=0.01)
    assert fitted(3e7) == pytest.approx(law(3e7), rel=1e-4)


def test_unit_of_the_size_does_not_matter() -> None:
    losses = [4.1, 3.7, 3.5, 3.3, 3.15]
    one, other = (fit_power_law([x * unit for x in SIZES], losses, floor=True) for unit in (1, 1e9))
    assert one(1e7) == pytest.approx(other(1e16), rel=1e-6)


def test_losses_that_do_not_fall_give_a_constant() -> None:
    fitted = fit_power_law(SIZES, [3.0, 3.1, 3.2, 3.3, 3.4], floor=True)
    assert fitted.factor == 0
    assert fitted(1e9) == pytest.approx(3.2)


def test_noise_is_pooled_from_seeds_and_residuals() -> None:
    law = PowerLaw(1.5, 100.0, 0.3)
    losses = [[law(x) - 0.01, law(x) + 0.01] for x in SIZES]
    fit = fit_law(SIZES, losses, floor=True)
    assert fit.freedom == 5 + 2
    # Σ (±0.01)² over ten trainings, for the mean of two seeds.
    assert fit.noise == pytest.approx((10 * 0.01**2 / 2 / 7) ** 0.5, rel=1e-3)
    worse = fit_law(
        SIZES, [[value + 0.1 * (-1) ** index for value in each] for index, each in enumerate(losses)], floor=True
    )
    assert worse.noise is not None
    assert worse.noise > 5 * (fit.noise or 1)


def test_no_interval_without_any_sign_of_the_noise() -> None:
    fit = fit_law(SIZES[:3], [[4.0], [3.5], [3.2]], floor=True)
    prediction = fit.predict(1e7, 1)
    assert fit.noise is None
    assert (prediction.low, prediction.high) == (None, None)
    assert fit.exponent_interval is None


@pytest.mark.parametrize(("n_seeds", "floor"), [(3, True), (1, False)])
def test_intervals_cover_new_trainings(n_seeds: int, floor: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 95 % interval of a size twice as large contains its measured loss in about 95 % of simulated experiments."""
    monkeypatch.setattr(power_law, "_REPLICAS", 80)
    monkeypatch.setattr(power_law, "_GRID", 24)
    draw, law, noise, repetitions = random.Random(4), PowerLaw(1.7 if floor else 0.0, 60.0, 0.25), 0.01, 60
    covered = 0
    for _ in range(repetitions):
        losses = [[law(x) + draw.gauss(0, noise) for _ in range(n_seeds)] for x in SIZES]
        prediction = fit_law(SIZES, losses, floor=floor).predict(1e7, n_seeds)
        measured = sum(law(1e7) + draw.gauss(0, noise) for _ in range(n_seeds)) / n_seeds
        assert prediction.low is not None
        assert prediction.high is not None
        covered += prediction.low <= measured <= prediction.high
    assert 0.86 * repetitions <= covered


def test_equal_losses_give_equal_predictions() -> None:
    losses = [[4.1, 4.12], [3.7, 3.69], [3.5, 3.52], [3.3, 3.29], [3.15, 3.16]]
    assert fit_law(SIZES, losses, floor=True) == fit_law(SIZES, losses, floor=True)
