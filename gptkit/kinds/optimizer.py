"""Kinds `optimizer` and `schedule`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from gptkit.core.component import Component
from gptkit.core.spec import Spec

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["OptimizerSpec", "ParameterGroupSpec", "ScheduleSpec"]


class ParameterGroupSpec(Spec):
    """Parameter group: parameters selected by name, and how their optimization differs from that of the others."""

    match: tuple[str, ...] = Field(
        min_length=1,
        description="Glob patterns of parameter names, as in training.freeze: `embedding`, or `blocks.*norm`. A module's "
        "name stands for all of its parameters; one pattern may be given without a list.",
    )
    rate: float | None = Field(
        None, gt=0, description="Factor of the learning rate, in place of the one that modules declare; null to keep that."
    )
    weight_decay: float | None = Field(
        None, ge=0, description="Weight decay of all of these parameters, also norms and biases; null for the optimizer's."
    )
    hidden: bool | None = Field(
        None,
        description="Whether these matrices are orthogonalized by `muon`, preconditioned by `soap`; null for all but "
        "embeddings, heads and positions.",
    )

    @field_validator("match", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _one_pattern(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """Name of the group in metrics: its patterns."""
        return ",".join(self.match)


class OptimizerSpec(Component):
    """Optimizer.

    `build` sets the `lr` of every parameter group relative to `learning_rate`; the trainer multiplies each by the
    schedule's factor. All state is in the optimizer's `state_dict`, as tensors and numbers.
    `gptkit.nn.parameters.parameter_options(model, self.groups)` returns the options of each parameter, from the spec's
    groups and the declarations of modules: whether weight decay applies, whether it is a hidden matrix, a factor of its
    learning rate. `gptkit.components.optimizer.groups` makes a torch optimizer's parameter groups of them.

    If a run is to be evaluated with other weights than the trained ones, the spec sets `averages`, and the built optimizer
    has the method `evaluation_weights`.
    """

    kind: ClassVar[str] = "optimizer"

    elementwise: ClassVar[bool] = False
    """Whether the update of each number depends on its own gradients only; needed by tensor parallelism, which divides
    matrices."""

    averages: ClassVar[bool] = False
    """Whether a run is evaluated, sampled, loaded and exported with other weights than the trained ones. The built optimizer
    then has the method `evaluation_weights`, which returns them as a dict from each of its parameters to a tensor."""

    learning_rate: float = Field(1e-3, gt=0, description="The peak learning rate.")
    groups: tuple[ParameterGroupSpec, ...] = Field(
        (),
        description="Parameters with another learning rate or weight decay, by name. A parameter belongs to the first group "
        "that matches it.",
    )

    @abstractmethod
    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the model's trainable parameters (`requires_grad`), each in exactly one group.

        Other parameters are frozen (`training.freeze`); a step must not change them. Parameters of different `groups` are
        in different parameter groups of the optimizer, which have the key `label` for metrics (`ParameterGroupSpec.label`).
        """


class ScheduleSpec(Component):
    """Learning-rate schedule: a pure function of the step."""

    kind: ClassVar[str] = "schedule"

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the peak learning rate, 0 to 1, at `step` (counted from 0) of `steps`."""
