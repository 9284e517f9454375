"""The training section of a spec file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gptkit.core import resolution
from gptkit.core.component import Component, component
from gptkit.core.errors import Problem
from gptkit.core.spec import Spec, validation_error
from gptkit.kinds.callback import CallbackSpec
from gptkit.kinds.optimizer import OptimizerSpec, ScheduleSpec
from gptkit.kinds.tracker import TrackerSpec
from gptkit.training.parallel.config import ParallelSpec
from gptkit.training.resume import CHANGEABLE, Fixed
from gptkit.training.stage_spec import StageSpec, stage_problems

__all__ = ["InitFromSpec", "TrainingSpec"]

_STEPS = Fixed("every step so far was computed with it")
_DATA = Fixed("the order of the data depends on it")


class InitFromSpec(Spec):
    """Initial weights of a new run; a path is equivalent to a mapping with it."""

    path: str = Field(
        min_length=1,
        description="A run, a directory as transformers saves it, a GGUF file, or a safetensors file of a run's weights.",
    )
    strict: bool = Field(
        True, description="Require every tensor to fit; false loads those that do, and lists those that are initialized."
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: object) -> object:
        if isinstance(value, Mapping) and "name" in value:
            # A path alone that other fields were merged with: `gptkit.files.merge` takes a text for a name.
            return {"path": value["name"], **{key: item for key, item in value.items() if key != "name"}}
        return {"path": value} if isinstance(value, str) else value


class TrainingSpec(Spec):
    """Training section: steps, batches, optimizer, schedule, and records.

    Notes:
        Random numbers depend on the seed and the step only, so a resumed training computes exactly the same results as an
        uninterrupted one (on the same machine, with the same number of threads).
    """

    steps: Annotated[int, CHANGEABLE] = Field(
        1000, ge=1, description="Optimizer steps. May be raised when a run is resumed."
    )
    batch_size: Annotated[int, _DATA] = Field(16, ge=1, description="Data windows per step.")
    window: Annotated[int | None, _DATA] = Field(
        None,
        ge=1,
        description="Tokens of a data window, in training and validation: at most, and by default, the model's "
        "context_length. Shorter ones fine-tune a model of a long context in less memory.",
    )
    grad_accumulation: Annotated[int, _STEPS] = Field(
        1,
        ge=1,
        description="Number of parts of a batch, computed one after the other to save memory; the gradient is unchanged.",
    )
    clip: Annotated[float | None, _STEPS] = Field(
        1.0, gt=0, description="Maximum norm of the gradient over all parameters; null for no limit."
    )
    optimizer: Annotated[OptimizerSpec, Fixed("the optimizer's state belongs to it")] = component(
        "adamw", description="The optimizer."
    )
    schedule: Annotated[ScheduleSpec, _STEPS] = component(
        {"name": "cosine", "warmup_steps": 50}, description="The learning-rate schedule."
    )
    stages: Annotated[tuple[StageSpec, ...], _STEPS] = Field(
        (),
        description="Stages of the training, one after the other: batch size, length, attention window, learning rate, "
        "loss weights and data mixture by step. Empty for the same in all steps.",
    )
    seed: Annotated[int, Fixed("weights, data windows and dropout depend on it")] = Field(
        0, ge=0, lt=2**63, description="Random seed of weights, data windows, dropout and samples."
    )
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp8"], _STEPS] = Field(
        "auto",
        description="Precision of matrix products; weights are fp32. auto: bf16 if the device supports it, else fp32. "
        "fp8: bf16, but 8-bit floating point for the projections of the blocks, for recent GPUs.",
    )
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], CHANGEABLE] = Field(
        "auto", description="Device. auto: CUDA if available, else MPS, else the CPU."
    )
    compile: Annotated[bool, CHANGEABLE] = Field(
        False, description="Compile the model's blocks with torch.compile: slow to start, then faster."
    )
    parallel: Annotated[ParallelSpec, CHANGEABLE] = component(
        {}, description="Distribution over several processes, started by torchrun."
    )
    recompute: Annotated[Literal["none", "blocks"], CHANGEABLE] = Field(
        "none",
        description="Activation checkpointing. blocks: keep only each block's input for the backward pass and compute the "
        "rest again, which needs less memory and about a third more time; the gradients are the same.",
    )
    init_from: Annotated[InitFromSpec | None, Fixed("the training started from these weights")] = Field(
        None,
        description="Weights to start from, in place of initial values. A missing section `tokenizer` is that of the "
        "weights, and a section `model` without `d_model` lists the differences from their model.",
    )
    freeze: Annotated[tuple[str, ...] | None, Fixed("the optimizer's state belongs to what is trained")] = Field(
        None,
        description="Parameters that are not trained: glob patterns over their names, such as embedding or blocks.[0-9].*, "
        "in which a module's name stands for all of its parameters. A pattern that begins with ! makes trainable again "
        "what earlier patterns froze: ['*', '!*norm*']. null: with low-rank adapters all but these, else nothing.",
    )
    log_every: Annotated[int, CHANGEABLE] = Field(
        10, ge=1, description="Number of steps between two lines of metrics; the loss is the mean since the previous line."
    )
    evaluate_every: Annotated[int | None, CHANGEABLE] = Field(
        100, ge=1, description="Steps between two validations; null for one before and one after the training."
    )
    evaluate_batches: Annotated[int, CHANGEABLE] = Field(
        20, ge=1, description="Maximum number of batches of a validation, the same every time."
    )
    sample_every: Annotated[int | None, CHANGEABLE] = Field(
        200, ge=1, description="Steps between two samples of text; null for one before and one after the training."
    )
    sample_prompt: Annotated[str, CHANGEABLE] = Field(
        "", description="The prompt of the samples; empty for the start of a text."
    )
    sample_tokens: Annotated[int, CHANGEABLE] = Field(
        100, ge=0, description="Number of tokens of a sample; 0 for no samples."
    )
    checkpoint_every: Annotated[int | None, CHANGEABLE] = Field(
        200, ge=1, description="Steps between two checkpoints; null for one at the end."
    )
    keep_checkpoints: Annotated[int, CHANGEABLE] = Field(2, ge=1, description="Number of newest checkpoints that are kept.")
    callbacks: Annotated[tuple[CallbackSpec, ...], _STEPS] = Field(
        (), description="Callbacks, called in this order: weight averages, schedules of batch size or length."
    )
    trackers: Annotated[tuple[TrackerSpec, ...], CHANGEABLE] = Field(
        (), description="Trackers of metrics, in addition to the run's metrics.jsonl, samples.txt and loss.png."
    )

    @model_validator(mode="after")
    def _check(self) -> TrainingSpec:
        problems = list(self._problems())
        if problems:
            raise validation_error(problems, self)
        return self

    def components(self) -> Iterator[tuple[tuple[str | int, ...], Component]]:
        """Yield the components of the section, each with its path."""
        yield ("optimizer",), self.optimizer
        yield ("schedule",), self.schedule
        for index, stage in enumerate(self.stages):
            if stage.schedule is not None:
                yield ("stages", index, "schedule"), stage.schedule
        for index, callback in enumerate(self.callbacks):
            yield ("callbacks", index), callback
        for index, tracker in enumerate(self.trackers):
            yield ("trackers", index), tracker

    def largest_step(self, window: int) -> tuple[int, int]:
        """Return the batch size and the number of tokens per window of the steps that need the most memory.

        Args:
            window: the number of tokens of a data window.
        """
        sizes = [(stage.batch_size or self.batch_size, stage.window or window) for stage in self.stages]
        return max(sizes, key=lambda size: size[0] * size[1], default=(self.batch_size, window))

    def _problems(self) -> Iterator[Problem]:
        if self.batch_size % self.grad_accumulation:
            possible = ", ".join(str(n) for n in range(1, self.batch_size + 1) if self.batch_size % n == 0)
            yield Problem(
                ("grad_accumulation",),
                f"a batch of {self.batch_size} has no {self.grad_accumulation} equal parts; possible: {possible}",
            )
        for problem in stage_problems(self.stages, self.steps, self.grad_accumulation):
            yield problem.below("stages")
        by_stages = any(stage.attention_window is not None for stage in self.stages)
        for index, callback in enumerate(self.callbacks):
            if by_stages and callback.name == "window-warmup":
                yield Problem(("callbacks", index), "attention windows are set by training.stages; remove one of the two")
            if self.optimizer.averages and callback.name == "ema":
                message = f"the optimizer {self.optimizer.name} provides the weights to evaluate with; remove one of the two"
                yield Problem(("callbacks", index), message)
        for place, part in self.components():
            for problem in resolution.problems(part, None):
                yield problem.below(*place)
