"""The torch module of `LowRankSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.core.patterns import matches
from gptkit.nn.initial import Initial
from gptkit.nn.linear import AdaptedLinear
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.linear.low_rank import LowRankSpec

__all__ = ["LowRankLinear"]


class LowRankLinear(AdaptedLinear):
    """A dense projection and its adapter, A (rank, d_in) and B (d_out, rank); both None where it has no adapter."""

    lora_a: nn.Parameter | None
    lora_b: nn.Parameter | None

    def __init__(self, spec: LowRankSpec, d_in: int, d_out: int, *, bias: bool) -> None:
        super().__init__(d_in, d_out, bias=bias)
        self.scaling = spec.alpha / spec.rank
        self.dropout = spec.dropout
        self.patterns = spec.projections
        # Placeholders, which `initial` replaces.
        self.lora_a = nn.Parameter(torch.zeros(spec.rank, d_in))
        self.lora_b = nn.Parameter(torch.zeros(d_out, spec.rank))

    def placed(self, name: str) -> None:
        if not any(matches(name, pattern) for pattern in self.patterns):
            self.lora_a = self.lora_b = None

    def adapter_parameters(self) -> Sequence[str]:
        return () if self.lora_a is None else ("lora_a", "lora_b")

    def initial(self) -> dict[str, Initial]:
        return {} if self.lora_a is None else {"lora_a": _uniform, "lora_b": "zeros"}

    def transformed_weight(self) -> Tensor:
        if self.lora_a is None or self.lora_b is None:
            return self.weight
        return torch.addmm(self.weight, self.lora_b, self.lora_a, alpha=self.scaling)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        if self.lora_a is None or self.lora_b is None:
            return y
        # Two products of narrow matrices: the merged weight and its gradient would take as much memory as W.
        dropped = dropout(x, self.dropout, self.training)
        return torch.add(y, F.linear(F.linear(dropped, self.lora_a), self.lora_b), alpha=self.scaling)

    def extra_repr(self) -> str:
        return super().extra_repr() if self.lora_a is None else f"{super().extra_repr()}, rank={self.lora_a.shape[0]}"


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw the initial values of the paper's implementation: uniform within ±1/√d_in."""
    bound = shape[-1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
