"""What the variants of an experiment are compared in, and the variants that are compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gptkit.experiments.results import Experiment, Trial, Variant
from gptkit.experiments.statistics import Estimate, estimate

__all__ = [
    "Measure",
    "Row",
    "cautions",
    "chosen_variants",
    "extrapolation",
    "measure_of",
    "problem",
    "rate_cautions",
    "rows",
    "values",
]


@dataclass(frozen=True)
class Measure:
    """The number in which variants are compared; lower is better.

    Attributes:
        field: the field of a trial.
        title: the name in tables.
        unit: the unit.
    """

    field: str
    title: str
    unit: str


LOSS = Measure("validation_loss", "validation loss", "nats per token")
BITS = Measure("bits_per_byte", "bits per byte", "bits per byte of the validation text")


@dataclass(frozen=True)
class Row:
    """Results of one variant over its seeds.

    Attributes:
        variant: the variant.
        measure: mean of the measure and its interval; None without results.
        loss: mean validation loss.
        bits_per_byte: mean bits per byte.
        tokens_per_second: mean over the seeds, as the next ones.
        decode_tokens_per_second: tokens generated per second by one row.
        seconds: duration of the training.
        peak_memory: the highest peak of the seeds, in bytes.
        n_failed: number of seeds that failed.
        extrapolation: mean of `extrapolation`; None if the position encoding has no positions beyond the trained ones.
    """

    variant: Variant
    measure: Estimate | None
    loss: Estimate | None
    bits_per_byte: Estimate | None
    tokens_per_second: float | None
    decode_tokens_per_second: float | None
    seconds: float | None
    peak_memory: int | None
    n_failed: int
    extrapolation: Estimate | None


def extrapolation(trial: Trial) -> float | None:
    """Return the mean loss beyond the trained length, minus that of the second half of the trained window.

    The second half, since the first tokens of a window have less context and so a higher loss in every model.
    """
    if not trial.loss_by_position or not trial.loss_beyond:
        return None
    half = trial.loss_by_position[len(trial.loss_by_position) // 2 :]
    return math.fsum(trial.loss_beyond) / len(trial.loss_beyond) - math.fsum(half) / len(half)


def measure_of(experiment: Experiment) -> Measure:
    """Return the measure: bits per byte if the tokenizers differ and restore the text, else the validation loss."""
    finished = [trial for trial in experiment.trials if problem(trial) is None]
    if (
        len(_distinct(experiment, "tokenizer")) > 1
        and finished
        and all(trial.bits_per_byte is not None for trial in finished)
    ):
        return BITS
    return LOSS


def problem(trial: Trial) -> str | None:
    """Return why a trial has no result, or None."""
    if trial.status == "failed":
        return trial.message or "failed"
    if trial.status == "missing":
        return "not trained yet"
    return None if _finite(trial.validation_loss) else "diverged: the validation loss is not finite"


def values(experiment: Experiment, measure: Measure) -> dict[str, dict[int, float]]:
    """Return the measure by variant and seed, of the trials that have a result."""
    result: dict[str, dict[int, float]] = {variant.key: {} for variant in experiment.variants}
    for trial in experiment.trials:
        value = getattr(trial, measure.field)
        if problem(trial) is None and _finite(value):
            result[trial.variant][trial.seed] = value
    return result


def chosen_variants(experiment: Experiment, measure: Measure) -> tuple[Variant, ...]:
    """Return the variants that are compared: of several learning rates, the best one for each choice and size.

    The best rate is the one with which the most seeds finished, and of those the one with the lowest mean.
    """
    by_seed = values(experiment, measure)
    best: dict[tuple[Any, ...], tuple[tuple[int, float], Variant]] = {}
    for variant in experiment.variants:
        results = list(by_seed[variant.key].values())
        rank = (-len(results), estimate(results).mean if results else math.inf)
        group = (tuple(sorted(variant.choices.items())), variant.size)
        if group not in best or rank < best[group][0]:
            best[group] = (rank, variant)
    return tuple(variant for _, variant in best.values())


def rows(experiment: Experiment, measure: Measure) -> list[Row]:
    """Return the results of every variant, the lowest mean first; variants without results are last."""
    by_seed = values(experiment, measure)
    result = []
    for variant in experiment.variants:
        trials = experiment.trials_of(variant.key)
        good = [trial for trial in trials if problem(trial) is None]
        memory = [trial.peak_memory for trial in good if trial.peak_memory is not None]
        result.append(
            Row(
                variant,
                _estimate(list(by_seed[variant.key].values())),
                _estimate([trial.validation_loss for trial in good]),
                _estimate([trial.bits_per_byte for trial in good]),
                _mean([trial.tokens_per_second for trial in good]),
                _mean([trial.decode_tokens_per_second for trial in good]),
                _mean([trial.seconds for trial in good]),
                max(memory, default=None),
                sum(trial.status != "missing" and problem(trial) is not None for trial in trials),
                _estimate([extrapolation(trial) for trial in good]),
            )
        )
    order = {variant.key: index for index, variant in enumerate(experiment.variants)}
    return sorted(
        result, key=lambda row: (row.measure is None, row.measure.mean if row.measure else 0.0, order[row.variant.key])
    )


def cautions(experiment: Experiment, measure: Measure) -> list[str]:
    """Return what limits the comparison, as sentences."""
    result = []
    if len(experiment.seeds) == 1:
        result.append(
            "One seed does not show how much results differ by chance, so no effect is judged; repeat with --seeds 3."
        )
    if len(_distinct(experiment, "tokenizer")) > 1 and measure is LOSS:
        result.append(
            "The tokenizers differ, and bits per byte are unavailable, since a tokenizer does not restore the text. Losses "
            "per token of different tokenizers cannot be compared."
        )
    if len(_distinct(experiment, "data")) > 1:
        result.append("The data differ, so the losses are of different validation texts.")
    if len({_window(variant.spec) for variant in experiment.variants}) > 1:
        result.append(
            "The data windows differ in length. A longer window lowers the mean loss, since its tokens have more context."
        )
    if len({trial.tokens for trial in experiment.trials if problem(trial) is None}) > 1:
        result.append("The variants were trained on different numbers of tokens.")
    return result + rate_cautions(experiment, measure)


def rate_cautions(experiment: Experiment, measure: Measure) -> list[str]:
    """Return a sentence for each variant whose best learning rate is at the end of the sweep."""
    result = []
    for variant in chosen_variants(experiment, measure):
        rates = sorted(other.learning_rate for other in _group(experiment, variant) if other.learning_rate is not None)
        if len(rates) > 1 and variant.learning_rate in (rates[0], rates[-1]):
            end = "lowest" if variant.learning_rate == rates[0] else "highest"
            result.append(
                f"The best learning rate of {variant.label}, {variant.learning_rate:g}, is the {end} of the sweep; a better "
                f"one may be outside of it."
            )
    return result


def _group(experiment: Experiment, variant: Variant) -> Iterator[Variant]:
    """Yield the variants that differ from one in the learning rate only."""
    for other in experiment.variants:
        if dict(other.choices) == dict(variant.choices) and other.size == variant.size:
            yield other


def _window(spec: Mapping[str, Any]) -> Any:
    return spec.get("training", {}).get("window") or spec.get("model", {}).get("context_length")


def _distinct(experiment: Experiment, section: str) -> list[Any]:
    result: list[Any] = []
    for variant in experiment.variants:
        if variant.spec.get(section) not in result:
            result.append(variant.spec.get(section))
    return result


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _estimate(results: list[float | None] | list[float]) -> Estimate | None:
    known = [value for value in results if value is not None]
    return estimate(known) if known and len(known) == len(results) else None


def _mean(results: list[float | None]) -> float | None:
    known = [value for value in results if value is not None]
    return math.fsum(known) / len(known) if known else None
