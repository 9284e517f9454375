"""Proposals of a search, by Optuna (https://optuna.org)."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.core.errors import RequirementError
from gptkit.experiments.search_spec import Range, SearchSpec
from gptkit.reflect.snippets import flow

__all__ = ["propose"]

_DIGITS = 4
"""Significant digits of proposed numbers: more would not change a result, but are long in tables."""

_PATIENCE = 100
"""Proposals in a row that were tried already, after which a search ends."""


def propose(search: SearchSpec, known: Sequence[tuple[Mapping[str, Any], float | None]], count: int) -> list[dict[str, Any]]:
    """Return new settings, from the results of earlier ones.

    Equal arguments give equal settings: an interrupted search that is resumed proposes what it would have proposed.

    Args:
        search: the ranges, sampler and seed.
        known: the settings tried so far, in their order, with the loss; None if the setting is invalid or diverged.
        count: number of settings.

    Returns:
        Values by dotted path; fewer than `count` if all settings of the ranges were tried.

    Raises:
        RequirementError: Optuna is not installed.
    """
    optuna = _optuna()
    seed = search.seed + len(known)
    samplers = optuna.samplers
    sampler = samplers.RandomSampler(seed=seed)
    if search.sampler == "tpe":
        sampler = samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    distributions = {path: _distribution(optuna, each) for path, each in search.ranges.items()}
    for point, loss in known:
        if set(point) != set(search.ranges) or not all(each.contains(point[path]) for path, each in search.ranges.items()):
            continue
        study.add_trial(
            optuna.trial.create_trial(
                params={path: _to_optuna(search.ranges[path], value) for path, value in point.items()},
                distributions=distributions,
                value=math.inf if loss is None else loss,
            )
        )
    proposed: list[dict[str, Any]] = []
    tried = [dict(point) for point, _ in known]
    repeated = 0
    while len(proposed) < count and repeated < _PATIENCE:
        trial = study.ask(distributions)
        point = {path: _from_optuna(each, trial.params[path]) for path, each in search.ranges.items()}
        if point in tried or point in proposed:
            repeated += 1  # the study counts it as running, so the next proposal differs
            continue
        repeated = 0
        proposed.append(point)
    return proposed


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise RequirementError(
            "a search needs optuna, which is not installed", hint="Run: pip install 'gptkit[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _distribution(optuna: Any, values: Range) -> Any:
    distributions = optuna.distributions
    if values.values:
        # Optuna accepts scalars only; a component may be a mapping, so choices are written as text.
        return distributions.CategoricalDistribution([flow(value) for value in values.values])
    if values.is_whole:
        return distributions.IntDistribution(values.low, values.high, log=values.log, step=values.step or 1)
    return distributions.FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _to_optuna(values: Range, value: Any) -> Any:
    return flow(value) if values.values else value


def _from_optuna(values: Range, value: Any) -> Any:
    if values.values:
        return next(each for each in values.values if flow(each) == value)
    if values.is_whole:
        return int(value)
    rounded = float(f"{value:.{_DIGITS}g}")
    assert values.low is not None
    assert values.high is not None
    return min(max(rounded, float(values.low)), float(values.high))
