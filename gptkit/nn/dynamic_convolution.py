"""A short convolution over tokens whose weights depend on the token, added to its input.

Shapes: B batch, T tokens, C features, H heads, D features of a head, W width in tokens, E features of the layer's input.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.parameters import ParameterOptions
from gptkit.nn.token_shift import without_padding
from gptkit.ops.causal_conv import conv_tail

__all__ = ["DynamicConvolution"]


class DynamicConvolution(nn.Module, Stateful):
    """Add to each feature a weighted sum of its last values: y_t = (x_t + Σ_i (w_i + a_{t,i}) ⊙ x_{t−i}) / √(2 W + 1).

    i is from 0 to W − 1. The w_i have a weight of each feature; a_t, from a projection of the layer's input for the token t,
    one for all features of a head. Before the first token of a text, x is zero. The sum is computed in fp32 or wider. The
    decoding state is the last W − 1 inputs. The weight, (W, C), row i for the distance i, begins with zeros.

    Source: the convolutions of keys and values in layers of Inkling 2 without a window.

    Args:
        context: the build context, inside a layer.
        n_heads: H.
        d_head: D; C = H · D.
        width: W.
    """

    def __init__(self, context: BuildContext, n_heads: int, d_head: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.divisor = math.sqrt(2 * width + 1)
        self.weight = nn.Parameter(torch.empty(width, n_heads * d_head))
        self.dynamic = context.linear(context.d_model, n_heads * width, bias=False)
        """Rows: the weights of each head, by distance."""

    def initial(self) -> dict[str, Initial]:
        return {"weight": "zeros"}

    def parameter_options(self) -> dict[str, ParameterOptions]:
        # Factors of features, not a matrix between hidden layers.
        return {"weight": ParameterOptions(hidden=False)}

    def forward(self, x_BTC: Tensor, input_BTE: Tensor, forward: Forward) -> Tensor:
        """Map (B, T, C) to (B, T, C), with the layer's input (B, T, E) for these tokens."""
        state = cast("RecurrentState | None", forward.state(self))
        tail = None if state is None or state.tensors is None else state.tensors[0]
        n_tokens, wide = x_BTC.shape[1], torch.promote_types(x_BTC.dtype, torch.float32)
        seen_BTC = without_padding(x_BTC, forward)
        if tail is None:
            tail = seen_BTC.new_zeros(seen_BTC.shape[0], self.width - 1, seen_BTC.shape[2])
        seen_BSC = torch.cat((tail.to(wide), seen_BTC.to(wide)), dim=1)
        positions = None if forward.documents_BT is None else forward.positions[..., -n_tokens:]
        dynamic_BTHW = torch.unflatten(self.dynamic(input_BTE).to(wide), -1, (-1, self.width))
        weight, y_BTC = self.weight.to(wide), x_BTC.to(wide)
        for back in range(self.width):
            begin = self.width - 1 - back
            part_BTC = seen_BSC[:, begin : begin + n_tokens]
            if positions is not None:
                part_BTC = part_BTC * (positions >= back)[..., None]
            part_BTHD = torch.unflatten(part_BTC, -1, (dynamic_BTHW.shape[2], -1))
            y_BTC = y_BTC + part_BTC * weight[back] + (part_BTHD * dynamic_BTHW[..., back, None]).flatten(2)
        if state is not None:
            state.update(n_tokens, conv_tail(seen_BTC, self.width, tail))
        return (y_BTC / self.divisor).to(x_BTC.dtype)

    def new_state(self, allocation: Allocation) -> RecurrentState:
        width, n_features = self.weight.shape  # of this part of the features, in tensor parallelism
        return allocation.recurrent(((width - 1, n_features), allocation.dtype))
