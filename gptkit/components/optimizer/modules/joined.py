"""Combination of several optimizers."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Joined"]


class Joined(torch.optim.Optimizer):
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

    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._bind()
