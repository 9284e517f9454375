"""Power laws of the loss, loss = E + A · x^-α, fitted to a few sizes, with the uncertainty of their predictions."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gptkit.experiments.statistics import LEVEL

__all__ = ["LawFit", "PowerLaw", "Prediction", "fit_law", "fit_power_law", "least_sizes"]

_LOWEST, _HIGHEST = 0.003, 3.0
_GRID = 48
_REPLICAS = 1000


@dataclass(frozen=True)
class PowerLaw:
    """loss = E + A · x^-α.

    Attributes:
        floor: E, the loss of an infinite size; 0 for a law without it.
        factor: A.
        exponent: α.
    """

    floor: float
    factor: float
    exponent: float

    def __call__(self, x: float) -> float:
        return self.floor + self.factor * math.pow(x, -self.exponent)


@dataclass(frozen=True)
class Prediction:
    """Predicted mean loss of new trainings.

    Attributes:
        mean: the value of the fitted law.
        low: lower bound of the interval; None if the noise is unknown.
        high: upper bound.
    """

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class LawFit:
    """Fitted law and its uncertainty.

    Attributes:
        law: the fitted law.
        has_floor: whether E was fitted.
        noise: standard deviation of the mean loss of a size; None if neither seeds nor residuals show it.
        freedom: degrees of freedom of `noise`.
        n_seeds: mean number of seeds of a size.
        replicas: laws fitted to simulated losses; empty if the noise is unknown.
        noises: the noise of each replica.
    """

    law: PowerLaw
    has_floor: bool
    noise: float | None
    freedom: int
    n_seeds: float
    replicas: tuple[PowerLaw, ...]
    noises: tuple[float, ...]

    @property
    def exponent_interval(self) -> tuple[float, float] | None:
        """The interval of α."""
        return _interval([law.exponent for law in self.replicas])

    @property
    def floor_interval(self) -> tuple[float, float] | None:
        """The interval of E."""
        return _interval([law.floor for law in self.replicas]) if self.has_floor else None

    def band(self, x: float) -> tuple[float, float] | None:
        """Return the interval of the law at a size, without the noise of a training."""
        return _interval([law(x) for law in self.replicas])

    def predict(self, x: float, n_seeds: int) -> Prediction:
        """Predict the mean loss of trainings with a new size.

        Args:
            x: the size.
            n_seeds: over how many seeds it is averaged.
        """
        draw = random.Random(1)
        share = math.sqrt(self.n_seeds / n_seeds)
        values = [law(x) + draw.gauss(0, noise * share) for law, noise in zip(self.replicas, self.noises, strict=True)]
        low, high = _interval(values) or (None, None)
        return Prediction(self.law(x), low, high)


def least_sizes(floor: bool) -> int:
    """Return how many sizes a fit needs at least: one more than it has parameters."""
    return 4 if floor else 3


def fit_law(sizes: Sequence[float], losses: Sequence[Sequence[float]], *, floor: bool) -> LawFit:
    """Fit a law to the mean losses of sizes, and estimate its uncertainty by a parametric bootstrap.

    The noise is pooled from the spread over seeds and from the residuals of the fit, so a law that does not describe the
    losses has wider intervals. Each replica draws a noise from its χ² distribution, simulates the losses of all sizes, and
    fits them again.

    Args:
        sizes: the number of parameters, or another size above 0.
        losses: the losses of the seeds of each size.
        floor: whether E is fitted; otherwise it is 0.
    """
    means = [math.fsum(each) / len(each) for each in losses]
    law = fit_power_law(sizes, means, floor=floor)
    n_seeds = math.fsum(len(each) for each in losses) / len(losses)
    within = math.fsum((value - mean) ** 2 for each, mean in zip(losses, means, strict=True) for value in each)
    residual = math.fsum((mean - law(x)) ** 2 for x, mean in zip(sizes, means, strict=True))
    freedom = sum(len(each) - 1 for each in losses) + len(sizes) - (3 if floor else 2)
    if freedom < 1:
        return LawFit(law, floor, None, 0, n_seeds, (), ())
    noise = math.sqrt((within / n_seeds + residual) / freedom)
    draw = random.Random(0)
    replicas, noises = [], []
    for _ in range(_REPLICAS):
        # χ² with ν degrees of freedom is a gamma distribution with shape ν / 2 and scale 2.
        own = noise * math.sqrt(freedom / draw.gammavariate(freedom / 2, 2))
        simulated = [law(x) + draw.gauss(0, own) for x in sizes]
        replicas.append(fit_power_law(sizes, simulated, floor=floor))
        noises.append(own)
    return LawFit(law, floor, noise, freedom, n_seeds, tuple(replicas), tuple(noises))


def fit_power_law(sizes: Sequence[float], losses: Sequence[float], *, floor: bool) -> PowerLaw:
    """Fit a law by least squares, with E and A at least 0.

    For a given α the law is linear in E and A, so α is the only one that is searched for: on a grid of its logarithm, then
    by golden section around the best point.

    Args:
        sizes: the sizes.
        losses: the loss of each size.
        floor: whether E is fitted; otherwise it is 0.
    """
    # Relative to the middle, powers stay near 1 for any unit of the sizes.
    middle = math.exp(math.fsum(math.log(size) for size in sizes) / len(sizes))
    logs = [math.log(size / middle) for size in sizes]

    def solved(log_exponent: float) -> tuple[float, float, float]:
        """Return the squared error, E and the factor for an exponent."""
        exponent = math.exp(log_exponent)
        powers = [math.exp(-exponent * each) for each in logs]
        own_floor, factor = _linear(powers, losses) if floor else (0.0, _proportional(powers, losses))
        error = math.fsum((own_floor + factor * p - y) ** 2 for p, y in zip(powers, losses, strict=True))
        return error, own_floor, factor

    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    step = (high - low) / _GRID
    best = min((low + step * at for at in range(_GRID + 1)), key=lambda at: solved(at)[0])
    best_log = _golden(lambda at: solved(at)[0], max(low, best - step), min(high, best + step))
    _, own_floor, factor = solved(best_log)
    exponent = math.exp(best_log)
    return PowerLaw(own_floor, factor * middle**exponent, exponent)


def _linear(powers: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """Return E >= 0 and A >= 0 of the least squares."""
    n = len(powers)
    mean_p, mean_y = math.fsum(powers) / n, math.fsum(losses) / n
    spread = math.fsum((p - mean_p) ** 2 for p in powers)
    slope = math.fsum((p - mean_p) * (y - mean_y) for p, y in zip(powers, losses, strict=True)) / spread if spread else 0.0
    if slope <= 0:
        return mean_y, 0.0
    floor = mean_y - slope * mean_p
    return (floor, slope) if floor >= 0 else (0.0, _proportional(powers, losses))


def _proportional(powers: Sequence[float], losses: Sequence[float]) -> float:
    return math.fsum(p * y for p, y in zip(powers, losses, strict=True)) / math.fsum(p * p for p in powers)


def _golden(error: Callable[[float], float], low: float, high: float) -> float:
    """Return the minimum of a function with one minimum between two values."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    error_a, error_b = error(a), error(b)
    while high - low > 1e-7:
        if error_a < error_b:
            high, b, error_b = b, a, error_a
            a = high - ratio * (high - low)
            error_a = error(a)
        else:
            low, a, error_a = a, b, error_b
            b = low + ratio * (high - low)
            error_b = error(b)
    return (low + high) / 2


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the quantiles that enclose LEVEL of the values."""
    if not values:
        return None
    ordered = sorted(values)
    tail = (1 - LEVEL) / 2 * (len(ordered) - 1)
    return ordered[math.floor(tail)], ordered[math.ceil(len(ordered) - 1 - tail)]
