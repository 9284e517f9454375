"""Runtime of `mlstm`.

Shapes: B batch, T tokens, E model width, H heads, K features of queries and keys, V features of values, X features of the
values of all heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.ops.exponential_gating import exponential_gating

if TYPE_CHECKING:
    from gptkit.components.attention.mlstm import MLstmSpec

__all__ = ["MLstm"]


class MLstm(Attention):
    """Runtime of `mlstm`: computes chunks of tokens, or single ones in decoding."""

    def __init__(self, spec: MLstmSpec, context: BuildContext) -> None:
        super().__init__()
        assert spec.d_key is not None
        assert spec.d_value is not None
        self.n_heads, self.d_key, self.d_value = spec.n_heads, spec.d_key, spec.d_value
        self.gate_softcap, self.norm_kind, self.norm_eps, self.eps = spec.gate_softcap, spec.norm, spec.norm_eps, spec.eps
        d_keys, d_values = spec.n_heads * spec.d_key, spec.n_heads * spec.d_value
        self.split = [d_keys, d_keys, d_values, d_values]
        self.input = context.linear(context.d_model, sum(self.split), bias=False)
        """Rows: all heads' queries, keys, values, output gates."""
        self.gates = nn.Linear(context.d_model, 2 * spec.n_heads)
        """Rows: the heads' input gates, then their forget gates."""
        self.norm_weight = nn.Parameter(torch.ones(d_values)) if spec.norm != "none" else None
        self.output = context.linear(d_values, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {"output.weight": "output", "gates.weight": "zeros", "gates.bias": _gate_bias}
        if self.norm_weight is not None:
            initial["norm_weight"] = "ones"
        return initial

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {
            "input.weight": consecutive(("query", "key", "value", "gate"), self.split),
            "output.weight": {"output": (slice(None),)},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        state = cast("RecurrentState | None", forward.state(self))
        q, k, v, gate_BTX = self.input(x_BTE).split(self.split, dim=-1)
        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        q_BTHK, k_BTHK, v_BTHV = (torch.unflatten(x.to(wide), -1, (self.n_heads, -1)) for x in (q, k, v))
        gates_BTG = self.gates(x_BTE).to(wide)
        if self.gate_softcap is not None:
            gates_BTG = self.gate_softcap * torch.tanh(gates_BTG / self.gate_softcap)
        i_BTH, f_BTH = gates_BTG.chunk(2, dim=-1)
        f_BTH = F.logsigmoid(f_BTH)
        if forward.valid_BT is not None:
            # Padding is not stored, and an empty state does not decay.
            padding_BT1 = ~forward.valid_BT[..., None]
            i_BTH, f_BTH = i_BTH.masked_fill(padding_BT1, float("-inf")), f_BTH.masked_fill(padding_BT1, 0)
        if state is None or state.tensors is None:
            empty_BHKV = v_BTHV.new_zeros(n_batch, self.n_heads, self.d_key, self.d_value)
            memory = (empty_BHKV, empty_BHKV[..., 0], empty_BHKV[..., 0, 0])
        else:
            memory = cast("tuple[Tensor, Tensor, Tensor]", state.tensors)
        segments = None if forward.documents_BT is None else (forward.positions == 0).cumsum(dim=1)
        out_BTHV, memory = exponential_gating(
            q_BTHK * self.d_key**-0.5, k_BTHK, v_BTHV, i_BTH, f_BTH, memory, eps=self.eps, segments_BT=segments
        )
        if state is not None:
            state.update(n_tokens, *memory)
        out_BTX = self._normalized(out_BTHV).to(x_BTE.dtype)
        return self.output(gate_BTX.sigmoid() * out_BTX)  # type: ignore[no-any-return]

    def _normalized(self, out_BTHV: Tensor) -> Tensor:
        """Normalize the output of each head."""
        if self.norm_weight is None:
            return out_BTHV.flatten(2)
        if self.norm_kind == "layer":
            out_BTHV = out_BTHV - out_BTHV.mean(dim=-1, keepdim=True)
        out_BTHV = out_BTHV * torch.rsqrt(out_BTHV.square().mean(dim=-1, keepdim=True) + self.norm_eps)
        return out_BTHV.flatten(2) * self.norm_weight.to(out_BTHV.dtype)

    def new_state(self, allocation: Allocation) -> RecurrentState:
        wide = torch.promote_types(allocation.dtype, torch.float32)
        shapes = (self.n_heads, self.d_key, self.d_value), (self.n_heads, self.d_key), (self.n_heads,)
        return allocation.recurrent(*((shape, wide) for shape in shapes))


def _gate_bias(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return small input gates and forget gates near 1, from head to head closer to it, as in xLSTM 7B."""
    half = shape[0] // 2
    return torch.cat((torch.full((half,), -10.0), torch.linspace(3.0, 6.0, half)))
