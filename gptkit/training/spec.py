"""What a spec file says about training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from gptkit.core.component import Component, component
from gptkit.core.errors import Problem
from gptkit.core.spec import Spec, validation_error
from gptkit.kinds.optimizer import OptimizerSpec, ScheduleSpec
from gptkit.kinds.tracker import TrackerSpec

__all__ = ["TrainingSpec"]


class TrainingSpec(Spec):
    """How a model is trained: how long, on how much at a time, by which optimizer, and what is written down on the way.

    Notes:
        Everything random depends on the seed and the step alone, so a training that was stopped goes on with exactly the
        numbers that an uninterrupted one has (on the same machine, with the same number of threads).
    """

    steps: int = Field(1000, ge=1, description="Optimizer steps. May be raised when a run is resumed.")
    batch_size: int = Field(16, ge=1, description="Windows a step.")
    grad_accumulation: int = Field(
        1,
        ge=1,
        description="Parts that a batch is computed in, one by one, to save memory; the gradient stays the whole batch's.",
    )
    clip: float | None = Field(1.0, gt=0, description="Longest gradient, as a norm over all parameters; null for no limit.")
    optimizer: OptimizerSpec = component("adamw", description="How gradients change weights.")
    schedule: ScheduleSpec = component(
        {"name": "cosine", "warmup_steps": 50}, description="How the learning rate runs over the training."
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="What everything random starts from: weights, windows, dropout, samples."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Of matrix products; weights stay fp32. auto: bf16 where the processor or card has it, else fp32.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to compute. auto: an NVIDIA card, else an Apple one, else the processor."
    )
    compile: bool = Field(False, description="Compile the model with torch.compile: slow to start, then faster.")
    recompute: Literal["none", "blocks"] = Field(
        "none",
        description="Activation checkpointing. blocks: keep only each block's input for the backward pass and compute the "
        "rest again, which needs less memory and about a third more time; the gradients are the same.",
    )
    log_every: int = Field(10, ge=1, description="Steps between two lines of metrics; the loss is the mean since the last.")
    evaluate_every: int | None = Field(
        100, ge=1, description="Steps between two validations; null for one before and one after the training."
    )
    evaluate_batches: int = Field(20, ge=1, description="Batches that a validation reads at most, the same every time.")
    sample_every: int | None = Field(
        200, ge=1, description="Steps between two samples of text; null for one before and one after the training."
    )
    sample_prompt: str = Field("", description="What the samples go on from; empty for the start of a text.")
    sample_tokens: int = Field(100, ge=0, description="Length of a sample in tokens; 0 for no samples.")
    checkpoint_every: int | None = Field(200, ge=1, description="Steps between two checkpoints; null for one at the end.")
    keep_checkpoints: int = Field(2, ge=1, description="How many checkpoints are kept, the newest ones.")
    trackers: tuple[TrackerSpec, ...] = Field(
        (), description="Where the numbers go besides the run's metrics.jsonl, samples.txt and loss.png."
    )

    @model_validator(mode="after")
    def _check(self) -> TrainingSpec:
        problems = list(self._problems())
        if problems:
            raise validation_error(problems, self)
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.batch_size % self.grad_accumulation:
            possible = ", ".join(str(n) for n in range(1, self.batch_size + 1) if self.batch_size % n == 0)
            yield Problem(
                ("grad_accumulation",),
                f"a batch of {self.batch_size} has no {self.grad_accumulation} equal parts; possible: {possible}",
            )
        parts: list[tuple[tuple[str | int, ...], Component]] = [
            (("optimizer",), self.optimizer),
            (("schedule",), self.schedule),
            *((("trackers", index), tracker) for index, tracker in enumerate(self.trackers)),
        ]
        for place, part in parts:
            for problem in part.problems(None):
                yield problem.below(*place)
