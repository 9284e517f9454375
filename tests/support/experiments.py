"""Experiments with given results, for tests of statistics and reports."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gptkit.experiments.results import Experiment, Trial, Variant

__all__ = ["experiment"]


def experiment(
    axes: Mapping[str, Sequence[str]],
    loss: Callable[[Mapping[str, str], int, str | None, float | None], float | str | None],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    sizes: Sequence[str | None] = (None,),
    rates: Sequence[float | None] = (None,),
    curves: bool = False,
) -> Experiment:
    """Return a grid with the validation loss of a function.

    Args:
        axes: the values by path, the base's first.
        loss: function of choices, seed, size and learning rate: a loss, a message of a failure, or None for missing.
        seeds: the seeds.
        sizes: labels of sizes.
        rates: learning rates.
        curves: whether trials have curves, losses by position and samples.
    """
    variants, trials = [], []
    for labels in itertools.product(*axes.values()):
        choices = dict(zip(axes, labels, strict=True))
        for size, rate in itertools.product(sizes, rates):
            label = ", ".join(f"{path.rpartition('.')[2]}={value}" for path, value in choices.items())
            label += "".join(f", {each}" for each in (size, rate) if each is not None)
            key = f"{len(variants):012x}"
            is_base = all(choices[path] == values[0] for path, values in axes.items())
            spec: dict[str, Any] = {"name": "x", "model": {"d_model": 32}, "tokenizer": {"name": "byte"}}
            for path, value in choices.items():
                section, _, name = path.partition(".")
                spec[section] = {**spec.get(section, {}), name: value} if name else {"name": value}
            variants.append(
                Variant(key, label, choices, key * 5, spec, is_base, size, rate, None, 12345 + len(variants), 6.5e4, 512.0)
            )
            trials += [_trial(key, seed, loss(choices, seed, size, rate), curves) for seed in seeds]
    return Experiment(
        "positions",
        "gptkit compare base.yaml --seeds 3",
        "",
        {path: tuple(v) for path, v in axes.items()},
        tuple(seeds),
        tuple(variants),
        tuple(trials),
    )


def _trial(key: str, seed: int, result: float | str | None, curves: bool) -> Trial:
    if result is None:
        return Trial(key, seed, "missing")
    if isinstance(result, str):
        return Trial(key, seed, "failed", result)
    more: dict[str, Any] = {}
    if curves:
        points = [0, 20, 40, 60, 80, 100]
        more = {
            "curve": tuple(
                (
                    step,
                    step * 1024,
                    result + 2.5 * math.exp(-step / 25),
                    None if step == 0 else result + 2.4 * math.exp(-step / 25),
                )
                for step in points
            ),
            "loss_by_position": tuple(result + 1 / (1 + position) for position in range(64)),
            "loss_beyond": tuple(result + 0.01 * position for position in range(64)) if int(key, 16) % 2 == 0 else None,
            "samples": (f"Once upon a time <b>{key[-2:]}</b> & seed {seed}\nThe end.", "The king said nothing."),
        }
    return Trial(
        key, seed, "finished", None, f"trials/{key}-{seed}", result, result - 0.001, result / math.log(2) / 3.1, 102400,
        12.5, 8192.0, 401.5, 314572800, **more,
    )  # fmt: skip
