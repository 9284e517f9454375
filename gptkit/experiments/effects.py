"""Effects of choices: what a value of an axis changes against the base's value, with its uncertainty and a verdict.

For each seed, the effect is the mean difference over all settings of the other axes, between two variants that differ in
this choice alone (a main effect). The test is over these differences, one for each seed, so its degrees of freedom are those
of the seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gptkit.experiments.measures import Measure, chosen_variants, problem, values
from gptkit.experiments.results import Experiment, Variant
from gptkit.experiments.statistics import LEVEL, PairedTest, holm, paired_test

__all__ = ["Effect", "Verdict", "effects", "effects_by_size", "p_text", "persistence", "sentence"]

Verdict = Literal[
    "better",
    "worse",
    "not distinguishable from seed noise",
    "one seed: no statement",
    "does not train",
    "trains where the base does not",
    "no comparison",
]


@dataclass(frozen=True)
class Effect:
    """Effect of one choice.

    Attributes:
        axis: the dotted path that is varied.
        value: the value.
        baseline: the base's value, with which it is compared.
        size: the size at which it is measured; None for the mean over all sizes.
        test: the paired test; None if no pair of variants differs in this choice alone, or none of them has results.
        baseline_mean: mean of the measure with the base's value, in the same settings and seeds.
        seeds: the seeds of the test.
        n_settings: number of settings of the other axes over which differences are averaged.
        n_omitted: number of settings that were omitted, since a trial has no result.
        n_failed: number of trials with this value that failed, where the base's value did not.
        n_base_failed: number of trials with the base's value that failed, where this value did not.
        p: the p-value of the t-test, corrected by Holm's method for all tests of the family.
        verdict: the statement.
    """

    axis: str
    value: str
    baseline: str
    size: str | None
    test: PairedTest | None
    baseline_mean: float | None
    seeds: tuple[int, ...]
    n_settings: int
    n_omitted: int
    n_failed: int
    n_base_failed: int = 0
    p: float | None = None
    verdict: Verdict = "no comparison"

    @property
    def label(self) -> str:
        """The choice: ``model.position: rotary instead of learned``."""
        return f"{self.axis}: {self.value} instead of {self.baseline}"

    @property
    def relative(self) -> float | None:
        """The mean difference as a share of the mean with the base's value."""
        return None if self.test is None or not self.baseline_mean else self.test.difference.mean / self.baseline_mean


def effects(experiment: Experiment, measure: Measure) -> list[Effect]:
    """Return the effect of each value of each axis against the base's value, averaged over the other axes."""
    return _judged(_effects(experiment, measure, None))


def effects_by_size(experiment: Experiment, measure: Measure) -> list[Effect]:
    """Return the effects within each size; empty with fewer than two sizes. They are corrected together."""
    sizes = list(dict.fromkeys(variant.size for variant in experiment.variants if variant.size is not None))
    if len(sizes) < 2:
        return []
    return _judged([effect for size in sizes for effect in _effects(experiment, measure, size)])


def persistence(effects_of_sizes: Sequence[Effect]) -> str:
    """Return whether an effect is the same at several sizes, as a phrase.

    Args:
        effects_of_sizes: the effects of one choice, one for each size.
    """
    verdicts = {effect.verdict for effect in effects_of_sizes}
    means = [effect.test.difference.mean for effect in effects_of_sizes if effect.test is not None]
    if len(means) < len(effects_of_sizes):
        return "not measured at every size"
    if len(verdicts) == 1 and verdicts <= {"better", "worse"}:
        return f"holds: {verdicts.pop()} at every size"
    if verdicts >= {"better", "worse"}:
        return "does not hold: better at one size, worse at another"
    if verdicts & {"better", "worse"}:
        same = len({mean > 0 for mean in means}) == 1
        rest = (
            "in the same direction, but not distinguishable" if same else "and in the other direction, not distinguishable"
        )
        return f"open: distinguishable at one size, {rest} at another"
    return "open: not distinguishable at any size"


def sentence(effect: Effect, measure: Measure) -> str:
    """Return the verdict of an effect with its numbers, as a sentence."""
    where = "" if effect.size is None else f" at size {effect.size}"
    subject = f"{effect.axis} = {effect.value}{where}"
    failed = "".join(
        f" {number} of the trainings with {value} failed, where {other} did not."
        for number, value, other in (
            (effect.n_failed, effect.value, effect.baseline),
            (effect.n_base_failed, effect.baseline, effect.value),
        )
        if number
    )
    if effect.verdict == "does not train":
        return f"{subject} does not train, whereas {effect.baseline} does."
    if effect.verdict == "trains where the base does not":
        return f"{subject} trains, whereas {effect.baseline} does not."
    if effect.test is None:
        return (
            f"{subject} cannot be compared with {effect.baseline}: no pair of results differs in this choice alone.{failed}"
        )
    difference = effect.test.difference
    relative = "" if effect.relative is None else f" ({effect.relative:+.1%})"
    amount = f"{difference.mean:+.4f}{relative}"
    if difference.low is None or difference.high is None or effect.p is None:
        change = f"{subject} changes the {measure.title} by {amount} against {effect.baseline}"
        return f"{change}, with one seed: no statement.{failed}"
    interval = f"{LEVEL:.0%} interval {difference.low:+.4f} to {difference.high:+.4f}, {p_text(effect.p)}"
    if effect.verdict in ("better", "worse"):
        return f"{subject} is {effect.verdict} than {effect.baseline}: {measure.title} {amount}; {interval}.{failed}"
    return (
        f"{subject} is not distinguishable from {effect.baseline} with {difference.n} seeds: {measure.title} "
        f"{amount}; {interval}.{failed}"
    )


def p_text(p: float) -> str:
    """Format a p-value."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _effects(experiment: Experiment, measure: Measure, size: str | None) -> list[Effect]:
    by_seed = values(experiment, measure)
    chosen = [variant for variant in chosen_variants(experiment, measure) if size is None or variant.size == size]
    result = []
    for axis, labels in experiment.axes.items():
        for value in labels[1:]:
            pairs = list(_pairs(chosen, axis, value, labels[0]))
            result.append(_effect(experiment, by_seed, pairs, Effect(axis, value, labels[0], size, None, None, (), 0, 0, 0)))
    return result


def _pairs(variants: Iterable[Variant], axis: str, value: str, baseline: str) -> Iterator[tuple[Variant, Variant]]:
    """Yield the pairs of variants with the value and with the base's value that differ in this choice alone."""

    def setting(variant: Variant) -> tuple[object, ...]:
        return variant.size, tuple(sorted(item for item in variant.choices.items() if item[0] != axis))

    variants = list(variants)
    bases = {setting(variant): variant for variant in variants if variant.choices.get(axis) == baseline}
    for variant in variants:
        if variant.choices.get(axis) == value and setting(variant) in bases:
            yield variant, bases[setting(variant)]


def _effect(
    experiment: Experiment,
    by_seed: Mapping[str, Mapping[int, float]],
    pairs: Sequence[tuple[Variant, Variant]],
    effect: Effect,
) -> Effect:
    complete = [
        {
            seed: (by_seed[a.key][seed], by_seed[b.key][seed])
            for seed in experiment.seeds
            if seed in by_seed[a.key] and seed in by_seed[b.key]
        }
        for a, b in pairs
    ]
    seeds = tuple(seed for seed in experiment.seeds if any(seed in each for each in complete))
    # Every seed has the same settings, so that their differences do not add to the spread over seeds.
    used = [each for each in complete if each.keys() == set(seeds)] if seeds else []
    keys = [(a.key, b.key, seed) for a, b in pairs for seed in experiment.seeds]
    failed = sum(_failed(experiment, a, seed) and seed in by_seed[b] for a, b, seed in keys)
    base_failed = sum(_failed(experiment, b, seed) and seed in by_seed[a] for a, b, seed in keys)
    effect = dataclasses.replace(effect, n_omitted=len(pairs) - len(used), n_failed=failed, n_base_failed=base_failed)
    if not used:
        # Without a setting that is complete in all of these seeds, the one with the most seeds is used.
        used = sorted((each for each in complete if each), key=len, reverse=True)[:1]
        if not used:
            verdict: Verdict = "no comparison"
            if bool(failed) != bool(base_failed):
                verdict = "does not train" if failed else "trains where the base does not"
            return dataclasses.replace(effect, verdict=verdict)
        seeds = tuple(used[0])
        effect = dataclasses.replace(effect, n_omitted=len(pairs) - 1)
    differences = [math.fsum(each[seed][0] - each[seed][1] for each in used) / len(used) for seed in seeds]
    baseline = math.fsum(each[seed][1] for each in used for seed in seeds) / (len(used) * len(seeds))
    return dataclasses.replace(
        effect, test=paired_test(differences), baseline_mean=baseline, seeds=seeds, n_settings=len(used)
    )


def _judged(family: Sequence[Effect]) -> list[Effect]:
    """Correct the p-values of a family of effects, and add the verdicts."""
    tested = [effect.test.p for effect in family if effect.test is not None and effect.test.p is not None]
    corrected = iter(holm(tested))
    result = []
    for effect in family:
        if effect.test is None:
            result.append(effect)
        elif effect.test.p is None:
            result.append(dataclasses.replace(effect, verdict="one seed: no statement"))
        else:
            p = next(corrected)
            verdict: Verdict = "not distinguishable from seed noise"
            if p <= 1 - LEVEL:
                verdict = "better" if effect.test.difference.mean < 0 else "worse"
            result.append(dataclasses.replace(effect, p=p, verdict=verdict))
    return result


def _failed(experiment: Experiment, key: str, seed: int) -> bool:
    return any(
        trial.seed == seed and trial.status != "missing" and problem(trial) is not None
        for trial in experiment.trials_of(key)
    )
