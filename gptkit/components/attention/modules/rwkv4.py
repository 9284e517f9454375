"""Runtime of `rwkv4`.

Shapes: B batch, T tokens, E model width, X features of keys and values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.parameters import ParameterOptions
from gptkit.nn.token_shift import shifted, without_padding
from gptkit.ops.wkv import WkvState, wkv

if TYPE_CHECKING:
    from gptkit.components.attention.rwkv4 import Rwkv4Spec

__all__ = ["Rwkv4"]


class Rwkv4(Attention):
    """Runtime of `rwkv4`: computes chunks of tokens, or single ones in decoding."""

    def __init__(self, spec: Rwkv4Spec, context: BuildContext) -> None:
        super().__init__()
        assert spec.d_inner is not None
        self.d_model, self.d_inner = context.d_model, spec.d_inner
        # The blocks of a head are initialized as the last layer is.
        self.n_layers, self.index = context.n_layers, min(context.parts.index, context.n_layers - 1)
        self.mix = nn.Parameter(torch.zeros(3, context.d_model))
        """Shares of the current token in the inputs. Rows: those of the keys, the values, the receptance."""
        self.key = context.linear(context.d_model, spec.d_inner, bias=False)
        self.value = context.linear(context.d_model, spec.d_inner, bias=False)
        self.receptance = context.linear(context.d_model, spec.d_inner, bias=False)
        self.decay = nn.Parameter(torch.zeros(spec.d_inner))
        self.bonus = nn.Parameter(torch.zeros(spec.d_inner))
        self.output = context.linear(spec.d_inner, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        return {
            "output.weight": "output",
            "mix": self._initial_mix,
            "decay": self._initial_decay,
            "bonus": lambda shape, generator: math.log(0.3) + 0.5 * ((torch.arange(1, shape[0] + 1) % 3) - 1.0),
        }

    def parameter_options(self) -> dict[str, ParameterOptions]:
        # A table of factors, not a matrix that vectors are multiplied with.
        return {"mix": ParameterOptions(decay=False, hidden=False)}

    def _initial_mix(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Return shares that grow with the feature and with the layer."""
        fractions, remaining = torch.arange(shape[1]) / shape[1], 1 - self.index / self.n_layers
        share = fractions**remaining
        return torch.stack((share, share + 0.3 * self._depth(), fractions ** (0.5 * remaining)))

    def _initial_decay(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Return the logarithms of rates from exp(-5), a memory of many tokens, to exp(3)."""
        fractions = torch.arange(shape[0]) / max(1, shape[0] - 1)
        return 8 * fractions ** (0.7 + 1.3 * self._depth()) - 5

    def _depth(self) -> float:
        """The depth of the layer, from 0 for the first one to 1 for the last."""
        return self.index / max(1, self.n_layers - 1)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_tokens = x_BTE.shape[1]
        state = cast("RecurrentState | None", forward.state(self))
        last_B1E, *memory = (None,) if state is None or state.tensors is None else state.tensors
        x_BTE = without_padding(x_BTE, forward)
        previous_BTE = shifted(x_BTE, last_B1E, forward)
        for_k, for_v, for_r = (torch.lerp(previous_BTE, x_BTE, mix_E) for mix_E in self.mix.to(x_BTE.dtype))
        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        k_BTX, v_BTX, r_BTX = self.key(for_k).to(wide), self.value(for_v).to(wide), self.receptance(for_r).sigmoid()
        if not memory:
            memory = [k_BTX.new_zeros(x_BTE.shape[0], self.d_inner)] * 3
        padding_BT1 = None if forward.valid_BT is None else ~forward.valid_BT[:, -n_tokens:, None]
        y_BTX, memory_after = wkv(
            k_BTX,
            v_BTX,
            self.decay.to(wide).exp(),
            self.bonus.to(wide),
            cast("WkvState", tuple(memory)),
            padding_BT1=padding_BT1,
            resets_BT=None if forward.documents_BT is None else (forward.positions == 0)[:, -n_tokens:],
        )
        if state is not None:
            state.update(n_tokens, x_BTE[:, -1:].clone(), *memory_after)
        return self.output(r_BTX * y_BTX.to(x_BTE.dtype))  # type: ignore[no-any-return]

    def new_state(self, allocation: Allocation) -> RecurrentState:
        wide = torch.promote_types(allocation.dtype, torch.float32)
        return allocation.recurrent(((1, self.d_model), allocation.dtype), *[((self.d_inner,), wide)] * 3)
