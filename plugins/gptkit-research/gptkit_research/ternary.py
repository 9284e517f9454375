"""Linear projection `ternary`."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.kinds.linear import LinearSpec
from gptkit.nn.linear import TransformedLinear

__all__ = ["TernaryLinear", "TernarySpec"]


class TernarySpec(LinearSpec):
    """Ternary weights and 8-bit activations (BitNet b1.58), trained with a straight-through estimator.

    Formula:
        y = Q_w(W) · Q_x(x) + b
        Q_w(W) = γ · clip(round(W / γ), −1, 1),  γ = mean |W|
        Q_x(x) = s · clip(round(x / s), −2^(bits − 1), 2^(bits − 1) − 1),  s = max |x| / (2^(bits − 1) − 1) for each vector
        gradients of Q_w and Q_x: those of the identity
    Shapes:
        (…, d_in) → (…, d_out); W: (d_out, d_in), stored in full precision
    Paper:
        https://arxiv.org/abs/2402.17764
    Notes:
        x / s is rounded to a multiple of 2⁻¹² first, so that rounding errors do not decide in the middle of two integers.
        The paper normalizes the input of each projection; a pre-norm block normalizes the inputs from the residual stream.
    """

    name: Literal["ternary"] = "ternary"
    bits: int | None = Field(8, ge=2, le=16, description="Bits of the activations; null for no quantization.")
    examples = ({}, {"bits": None})

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> TernaryLinear:
        linear = TernaryLinear(d_in, d_out, bias=bias)
        linear.largest = None if self.bits is None else 2 ** (self.bits - 1) - 1
        return linear


class TernaryLinear(TransformedLinear):
    """Runtime part of `TernarySpec`."""

    largest: int | None

    def transformed_input(self, x: Tensor) -> Tensor:
        if self.largest is None:
            return x
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        step = wide.abs().amax(dim=-1, keepdim=True).clamp_min(1e-5) / self.largest
        # Ternary products of quantized vectors are multiples of one number, so x / s is often the middle of two integers but
        # for its rounding error. Multiples of 2^-12 are exact there, and the error does not choose the integer.
        nearly = (wide / step * 4096).round() / 4096
        rounded = nearly.round().clamp(-self.largest - 1, self.largest) * step
        return x + (rounded.to(x.dtype) - x).detach()

    def transformed_weight(self) -> Tensor:
        weight = self.weight
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        scale = wide.abs().mean().clamp_min(1e-5)
        rounded = (wide / scale).round().clamp(-1, 1) * scale
        return weight + (rounded.to(weight.dtype) - weight).detach()
