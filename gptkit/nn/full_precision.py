"""Parameters that stay in fp32 in a model that is cast to a narrower dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

__all__ = ["FullPrecision", "dtype_in_model"]


class FullPrecision(nn.Module):
    """Base of modules with parameters that rounding would change the effect of.

    A router's selection bias is an example: it grows without bound, and differences of scores are added to it, which bf16
    rounds away (at 8, its values are 1/16 apart). Transformers keeps this bias in fp32, too.

    Class variables:
        full_precision: names of the module's own parameters that `to`, `bfloat16` and `half` leave in fp32 or wider.
    """

    full_precision: ClassVar[frozenset[str]] = frozenset()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        own = dict(self.named_parameters(recurse=False))
        before = {name: own[name].data for name in self.full_precision if name in own}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in before.items():
            parameter = self.get_parameter(name)
            if parameter.dtype != dtype_in_model(self, name, parameter.dtype):
                parameter.data = value.to(parameter.device)
        return self


def dtype_in_model(module: nn.Module, name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a module's own parameter in a model of a dtype: at least fp32 if the module requires it."""
    if isinstance(module, FullPrecision) and name in module.full_precision:
        return torch.promote_types(dtype, torch.float32)
    return dtype
