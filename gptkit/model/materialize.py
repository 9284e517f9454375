"""From a model on the meta device to one with weights in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["WithoutStartingValues", "materialize"]


class WithoutStartingValues(TorchFunctionMode):
    """Mode in which torch's modules do not initialize their weights: `initialize` or a checkpoint fills them.

    It saves the time of the initialization, and of imports of torch for the meta device.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def materialize(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Allocate every parameter; tied and shared ones remain one."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                data = torch.empty(parameter.shape, dtype=dtype, device=device)
                made[id(parameter)] = nn.Parameter(data, parameter.requires_grad)
            setattr(module, name, made[id(parameter)])
