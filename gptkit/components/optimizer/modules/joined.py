"""Combination of several optimizers."""

from __future__ import annotations

from typing import Any

import torch

from gptkit.components.optimizer.modules.base import Optimizer

__all__ = ["Joined"]


class Joined(Optimizer):
    """Combination of several optimizers of disjoint parameters, with one `param_groups` and one `state_dict`."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._bind()

    def _bind(self) -> None:
        """Share this optimizer's groups and state with the parts."""
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def update_groups(self) -> None:
        for part in self._parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._bind()
