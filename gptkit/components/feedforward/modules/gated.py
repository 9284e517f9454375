"""Modules of `GatedSpec`. The rows of `gate_up` are those of the gate, then those of the up-projection.

Shapes: B batch, T tokens, M rows sorted by expert, E model width, F hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.addition import TakesAddition
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.stacked import StackedFeedForward, StackedLinear
from gptkit.nn.tensor_parallel import Divided, Division
from gptkit.ops.dropout import dropout
from gptkit.ops.grouped import Groups

if TYPE_CHECKING:
    from gptkit.components.feedforward.gated import GatedSpec

__all__ = ["Gated", "StackedGated"]


class Gated(FeedForward, TakesAddition):
    """Packed gate and up-projection, their product, down-projection."""

    def __init__(self, spec: GatedSpec, context: BuildContext) -> None:
        super().__init__()
        d_hidden = spec.hidden(context)
        self.clamp = spec.clamp
        self.up_offset, self.up_softcap = spec.up_offset, spec.up_softcap
        self.gate_scale, self.output_scale = spec.gate_scale, spec.output_scale
        self.cutoff = _cutoff(spec.sparsity)
        self.gate_up = context.linear(context.d_model, 2 * d_hidden, bias=spec.bias)
        self.activation = spec.activation.build(context)
        self.dropout = spec.dropout
        self.hidden_norm = None if spec.hidden_norm is None else spec.hidden_norm.build(context, dim=d_hidden)
        self.down = context.linear(d_hidden, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        return {"down.weight": "output"}

    def divisions(self) -> Mapping[str, Division]:
        # The cut-off depends on all features of the gate, and the norm on all features of the product.
        # An addition has all features.
        whole = self.cutoff is not None or self.hidden_norm is not None or self.has_addition
        return {} if whole else _divisions(self.down.in_features)

    @property
    def addition_widths(self) -> tuple[int, ...]:
        return (2 * self.down.in_features,)

    def forward(self, x_BTE: Tensor, forward: Forward, added_BTX: Tensor | None = None) -> Tensor:
        gate_up_BTX = self.gate_up(x_BTE) if added_BTX is None else self.gate_up(x_BTE) + added_BTX
        product_BTF = _product(self, gate_up_BTX)
        if self.hidden_norm is not None:
            product_BTF = self.hidden_norm(product_BTF)
        y_BTE: Tensor = self.down(dropout(product_BTF, self.dropout, self.training))
        return y_BTE if self.output_scale == 1 else y_BTE * self.output_scale


class StackedGated(StackedFeedForward):
    """Experts of a mixture, each a `Gated`, with stacked weights."""

    def __init__(self, spec: GatedSpec, context: BuildContext, activation: nn.Module, n_experts: int) -> None:
        super().__init__()
        d_hidden = spec.hidden(context)
        self.clamp = spec.clamp
        self.up_offset, self.up_softcap = spec.up_offset, spec.up_softcap
        self.gate_scale, self.output_scale = spec.gate_scale, spec.output_scale
        self.cutoff = _cutoff(spec.sparsity)
        self.gate_up = StackedLinear(n_experts, context.d_model, 2 * d_hidden, bias=spec.bias)
        self.activation = activation
        self.dropout = spec.dropout
        self.down = StackedLinear(n_experts, d_hidden, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        return {"down.weight": "output"}

    def divisions(self) -> Mapping[str, Division]:
        # The cut-off depends on all features of the gate.
        return _divisions(self.down.in_features) if self.cutoff is None else {}

    def forward(self, x_ME: Tensor, groups: Groups, forward: Forward) -> Tensor:
        product_MF = _product(self, self.gate_up(x_ME, groups))
        y_ME: Tensor = self.down(dropout(product_MF, self.dropout, self.training), groups)
        return y_ME if self.output_scale == 1 else y_ME * self.output_scale


def _cutoff(sparsity: float) -> float | None:
    """Return how many standard deviations from the mean a share `sparsity` of normal values is below; None for 0."""
    return NormalDist().inv_cdf(sparsity) if sparsity else None


def _product(module: Gated | StackedGated, gate_up: Tensor) -> Tensor:
    """Compute f(gate_scale · gate) ⊙ (up + up_offset), (…, 2F) to (…, F)."""
    gate, up = gate_up.chunk(2, dim=-1)
    if module.gate_scale != 1:
        gate = gate * module.gate_scale
    if module.cutoff is not None:
        deviation, mean = torch.std_mean(gate, dim=-1, correction=0, keepdim=True)
        gate = (gate - mean - module.cutoff * deviation).relu()
    if module.clamp is not None:
        gate, up = gate.clamp(max=module.clamp), up.clamp(-module.clamp, module.clamp)
    if module.up_softcap is not None:
        up = module.up_softcap * torch.tanh(up / module.up_softcap)
    if module.up_offset:
        up = up + module.up_offset
    product: Tensor = module.activation(gate) * up
    return product


def _divisions(d_hidden: int) -> dict[str, Division]:
    """Return the division by hidden features, of one feed-forward or of a stack."""
    sections = {"gate features": d_hidden, "up features": d_hidden}
    return {
        "gate_up.weight": Divided(-2, sections),
        "gate_up.bias": Divided(-1, sections),
        "down.weight": Divided(-1, {"hidden features": d_hidden}),
        "down.bias": "added",
    }
