"""Allocation of the weights of models that were built on the meta device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gptkit.nn.full_precision import dtype_in_model

__all__ = ["WithoutInitialization", "materialize"]


class WithoutInitialization(TorchFunctionMode):
    """Mode in which torch's modules do not initialize their weights: `initialize` or a checkpoint fills them.

    This saves the time of their initialization, and of imports that torch needs for it on the meta device.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def materialize(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Allocate every parameter; a tied or shared one is allocated once."""
    allocated: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in allocated:
                own_dtype = dtype_in_model(module, name, dtype)
                data = torch.empty(parameter.shape, dtype=own_dtype, device=device)
                allocated[id(parameter)] = nn.Parameter(data, parameter.requires_grad)
            setattr(module, name, allocated[id(parameter)])
