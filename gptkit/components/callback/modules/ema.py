"""Runtime part of callback `ema`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gptkit.kinds.callback import Callback, Training

__all__ = ["EMA"]


class EMA(Callback):
    """Exponential moving average of the trainable parameters.

    Args:
        decay: decay of the average at each update.
        warmup: start with a smaller decay.
        every: number of steps between two updates.
    """

    def __init__(self, decay: float, *, warmup: bool = True, every: int = 1) -> None:
        self.decay = decay
        self.warmup = warmup
        self.every = every
        self.updates = 0
        self._parameters: dict[str, Tensor] = {}
        self._averages: dict[str, Tensor] = {}

    @torch.no_grad()
    def setup(self, training: Training) -> None:
        trained = {name: tensor for name, tensor in training.model.named_parameters() if tensor.requires_grad}
        self._parameters = {name: tensor.detach() for name, tensor in trained.items()}
        self._averages = {name: tensor.clone() for name, tensor in self._parameters.items()}

    @torch.no_grad()
    def on_step(self, step: int) -> None:
        if step % self.every:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        torch._foreach_lerp_(list(self._averages.values()), list(self._parameters.values()), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "averages": dict(self._averages)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, average in self._averages.items():
            average.copy_(state["averages"][name])

    def evaluation_weights(self) -> Mapping[str, Tensor]:
        return self._averages
