"""A/A test of comparisons with trained models: ``python -m benchmarks.equal_variants [DIRECTORY]``.

One tiny spec is trained with 2 · 3 · 40 seeds. Each of 40 experiments gets six of these trainings, as two variants of three
seeds that differ in nothing but chance, and counts as an error if the variants are called different. About 5 % are expected,
so the result is printed with the interval of the error rate. Takes about ten minutes on two cores; repeat the command to
continue.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

from gptkit.experiments.comparison import compare
from gptkit.experiments.effects import effects
from gptkit.experiments.measures import LOSS
from gptkit.experiments.results import Experiment, Trial, Variant

EXPERIMENTS, SEEDS = 40, 3
TINY = {
    "tokenizer": "byte",
    "model.context_length": 32,
    "model.d_model": 32,
    "model.n_layers": 2,
    "model.attention": {"name": "multi-head", "n_heads": 2},
    "model.block": {"name": "pre-norm", "dropout": 0.1},
    "training.steps": 60,
    "training.batch_size": 8,
    "training.evaluate_batches": 4,
    "training.sample_tokens": 0,
    "training.sample_every": None,
    "training.evaluate_every": None,
    "training.checkpoint_every": None,
}


def main(directory: Path) -> int:
    """Train, repeat the test, and print the result; return the number of errors."""
    result = compare(
        "tiny", seeds=2 * SEEDS * EXPERIMENTS, sizes={"tiny": {"training.log_every": 20}}, changes=TINY, directory=directory
    )
    (variant,) = result.experiment.variants
    trials = result.experiment.trials_of(variant.key)
    wrong = 0
    for index in range(EXPERIMENTS):
        own = trials[2 * SEEDS * index : 2 * SEEDS * (index + 1)]
        (effect,) = effects(_experiment(variant, own), LOSS)
        wrong += effect.verdict in ("better", "worse")
    low, high = _interval(wrong, EXPERIMENTS)
    rate = wrong / EXPERIMENTS
    print(f"{wrong} of {EXPERIMENTS} equal pairs were called different: {rate:.1%} (95 % interval {low:.1%} to {high:.1%})")
    return wrong


def _experiment(variant: Variant, trials: tuple[Trial, ...]) -> Experiment:
    """Return a comparison of the first half of the trials with the second."""
    names = ("first", "second")
    variants = tuple(
        dataclasses.replace(variant, key=name, label=name, choices={"half": name}, is_base=name == "first", size=None)
        for name in names
    )
    renamed = tuple(
        dataclasses.replace(trial, variant=names[index // SEEDS], seed=index % SEEDS) for index, trial in enumerate(trials)
    )
    return Experiment("A/A", "", "", {"half": names}, tuple(range(SEEDS)), variants, renamed)


def _interval(count: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a rate."""
    z, rate = 1.96, count / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "experiments/equal-variants"))
