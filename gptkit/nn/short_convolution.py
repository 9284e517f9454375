"""A short convolution over tokens that is added to its input.

Shapes: B batch, T tokens, C features, W width in tokens.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.token_shift import without_padding
from gptkit.ops.causal_conv import causal_conv, conv_tail

__all__ = ["ShortConvolution"]


class ShortConvolution(nn.Conv1d, Stateful):
    """Add to each feature a weighted sum of its last values: y_t = x_t + Σ_i w_i ⊙ x_{t−i}, i from 0 to W − 1.

    Before the first token of a text, x is zero. The sum is computed in fp32 or wider. The decoding state is the last W − 1
    inputs. The weight, (C, 1, W), begins with uniform values between −1/√W and 1/√W.

    Source: Canon layers, https://arxiv.org/abs/2512.17351.

    Args:
        n_features: C.
        width: W.
        scaled: divide y by the root of its number of terms, √(W + 1).
    """

    def __init__(self, n_features: int, width: int, *, scaled: bool = False) -> None:
        super().__init__(n_features, n_features, width, groups=n_features, bias=False)
        self.divisor = math.sqrt(width + 1) if scaled else 1.0

    def initial(self) -> dict[str, Initial]:
        return {"weight": _uniform}

    def forward(self, x_BTC: Tensor, forward: Forward) -> Tensor:  # type: ignore[override]
        """Map (B, T, C) to (B, T, C), of the last tokens of a call."""
        state = cast("RecurrentState | None", forward.state(self))
        tail = None if state is None or state.tensors is None else state.tensors[0]
        wide = torch.promote_types(x_BTC.dtype, torch.float32)
        seen_BTC = without_padding(x_BTC, forward)
        positions = None if forward.documents_BT is None else forward.positions[..., -x_BTC.shape[1] :]
        mixed_BTC = causal_conv(seen_BTC.to(wide), self.weight.to(wide), tail, positions)
        if state is not None:
            state.update(x_BTC.shape[1], conv_tail(seen_BTC, self.weight.shape[2], tail))
        y_BTC = x_BTC + mixed_BTC
        return (y_BTC if self.divisor == 1 else y_BTC / self.divisor).to(x_BTC.dtype)

    def new_state(self, allocation: Allocation) -> RecurrentState:
        n_features, _, width = self.weight.shape  # of this part of the features, in tensor parallelism
        return allocation.recurrent(((width - 1, n_features), allocation.dtype))


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    bound = shape[-1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
