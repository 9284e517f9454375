"""Possible changes of a spec or of the machine's settings, and how much faster its training is with them."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gptkit.core.errors import CapacityError
from gptkit.model.plan import available_memory, human_bytes
from gptkit.ops.fp8_linear import has_fp8
from gptkit.runs.bench_step import StepTrial, step_size
from gptkit.runs.opening import open_spec
from gptkit.runs.sizes import training_plan
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.precision import has_bf16, pick_device
from gptkit.training.stage_spec import StageSpec

__all__ = ["NOTABLE", "Change", "Tried", "changes", "try_changes"]

NOTABLE = 0.03
"""Smallest gain that is worth a change; smaller ones are within the noise."""

_LONG_WINDOW = 512


@dataclass(frozen=True)
class Change:
    """A change to try.

    Attributes:
        what: the change, as a user makes it: ``training.precision=bf16``.
        why: what it costs or why it helps, as a clause.
        same: whether the training computes the same as before, up to rounding; else the change is the user's choice.
        spec: the changed spec.
        threads: number of threads; None for the present one.
        stage: index of the stage that is measured; None without stages.
    """

    what: str
    why: str
    same: bool
    spec: ExperimentSpec
    threads: int | None = None
    stage: int | None = None

    @property
    def stage_spec(self) -> StageSpec | None:
        """The stage that is measured."""
        return None if self.stage is None else self.spec.training.stages[self.stage]


@dataclass(frozen=True)
class Tried:
    """Result of a change.

    Attributes:
        what: the change.
        why: what it costs or why it helps.
        same: whether the training computes the same as before, up to rounding.
        tokens_per_second: the measured speed; None if it was not tried, for the reason in `why`.
        gain: the speed relative to the unchanged one, minus 1.
    """

    what: str
    why: str
    same: bool
    tokens_per_second: float | None
    gain: float | None


def changes(spec: ExperimentSpec, vocab_size: int, stage: int | None = None) -> Iterator[Change]:
    """Yield the changes that apply to a spec on this machine.

    Args:
        spec: the spec.
        vocab_size: the vocabulary size.
        stage: index of the stage that is measured; its own batch and window are changed in place of the training's.
    """
    training, device = spec.training, pick_device(spec.training.device)
    parts = training.grad_accumulation
    batch_size, window = step_size(spec, None if stage is None else training.stages[stage])

    def edit(why: str, same: bool, **fields: Any) -> Change:
        return _edit(spec, stage, why, same, **fields)

    if training.precision == "fp32" and has_bf16(device):
        yield edit("matrix products in bf16; the weights stay in fp32", False, precision="bf16")
    if device.type == "cuda" and training.precision in ("auto", "bf16") and has_fp8(device):
        yield edit("products of the blocks in fp8; the weights stay in fp32", False, precision="fp8")
    if device.type == "cpu" and torch.get_num_threads() != (cpus := _cpus()):
        why = f"torch uses {torch.get_num_threads()} of {cpus} CPUs (OMP_NUM_THREADS, MKL_NUM_THREADS)"
        yield Change(f"OMP_NUM_THREADS={cpus}", why, True, spec, threads=cpus, stage=stage)
    if training.recompute != "none":
        yield edit("no recomputation of activations, for more memory", True, recompute="none")
    if parts > 1:
        fewer = max(each for each in range(1, parts) if parts % each == 0)
        yield edit("larger parts of the batch, for more memory", True, grad_accumulation=fewer)
    if not training.compile and device.type == "cuda":
        yield edit("fuses the operations between products", True, compile=True)
    bare = open_spec(_without_dropout(spec.plain())).spec
    if bare != spec:
        why = "what dropout costs; it may help a model that sees its text many times"
        yield Change("every dropout=0", why, False, bare, stage=stage)
    yield edit("a larger batch uses the machine better", False, batch_size=2 * batch_size)
    if window >= _LONG_WINDOW:
        half = {"window": window // 2, "batch_size": 2 * batch_size}
        yield edit("half the window, as many tokens: what attention over long windows costs", False, **half)


def _edit(spec: ExperimentSpec, stage: int | None, why: str, same: bool, **fields: Any) -> Change:
    """Return a change of fields; those that the stage sets itself are changed there."""
    own = None if stage is None else spec.training.stages[stage]
    paths = {
        name: f"training.{name}" if own is None or getattr(own, name, None) is None else f"training.stages.{stage}.{name}"
        for name in fields
    }
    changed = open_spec(spec, changes={paths[name]: value for name, value in fields.items()}).spec
    text = " ".join(f"{paths[name]}={str(value).lower()}" for name, value in fields.items())
    return Change(text, why, same, changed, stage=stage)


def try_changes(
    changes: list[Change],
    vocab_size: int,
    reference: float,
    *,
    steps: int = 2,
    limit: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tried]:
    """Take a few steps with each change.

    Args:
        changes: the changes.
        vocab_size: the vocabulary size.
        reference: tokens per second without any change.
        steps: number of measured steps, after one that is not counted.
        limit: a change whose steps would take more seconds is not tried.
        progress: called with the number of changes that are done, and that of all.
    """
    tried = []
    for index, change in enumerate(changes):
        if progress is not None:
            progress(index, len(changes))
        tried.append(_tried(change, vocab_size, reference, steps, limit))
    return tried


def _tried(change: Change, vocab_size: int, reference: float, steps: int, limit: float) -> Tried:
    def without(why: str) -> Tried:
        return Tried(change.what, f"{change.why}; not tried: {why}", change.same, None, None)

    spec = change.spec
    expected = (steps + 1) * math.prod(step_size(spec, change.stage_spec)) / reference
    if expected > limit:
        return without(f"its steps would take about {expected:.0f} s")
    needed = training_plan(spec, vocab_size).training_bytes
    available = available_memory(pick_device(spec.training.device))
    if needed > available:
        return without(f"it needs about {human_bytes(needed)}, and {human_bytes(available)} are free")
    before = torch.get_num_threads()
    try:
        if change.threads is not None:
            torch.set_num_threads(change.threads)
        trial = StepTrial(spec, vocab_size, change.stage_spec)
        try:
            trial.step()
            speed = trial.tokens / statistics.median(trial.step() for _ in range(steps))
        finally:
            trial.close()
    except CapacityError as error:
        return without(error.message)
    finally:
        torch.set_num_threads(before)
    return Tried(change.what, change.why, change.same, speed, speed / reference - 1)


def _cpus() -> int:
    """Return the number of CPUs that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _without_dropout(data: Any) -> Any:
    if isinstance(data, dict):
        return {
            key: 0.0 if key.endswith("dropout") and isinstance(value, float) else _without_dropout(value)
            for key, value in data.items()
        }
    return [_without_dropout(value) for value in data] if isinstance(data, list) else data
