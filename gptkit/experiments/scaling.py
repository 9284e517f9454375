"""`scaling`: train a ladder of sizes of a spec, fit a power law to their losses, and predict a larger size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gptkit.core.errors import GptkitError
from gptkit.experiments.measures import LOSS, problem, values
from gptkit.experiments.power_law import LawFit, Prediction, fit_law, least_sizes
from gptkit.experiments.results import Experiment, Variant

__all__ = ["By", "Point", "Scaling", "analyze", "default_sizes", "require_sizes", "size_label"]

By = Literal["parameters", "flops"]

_SHARES = (0.25, 0.375, 0.5, 0.75)
"""Widths of the default ladder, as shares of the spec's own."""

_WIDTH_STEP, _WIDTHS = 8, 24


@dataclass(frozen=True)
class Point:
    """Losses of one size.

    Attributes:
        label: the label of the size.
        x: the size: parameters, or operations per token.
        parameters: number of parameters.
        flops_per_token: floating-point operations of a forward pass per token.
        losses: the validation loss of each seed; empty if it was not trained.
    """

    label: str
    x: float
    parameters: int
    flops_per_token: float
    losses: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """The mean loss."""
        return math.fsum(self.losses) / len(self.losses) if self.losses else None


@dataclass(frozen=True)
class Scaling:
    """A fitted ladder.

    Attributes:
        name: the name of the experiment.
        command: the command that repeats it.
        by: what the size is measured in.
        n_seeds: number of seeds of each size.
        tokens: numbers of tokens that the sizes were trained on.
        ladder: the sizes of the fit, the smallest first.
        fit: the fit.
        target: the size that is predicted, with its losses if it was trained.
        prediction: the prediction.
        backtest: what a fit to all but the largest size of the ladder predicts for it; None with too few sizes.
        omitted: why sizes of the ladder have no result, by label.
    """

    name: str
    command: str
    by: By
    n_seeds: int
    tokens: tuple[int, ...]
    ladder: tuple[Point, ...]
    fit: LawFit
    target: Point
    prediction: Prediction
    backtest: Prediction | None
    omitted: Mapping[str, str]

    @property
    def error(self) -> float | None:
        """Prediction minus measured loss of the target, relative to the loss; None if it was not trained."""
        return None if self.target.mean is None else self.prediction.mean / self.target.mean - 1

    @property
    def covered(self) -> bool | None:
        """Whether the interval contains the measured loss; None if it was not trained, or without an interval."""
        if self.target.mean is None or self.prediction.low is None or self.prediction.high is None:
            return None
        return self.prediction.low <= self.target.mean <= self.prediction.high


def analyze(experiment: Experiment, target: str, *, by: By = "parameters", floor: bool | None = None) -> Scaling:
    """Fit the law to the trained sizes of an experiment, and predict one of them.

    Args:
        experiment: one variant for each size.
        target: the label of the size that is predicted; its losses are not used for the fit.
        by: what the size is measured in.
        floor: whether E is fitted; None for yes with four sizes or more.

    Raises:
        GptkitError: too few sizes have results.
    """
    losses = values(experiment, LOSS)
    points = sorted((_point(variant, losses[variant.key], by) for variant in experiment.variants), key=lambda point: point.x)
    own = next(point for point in points if point.label == target)
    ladder = [point for point in points if point.label != target and point.losses]
    floor = len(ladder) >= least_sizes(True) if floor is None else floor
    if len(ladder) < least_sizes(floor):
        raise GptkitError(
            f"{len(ladder)} sizes have results, and a fit needs {least_sizes(floor)}",
            hint="Add sizes: --sizes, or see why trainings failed in the experiment's directory.",
        )
    if len({point.x for point in ladder}) < len(ladder):
        raise GptkitError(f"two sizes have the same number of {by}", hint="Choose other sizes: --sizes.")
    fit = _fit(ladder, floor)
    n_seeds = len(experiment.seeds)
    reasons = {
        experiment.variant(trial.variant).size or "": reason
        for trial in experiment.trials
        if (reason := problem(trial)) is not None and experiment.variant(trial.variant).size != target
    }
    return Scaling(
        experiment.name,
        experiment.command,
        by,
        n_seeds,
        tuple(sorted({trial.tokens for trial in experiment.trials if trial.tokens is not None})),
        tuple(ladder),
        fit,
        own,
        fit.predict(own.x, len(own.losses) or n_seeds),
        _backtest(ladder, floor),
        reasons,
    )


def require_sizes(count: int, floor: bool | None) -> None:
    """Raise if a ladder has too few sizes for a fit.

    Args:
        count: number of sizes, without the predicted one.
        floor: whether the law has a floor E; None for yes if the sizes suffice.

    Raises:
        GptkitError: states both numbers.
    """
    least = least_sizes(bool(floor))
    if count < least:
        fewer = ", or omit --floor" if floor and count >= least_sizes(False) else ""
        raise GptkitError(
            f"{count} size{'' if count == 1 else 's'} below the predicted one, and a fit needs {least}",
            hint=f"Add sizes: --sizes{fewer}. Nothing was trained.",
        )


def size_label(changes: Mapping[str, Any]) -> str:
    """Return the label of a size: ``128x4`` for width and layers."""
    layers = changes.get("model.n_layers")
    return str(changes["model.d_model"]) + ("" if layers is None else f"x{layers}")


def default_sizes(base: str, changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a ladder below a spec: widths of 1/4, 3/8, 1/2 and 3/4 of its own, and as many layers in proportion.

    A width is the valid one that is closest. Layers are changed unless the spec lists them.

    Args:
        base: the spec file, or the name of a preset.
        changes: values by dotted path that all sizes have.

    Raises:
        GptkitError: the spec is invalid, or the widths are too close to each other.
    """
    from gptkit.runs.opening import open_spec

    model = open_spec(base, changes=changes).spec.model
    result: dict[str, dict[str, Any]] = {}
    for share in _SHARES:
        layers = {} if model.layers is not None else {"model.n_layers": max(1, round(share * model.n_layers))}
        wanted = share * model.d_model
        size = _closest(base, {**changes, **layers}, wanted)
        if size is not None and size < model.d_model:
            chosen = {"model.d_model": size, **layers}
            result[size_label(chosen)] = chosen
    if len(result) < least_sizes(False):
        raise GptkitError(
            f"a width of {model.d_model} has no ladder of valid smaller widths",
            hint="Give the sizes: --sizes 64x2,96x3,128x4",
        )
    return result


def _closest(base: str, changes: Mapping[str, Any], wanted: float) -> int | None:
    """Return the valid width that is closest to the wanted one."""
    from gptkit.runs.opening import open_spec

    middle = round(wanted / _WIDTH_STEP)
    candidates = sorted(range(max(1, middle - _WIDTHS), middle + _WIDTHS + 1), key=lambda at: abs(at * _WIDTH_STEP - wanted))
    for candidate in candidates:
        width = candidate * _WIDTH_STEP
        try:
            open_spec(base, changes={**changes, "model.d_model": width})
        except GptkitError:
            continue  # not divisible by the number of heads, for example
        return width
    return None


def _point(variant: Variant, losses: Mapping[int, float], by: By) -> Point:
    x = float(variant.parameters) if by == "parameters" else variant.flops_per_token
    return Point(variant.size or variant.label, x, variant.parameters, variant.flops_per_token, tuple(losses.values()))


def _fit(points: Sequence[Point], floor: bool) -> LawFit:
    return fit_law([point.x for point in points], [point.losses for point in points], floor=floor)


def _backtest(ladder: Sequence[Point], floor: bool) -> Prediction | None:
    """Return the prediction of the largest size of the ladder from the others; without E if they are too few for it."""
    rest, last = ladder[:-1], ladder[-1]
    if len(rest) < least_sizes(False):
        return None
    return _fit(rest, floor and len(rest) >= least_sizes(True)).predict(last.x, len(last.losses))
