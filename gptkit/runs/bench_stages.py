"""Stages of a training, as `gptkit bench` measures them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from gptkit.core.errors import CapacityError
from gptkit.runs.bench_step import StepTrial, step_size
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.stage_spec import timeline

__all__ = ["StageSpeed", "largest_stage", "stage_speeds", "stage_tokens"]


@dataclass(frozen=True)
class StageSpeed:
    """Speed of one stage.

    Attributes:
        number: its number, from 1.
        batch_size: data windows of a step.
        window: tokens of a data window.
        tokens: tokens of the stage.
        tokens_per_second: the measured speed; None if a step does not fit in memory.
        seconds: the seconds of all its steps at this speed.
    """

    number: int
    batch_size: int
    window: int
    tokens: int
    tokens_per_second: float | None
    seconds: float | None


def stage_tokens(spec: ExperimentSpec) -> list[int]:
    """Return the number of tokens of each stage; 0 for one that the training does not reach."""
    training, result = spec.training, []
    for stage in timeline(training.stages, training.steps):
        batch_size, window = step_size(spec, stage.spec)
        result.append(max(0, min(stage.end, training.steps) - stage.begin) * batch_size * window)
    return result


def largest_stage(spec: ExperimentSpec) -> int | None:
    """Return the index of the stage with the most tokens; None without stages."""
    tokens = stage_tokens(spec)
    return max(range(len(tokens)), key=tokens.__getitem__, default=None)


def stage_speeds(
    spec: ExperimentSpec,
    vocab_size: int,
    measured: int,
    speed: float,
    *,
    steps: int = 2,
    progress: Callable[[int], None] | None = None,
) -> list[StageSpeed]:
    """Measure a few steps of each stage.

    Args:
        spec: the spec.
        vocab_size: the vocabulary size.
        measured: the index of a stage that is measured already.
        speed: its tokens per second.
        steps: number of measured steps of the others, after one that is not counted.
        progress: called with the number of stages that are done.
    """
    result = []
    for index, (stage, tokens) in enumerate(zip(spec.training.stages, stage_tokens(spec), strict=True)):
        if progress is not None:
            progress(index)
        own = speed if index == measured else _speed(spec, vocab_size, index, steps)
        seconds = None if own is None else tokens / own
        result.append(StageSpeed(index + 1, *step_size(spec, stage), tokens, own, seconds))
    return result


def _speed(spec: ExperimentSpec, vocab_size: int, index: int, steps: int) -> float | None:
    try:
        trial = StepTrial(spec, vocab_size, spec.training.stages[index])
        try:
            trial.step()
            return trial.tokens / statistics.median(trial.step() for _ in range(steps))
        finally:
            trial.close()
    except CapacityError:
        return None
