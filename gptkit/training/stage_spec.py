"""Stages of a training in a spec file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from gptkit.core.component import optional_component
from gptkit.core.errors import Problem
from gptkit.core.spec import Spec, fail
from gptkit.kinds.data import LARGEST_WEIGHT
from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["Stage", "StageSpec", "stage_problems", "timeline"]


class StageSpec(Spec):
    """Stage of a training: a number of steps, and what differs in them from the training section and the model."""

    steps: int | None = Field(
        None, ge=1, description="Number of steps of the stage; the last stage may omit it, and then lasts to the end."
    )
    batch_size: int | None = Field(None, ge=1, description="Data windows per step; null for training.batch_size.")
    window: int | None = Field(
        None,
        ge=1,
        description="Tokens of each data window that are used, from the first; null for all. Data windows are chosen as "
        "without stages.",
    )
    attention_window: int | None = Field(
        None,
        ge=1,
        description="Sliding attention window of the layers that have a larger one, in training only; null for the model's.",
    )
    rate: float = Field(1.0, gt=0, description="Factor of the learning rate.")
    schedule: ScheduleSpec | None = optional_component(
        description="Learning-rate schedule over the steps of the stage; null to continue training.schedule."
    )
    losses: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Weights of terms of the training loss in place of the model's: z_loss and label_smoothing of the head "
        "`linear`, multi_token of the head `multi-token`, load_balance and router_z of routers.",
    )
    mixture: dict[str, Annotated[float, Field(ge=0, le=LARGEST_WEIGHT, allow_inf_nan=False)]] | None = Field(
        None,
        description="Relative weights of the sources of data `mixture`, by name; sources that are not named are not drawn. "
        "null for the weights of the data.",
    )

    @model_validator(mode="after")
    def _mixture_has_a_source(self) -> StageSpec:
        if self.mixture is not None and not any(self.mixture.values()):
            fail("no source has a weight; set one above 0, or remove the mixture", ("mixture",), self.mixture)
        return self


@dataclass(frozen=True)
class Stage:
    """Stage with its place in the training.

    Attributes:
        spec: the stage's spec.
        begin: number of steps before it.
        end: number of steps up to its end.
    """

    spec: StageSpec
    begin: int
    end: int


def timeline(stages: Sequence[StageSpec], steps: int) -> list[Stage]:
    """Return the stages with their first and last steps; those after the end of a shorter training included.

    Args:
        stages: the stages.
        steps: the number of steps of the training, to which a last stage without `steps` lasts.
    """
    result: list[Stage] = []
    begin = 0
    for stage in stages:
        end = max(steps, begin) if stage.steps is None else begin + stage.steps
        result.append(Stage(stage, begin, end))
        begin = end
    return result


def stage_problems(stages: Sequence[StageSpec], steps: int, accumulation: int) -> Iterator[Problem]:
    """Yield the problems of stages, with paths below `stages`.

    Args:
        stages: the stages.
        steps: the number of steps of the training.
        accumulation: the number of parts of a batch.
    """
    for index, stage in enumerate(stages):
        if stage.steps is None and index < len(stages) - 1:
            yield Problem((index, "steps"), "only the last stage lasts to the end; set the number of steps of this one")
        if stage.batch_size is not None and stage.batch_size % accumulation:
            yield Problem(
                (index, "batch_size"),
                f"a batch of {stage.batch_size} has no {accumulation} equal parts (training.grad_accumulation); "
                f"set it to a multiple of {accumulation}",
            )
    total = sum(stage.steps or 0 for stage in stages)
    if stages and stages[-1].steps is not None and total < steps:
        yield Problem(
            (len(stages) - 1, "steps"),
            f"the stages end at step {total:,}, but the training has {steps:,} steps; remove `steps` of the last stage, so "
            "that it lasts to the end",
        )
