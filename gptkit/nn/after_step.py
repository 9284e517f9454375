"""The hook `after_step` of modules, called once per optimizer step, outside of the forward pass."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

__all__ = ["AfterStep", "after_step"]


@runtime_checkable
class AfterStep(Protocol):
    """A module with something to update once per optimizer step: an average, a router's selection bias.

    The forward pass may run many times before a step (gradient accumulation) and twice for one gradient (activation
    checkpointing), so a module only collects values in buffers there, and updates here.
    """

    def after_step(self) -> None:
        """Update from the values collected since the last step, and clear them."""


def after_step(model: nn.Module) -> None:
    """Call `after_step` of every module that has it; a training loop does so after each optimizer step."""
    for module in model.modules():
        # Not isinstance with the protocol: its result for a class is cached, also where an instance has the method.
        update = getattr(module, "after_step", None)
        if update is not None:
            update()
