"""Effects of choices and their verdicts."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from statistics import mean

import pytest

from gptkit.experiments.effects import effects, effects_by_size, persistence, sentence
from gptkit.experiments.measures import BITS, LOSS, cautions, chosen_variants, extrapolation, measure_of, rows
from gptkit.experiments.results import Experiment, Trial
from tests.support.experiments import experiment

POSITION = {"model.position": ("learned", "rotary", "none")}
SHIFT = {"learned": 0.0, "rotary": -0.2, "none": 0.15}
NOISE = {0: 0.31, 1: -0.22, 2: 0.05}  # of a seed, in all variants


def _paired(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float:
    position = choices["model.position"]
    own = 0.001 * math.sin(10 * seed + len(position))
    return 4.0 + SHIFT[position] + NOISE[seed] + own


def test_pairing_removes_what_seeds_have_in_common() -> None:
    """The spread over seeds is larger than the effects, and yet both are by_size."""
    rotary, none = effects(experiment(POSITION, _paired), LOSS)
    assert (rotary.value, rotary.baseline, rotary.verdict) == ("rotary", "learned", "better")
    assert (none.value, none.verdict) == ("none", "worse")
    assert rotary.test is not None
    assert rotary.test.difference.mean == pytest.approx(-0.2, abs=0.005)
    assert rotary.seeds == (0, 1, 2)
    assert "model.position = rotary is better than learned: validation loss -0.2" in sentence(rotary, LOSS)


def test_correction_is_over_all_effects() -> None:
    result = effects(experiment(POSITION, _paired), LOSS)
    smallest = min(result, key=lambda effect: effect.test.p if effect.test else 1)
    assert smallest.test is not None
    assert smallest.test.p is not None
    assert smallest.p == pytest.approx(2 * smallest.test.p)


def test_main_effect_is_the_mean_over_other_axes() -> None:
    def loss(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float:
        interaction = 0.1 if choices == {"model.position": "rotary", "model.norm": "rms"} else 0.0
        own = 0.0001 * seed * len(choices["model.norm"])
        return 4 + SHIFT[choices["model.position"]] + interaction + NOISE[seed] + own

    grid = {"model.position": ("learned", "rotary"), "model.norm": ("layer", "rms")}
    rotary, rms = effects(experiment(grid, loss), LOSS)
    assert rotary.n_settings == 2
    assert rotary.test is not None
    assert rms.test is not None
    assert rotary.test.difference.mean == pytest.approx(-0.2 + 0.1 / 2)
    assert rms.test.difference.mean == pytest.approx(0.05, abs=0.001)
    # Both settings of a seed make one difference, so degrees of freedom are those of the seeds.
    assert rotary.test.difference.n == 3


def test_settings_with_a_failed_trial_are_omitted() -> None:
    def loss(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float | str:
        if choices == {"model.position": "rotary", "model.norm": "rms"} and seed == 1:
            return "the loss is nan at step 7"
        return 4 + (10 if choices["model.norm"] == "rms" else 0) + SHIFT[choices["model.position"]] + 0.001 * seed**2

    grid = {"model.position": ("learned", "rotary"), "model.norm": ("layer", "rms")}
    rotary = effects(experiment(grid, loss), LOSS)[0]
    assert (rotary.n_settings, rotary.n_omitted, rotary.n_failed, rotary.seeds) == (1, 1, 1, (0, 1, 2))
    assert rotary.baseline_mean == pytest.approx(4.0, abs=0.01)
    assert "1 of the trainings with rotary failed" in sentence(rotary, LOSS)


def test_unfinished_experiment_uses_the_complete_seeds() -> None:
    def loss(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float | None:
        return (
            None if seed == 2 or (seed == 1 and choices["model.position"] == "none") else _paired(choices, seed, size, rate)
        )

    rotary, none = effects(experiment(POSITION, loss), LOSS)
    assert rotary.seeds == (0, 1)
    assert none.seeds == (0,)
    assert none.verdict == "one seed: no statement"
    assert "with one seed: no statement" in sentence(none, LOSS)


@pytest.mark.parametrize(
    ("failing", "verdict"), [("rotary", "does not train"), ("learned", "trains where the base does not")]
)
def test_variant_that_never_trains_has_a_verdict(failing: str, verdict: str) -> None:
    def loss(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float | str:
        return "diverged" if choices["model.position"] == failing else _paired(choices, seed, size, rate)

    rotary = effects(experiment(POSITION, loss), LOSS)[0]
    assert rotary.verdict == verdict
    assert rotary.test is None


def test_best_learning_rate_is_compared() -> None:
    def loss(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float | str:
        assert rate is not None
        best = {"learned": 1e-3, "rotary": 3e-3, "none": 1e-2}[choices["model.position"]]
        if rate == 1e-2 and choices["model.position"] == "rotary" and seed == 0:
            return "diverged"
        return _paired(choices, seed, size, rate) + abs(math.log(rate / best))

    swept = experiment(POSITION, loss, rates=(1e-3, 3e-3, 1e-2))
    assert [variant.learning_rate for variant in chosen_variants(swept, LOSS)] == [1e-3, 3e-3, 1e-2]
    rotary = effects(swept, LOSS)[0]
    assert rotary.test is not None
    assert rotary.test.difference.mean == pytest.approx(-0.2, abs=0.005)
    notes = " ".join(cautions(swept, LOSS))
    assert "0.001, is the lowest of the sweep" in notes
    assert "0.01, is the highest of the sweep" in notes
    assert "0.003" not in notes


def test_effects_at_two_sizes() -> None:
    def loss(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float:
        shift = {("rotary", "small"): -0.2, ("rotary", "large"): -0.1, ("none", "small"): 0.2, ("none", "large"): -0.2}
        own = 0.001 * math.sin(7 * seed + len(choices["model.position"]))
        return 4 + shift.get((choices["model.position"], str(size)), 0.0) + NOISE[seed] + own

    by_size = effects_by_size(experiment(POSITION, loss, sizes=("small", "large")), LOSS)
    by_value = {value: [effect for effect in by_size if effect.value == value] for value in ("rotary", "none")}
    assert persistence(by_value["rotary"]) == "holds: better at every size"
    assert persistence(by_value["none"]) == "does not hold: better at one size, worse at another"
    assert effects_by_size(experiment(POSITION, loss), LOSS) == []


def test_bits_per_byte_are_compared_if_tokenizers_differ() -> None:
    def loss(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float:
        return 4.0 + seed

    tokenizers = experiment({"tokenizer": ("bpe", "char")}, loss)
    assert measure_of(tokenizers) is BITS
    assert measure_of(experiment(POSITION, _paired)) is LOSS


def test_rows_are_sorted_and_failures_last() -> None:
    def loss(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float | str:
        return "diverged" if choices["model.position"] == "learned" else _paired(choices, seed, size, rate)

    table = rows(experiment(POSITION, loss), LOSS)
    assert [row.variant.choices["model.position"] for row in table] == ["rotary", "none", "learned"]
    assert [row.n_failed for row in table] == [0, 0, 3]
    assert table[0].loss is not None
    assert table[0].loss.mean == pytest.approx(3.8 + mean(NOISE.values()), abs=0.001)


def test_extrapolation_is_relative_to_the_second_half_of_the_window() -> None:
    trial = Trial("a", 0, "finished", loss_by_position=(9.0, 8.0, 3.0, 2.0), loss_beyond=(4.0, 5.0))
    assert extrapolation(trial) == pytest.approx(4.5 - 2.5)
    assert extrapolation(Trial("a", 0, "finished", loss_by_position=(3.0,))) is None


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_equal_variants_are_called_different_in_at_most_five_percent(n_seeds: int) -> None:
    """A/A test: four variants of one distribution, so three effects; any verdict counts as an error."""
    draw, repetitions = random.Random(n_seeds), 2000
    axes = {"model.position": ("a", "b"), "model.norm": ("c", "d", "e")}

    def repeat() -> Experiment:
        common = [draw.gauss(0, 0.05) for _ in range(n_seeds)]
        return experiment(
            axes, lambda choices, seed, size, rate: 4 + common[seed] + draw.gauss(0, 0.01), seeds=range(n_seeds)
        )

    wrong = sum(any(effect.verdict in ("better", "worse") for effect in effects(repeat(), LOSS)) for _ in range(repetitions))
    assert wrong / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)
    assert wrong > 0  # the test can reject
