"""Content of a report as plain data, from which the page, the Markdown and the figures are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from gptkit.core.diff import ABSENT, differences
from gptkit.core.errors import GptkitError
from gptkit.experiments.effects import Effect, effects, effects_by_size, persistence, sentence
from gptkit.experiments.measures import Measure, Row, cautions, chosen_variants, measure_of, problem, rows, values
from gptkit.experiments.results import Experiment, Trial, Variant
from gptkit.experiments.statistics import LEVEL, Estimate, estimate
from gptkit.reflect.snippets import flow, plain

__all__ = ["report_data"]

_POINTS = 128
"""Maximum number of points of a loss by position within the trained window, and of those beyond it."""


def report_data(experiment: Experiment) -> dict[str, Any]:
    """Return the content of an experiment's report; equal results have equal content."""
    measure = measure_of(experiment)
    chosen = chosen_variants(experiment, measure)
    keys = {variant.key for variant in chosen}
    table = rows(experiment, measure)
    judged = effects(experiment, measure)
    finished = [trial for trial in experiment.trials if problem(trial) is None]
    curves = [_curve(experiment, variant) for variant in chosen]
    positions = [_positions(experiment, variant) for variant in chosen]
    tokens = sorted({trial.tokens for trial in finished if trial.tokens is not None})
    return {
        "name": experiment.name,
        "question": experiment.question,
        "command": experiment.command,
        "measure": {"title": measure.title, "unit": measure.unit, "bits": measure.field == "bits_per_byte"},
        "seeds": list(experiment.seeds),
        "n_variants": len(experiment.variants),
        "n_trials": len(experiment.trials),
        "n_finished": len(finished),
        "tokens": tokens,
        "match": experiment.match,
        "findings": [sentence(effect, measure) for effect in judged],
        "effects": [_effect(effect, measure) for effect in judged],
        "sizes": _sizes(experiment, measure),
        "cautions": cautions(experiment, measure),
        "method": _method(experiment, judged),
        "rows": [_row(row) for row in table if row.variant.key in keys],
        "curves": curves,
        "ceilings": {
            "validation": _ceiling([[point[0], point[4]] for curve in curves for point in curve["validation"]], 0.15),
            "training": _ceiling([[point[0], point[4]] for curve in curves for point in curve["training"]], 0.15),
            "positions": _ceiling([[point[0], point[3]] for each in positions for point in each["points"]], 0.04),
        },
        "positions": positions,
        "trained_length": _trained_length(experiment),
        "rates": _rates(experiment, measure),
        "samples": _samples(experiment, chosen),
        "differences": _differences(chosen),
        "failures": [
            {"variant": experiment.variant(trial.variant).label, "seed": trial.seed, "reason": reason}
            for trial in experiment.trials
            if (reason := problem(trial)) is not None
        ],
        "invalid": [{"variant": label, "reason": reason} for label, reason in experiment.invalid.items()],
    }


def _estimate(value: Estimate | None) -> list[float | None] | None:
    """Return mean and half of the interval."""
    return None if value is None else [value.mean, value.half]


def _row(row: Row) -> dict[str, Any]:
    variant = row.variant
    return {
        "label": variant.label,
        "is_base": variant.is_base,
        "size": variant.size,
        "learning_rate": variant.learning_rate,
        "matched": variant.matched,
        "loss": _estimate(row.loss),
        "bits_per_byte": _estimate(row.bits_per_byte),
        "n": 0 if row.measure is None else row.measure.n,
        "n_failed": row.n_failed,
        "extrapolation": _estimate(row.extrapolation),
        "tokens_per_second": row.tokens_per_second,
        "decode_tokens_per_second": row.decode_tokens_per_second,
        "seconds": row.seconds,
        "peak_memory": row.peak_memory,
        "parameters": variant.parameters,
        "flops_per_token": variant.flops_per_token,
        "cache_bytes_per_token": variant.cache_bytes_per_token,
    }


def _effect(effect: Effect, measure: Measure) -> dict[str, Any]:
    difference = None if effect.test is None else effect.test.difference
    return {
        "axis": effect.axis,
        "value": effect.value,
        "baseline": effect.baseline,
        "size": effect.size,
        "mean": None if difference is None else difference.mean,
        "low": None if difference is None else difference.low,
        "high": None if difference is None else difference.high,
        "relative": effect.relative,
        "p": effect.p,
        "p_flips": None if effect.test is None else effect.test.p_flips,
        "smallest_p_flips": None if effect.test is None else effect.test.smallest_p_flips,
        "n": len(effect.seeds),
        "n_settings": effect.n_settings,
        "n_omitted": effect.n_omitted,
        "verdict": effect.verdict,
        "text": sentence(effect, measure),
    }


def _sizes(experiment: Experiment, measure: Measure) -> list[dict[str, Any]]:
    """Return each choice with its effects by size, and whether it holds."""
    by_choice: dict[tuple[str, str], list[Effect]] = {}
    for effect in effects_by_size(experiment, measure):
        by_choice.setdefault((effect.axis, effect.value), []).append(effect)
    return [
        {
            "axis": axis,
            "value": value,
            "baseline": judged[0].baseline,
            "statement": persistence(judged),
            "effects": [_effect(effect, measure) for effect in judged],
        }
        for (axis, value), judged in by_choice.items()
    ]


def _finished(experiment: Experiment, variant: Variant) -> list[Trial]:
    return [trial for trial in experiment.trials_of(variant.key) if problem(trial) is None]


def _curve(experiment: Experiment, variant: Variant) -> dict[str, Any]:
    """Return step, tokens, mean, lowest and highest loss over the seeds, at the steps that all of them have."""
    trials = _finished(experiment, variant)
    return {
        "label": variant.label,
        "validation": list(_over_seeds([[(s, n, validation) for s, n, validation, _ in t.curve] for t in trials])),
        "training": list(_over_seeds([[(s, n, training) for s, n, _, training in t.curve] for t in trials])),
    }


def _ceiling(points: Sequence[Sequence[float]], share: float) -> float | None:
    """Return the highest value after the first share of the horizontal axis.

    Charts end there: the loss falls steeply at first, and would leave little height to the differences between variants.
    """
    last = max((point[0] for point in points), default=0.0)
    return max((point[1] for point in points if point[0] >= share * last), default=None)


def _over_seeds(curves: Sequence[Sequence[tuple[int, int, float | None]]]) -> Iterator[list[float]]:
    by_step = [{step: (tokens, loss) for step, tokens, loss in curve if loss is not None} for curve in curves]
    for step in sorted(set(by_step[0]).intersection(*by_step[1:])) if by_step else ():
        losses = [each[step][1] for each in by_step]
        yield [step, by_step[0][step][0], math.fsum(losses) / len(losses), min(losses), max(losses)]


def _trained_length(experiment: Experiment) -> int | None:
    """Return the number of positions of the trained window, if it is equal in all variants."""
    lengths = {len(t.loss_by_position) for t in experiment.trials if t.loss_by_position is not None}
    return lengths.pop() if len(lengths) == 1 else None


def _positions(experiment: Experiment, variant: Variant) -> dict[str, Any]:
    """Return position, mean, lowest and highest loss over the seeds; neighboring positions are averaged."""
    trials = [trial for trial in _finished(experiment, variant) if trial.loss_by_position is not None]
    within = [trial.loss_by_position or () for trial in trials]
    beyond = [trial.loss_beyond for trial in trials if trial.loss_beyond is not None]
    length = min(map(len, within), default=0)
    points = list(_binned(within, 0))
    if len(beyond) == len(trials):
        points += _binned(beyond, length)
    return {"label": variant.label, "points": points, "extrapolates": bool(trials) and len(beyond) == len(trials)}


def _binned(losses: Sequence[Sequence[float]], first: int) -> Iterator[list[float]]:
    length = min(map(len, losses), default=0)
    width = max(1, math.ceil(length / _POINTS))
    for start in range(0, length, width):
        means = [math.fsum(each[start : start + width]) / len(each[start : start + width]) for each in losses]
        middle = first + start + (min(width, length - start) - 1) / 2
        yield [middle, math.fsum(means) / len(means), min(means), max(means)]


def _rates(experiment: Experiment, measure: Measure) -> list[dict[str, Any]]:
    """Return the measure by learning rate for each choice and size that has several."""
    by_seed = values(experiment, measure)
    groups: dict[str, list[list[float]]] = {}
    for variant in experiment.variants:
        results = list(by_seed[variant.key].values())
        if variant.learning_rate is not None and results:
            name = ", ".join([*variant.choices.values(), *([variant.size] if variant.size else [])])
            point = [variant.learning_rate, estimate(results).mean, min(results), max(results)]
            groups.setdefault(name, []).append(point)
    return [{"label": name, "points": sorted(points)} for name, points in groups.items() if len(points) > 1]


def _samples(experiment: Experiment, chosen: Iterable[Variant]) -> list[dict[str, Any]]:
    """Return the samples of each variant, of the first seed that all of them have."""
    by_variant = {v.label: {trial.seed: trial for trial in _finished(experiment, v) if trial.samples} for v in chosen}
    sampled = {label: trials for label, trials in by_variant.items() if trials}
    common = sorted(set.intersection(*(set(trials) for trials in sampled.values()))) if sampled else []
    return [
        {"label": label, "seed": seed, "texts": list(trials[seed].samples)}
        for label, trials in sampled.items()
        for seed in [common[0] if common else min(trials)]
    ]


def _differences(chosen: Sequence[Variant]) -> list[dict[str, Any]]:
    """Return in which fields the resolved spec of each compared variant differs from that of the first one, the base."""
    if not chosen:
        return []
    base = _spec(chosen[0])
    result = []
    for variant in chosen[1:]:
        other = _spec(variant)
        if type(base) is not type(other):
            base_data, other = chosen[0].spec, variant.spec
        else:
            base_data = base
        changes = [
            {"path": each.dotted, "base": _shown(each.left), "variant": _shown(each.right)}
            for each in differences(base_data, other)
            if each.dotted != "name"
        ]
        result.append({"label": variant.label, "changes": changes})
    return result


def _spec(variant: Variant) -> Any:
    """Return the spec of a variant, or its plain data where a component of it is not installed here."""
    from gptkit.runs.spec import ExperimentSpec

    try:
        return ExperimentSpec.model_validate(dict(variant.spec))
    except (GptkitError, ValidationError):
        return variant.spec


def _shown(value: Any) -> str:
    return "–" if value is ABSENT else flow(plain(value))


def _method(experiment: Experiment, judged: Sequence[Effect]) -> list[str]:
    """Return how the numbers were computed, as sentences."""
    n = len(experiment.seeds)
    shared = all(
        variant.spec.get(name) == experiment.variants[0].spec.get(name)
        for variant in experiment.variants
        for name in ("data", "tokenizer")
    )
    result = ["All variants of a seed were trained on the same data in the same order."] if shared else []
    result += [
        f"± is the {LEVEL:.0%} confidence interval of the mean over the seeds (Student's t). Bands of curves are the lowest "
        "and the highest seed.",
        "An effect is the difference to the base's value, paired by seed"
        + (" and averaged over the settings of the other axes" if len(experiment.axes) > 1 else "")
        + f". Its p-value is that of the paired t-test, corrected for the {len(judged)} effects by Holm's method; better "
        f"and worse mean p at most {1 - LEVEL:.2f}.",
    ]
    smallest = min((e.test.smallest_p_flips for e in judged if e.test and e.test.smallest_p_flips is not None), default=None)
    if smallest is not None:
        result.append(
            "The t-test assumes that differences between seeds are normal. A sign-flip permutation test does not, but "
            f"cannot give less than p = {smallest:.3g} with {n} seeds; its values are in effects.csv."
        )
    if any(trial.loss_beyond for trial in experiment.trials):
        result.append(
            "Beyond: mean loss of as many positions as were trained, after these, minus the mean loss of the second half of "
            "the trained window; 0 or less means that the model uses the longer context."
        )
    if any(variant.learning_rate is not None for variant in experiment.variants):
        result.append(
            "Each variant is compared at the best of its learning rates, chosen by the same validation loss, so the losses "
            "of all variants are slightly optimistic."
        )
    return result
