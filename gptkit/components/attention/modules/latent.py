"""Runtime of `latent`.

Shapes: B batch, H heads, T tokens of this call, S keys in view, N features without position, R rotated features,
V features of a value, C width of the latent, E model width, Q what queries are projected from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.tensor_parallel import Divided, Division
from gptkit.ops.symbols import varies

if TYPE_CHECKING:
    from gptkit.components.attention.latent import LatentSpec

__all__ = ["LatentAttention", "Selection"]


@dataclass(frozen=True)
class Selection:
    """Keys that a layer attends to.

    Attributes:
        added: a term of the attention's scores, (B, 1, T, S): 0 for chosen keys, else low enough for a weight of zero.
        scores: by which they were chosen, (B, T, S), lowest for the others.
    """

    added: Tensor
    scores: Tensor


class LatentAttention(SoftmaxAttention):
    """Runtime of `latent`.

    A single new token attends to the latents directly, with the up-projections absorbed into query and output, so decoding
    reads the small cache only. Several tokens expand keys and values, which takes fewer operations.
    """

    def __init__(self, spec: LatentSpec, context: BuildContext, *, added_term: bool = False) -> None:
        assert spec.n_heads is not None
        assert spec.kv_rank is not None
        heads = HeadShape(spec.n_heads, 1, spec.d_rotary)
        scale = spec.scale or (spec.d_nope + spec.d_rotary) ** -0.5
        super().__init__(
            context,
            heads,
            scale=scale,
            dropout=spec.dropout,
            window=spec.window,
            sinks=spec.sinks,
            added_term=added_term,
        )
        self.n_heads, self.d_nope, self.d_rotary, self.d_value = spec.n_heads, spec.d_nope, spec.d_rotary, spec.d_value
        self.kv_rank = spec.kv_rank
        self.reads_both, self.d_gate = spec.reads_both, spec.d_gate
        d_query = spec.n_heads * (spec.d_nope + spec.d_rotary + spec.d_gate)
        self.q_down = None if spec.q_rank is None else context.linear(context.d_model, spec.q_rank, bias=spec.bias)
        self.q_latent_norm = None if spec.q_rank is None else spec.norm.build(context, dim=spec.q_rank)
        d_source = context.d_model if spec.q_rank is None else spec.q_rank * (2 if self.reads_both else 1)
        self.q_up = context.linear(d_source, d_query, bias=False)
        """Rows: head by head, first the features without position, then the rotated ones, then those of a gate."""
        self.kv_down = context.linear(context.d_model, spec.kv_rank + spec.d_rotary, bias=spec.bias)
        self.kv_latent_norm = spec.norm.build(context, dim=spec.kv_rank)
        self.rotary_norm = None if spec.rotary_norm is None else spec.rotary_norm.build(context, dim=spec.d_rotary)
        ranks = (spec.q_rank or context.d_model, spec.kv_rank)
        self.q_factor, self.kv_factor = (math.sqrt(context.d_model / rank) if spec.scale_latents else 1.0 for rank in ranks)
        self.kv_up = nn.Linear(spec.kv_rank, spec.n_heads * (spec.d_nope + spec.d_value), bias=False)
        """Rows: head by head, first the key's, then the value's."""
        self.head_gate = context.linear(context.d_model, spec.n_heads, bias=False) if spec.head_gate else None
        gates = spec.n_heads * spec.d_value
        own = spec.output_gate and not spec.d_gate
        self.gate = context.linear(context.d_model, gates, bias=False) if own else None
        """Rows: head by head, as the values."""
        self.output = context.linear(spec.n_heads * spec.d_value, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output", **({} if self.sinks is None else {"sinks": "zeros"})}

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        width, d_query = self.d_nope + self.d_value, self.d_nope + self.d_rotary
        heads = [head * width for head in range(self.n_heads)]
        queries = [head * (d_query + self.d_gate) for head in range(self.n_heads)] if self.d_gate else []
        return {
            "q_up.weight": {"query": tuple(slice(first, first + d_query) for first in queries) or (slice(None),)},
            "kv_up.weight": {
                "key": tuple(slice(first, first + self.d_nope) for first in heads),
                "value": tuple(slice(first + self.d_nope, first + width) for first in heads),
            },
            "output.weight": {"output": (slice(None),)},
        }

    def divisions(self) -> Mapping[str, Division]:
        if self.biases or self.reads_content or self.changes_values or self.mixes_scores or self.mixes_weights:
            return {}
        heads = {"heads": self.n_heads}
        before = {name: module for name, module in self.named_children() if "down" in name or "norm" in name}
        return {
            # The latents are computed by every process.
            **{f"{name}.{own}": "shared" for name, module in before.items() for own, _ in module.named_parameters()},
            "q_up.weight": Divided(-2, heads),
            "kv_up.weight": Divided(-2, heads),
            **({} if self.head_gate is None else {"head_gate.weight": Divided(-2, heads)}),
            **({} if self.gate is None else {"gate.weight": Divided(-2, heads)}),
            **({} if self.sinks is None else {"sinks": Divided(-1, heads)}),
            "output.weight": Divided(-1, heads),
            "output.bias": "added",
        }

    def divide(self, count: int) -> None:
        self.n_heads //= count
        self.heads = HeadShape(self.n_heads, 1, self.d_rotary)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        q = source_BTQ = x_BTE
        if self.q_down is not None and self.q_latent_norm is not None:
            raw = self.q_down(x_BTE)
            q = self.q_latent_norm(raw)
            if self.q_factor != 1:
                q = q * self.q_factor
            source_BTQ = torch.cat((q, raw), dim=-1) if self.reads_both else q
        q_BHTX = self.q_up(source_BTQ).view(n_batch, n_tokens, self.n_heads, -1).transpose(1, 2)
        gates = [self.d_gate] if self.d_gate else []
        q_BHTN, q_BHTR, *gates_BHTV = q_BHTX.split([self.d_nope, self.d_rotary, *gates], dim=-1)
        latent_BTC, k_BTR = self.kv_down(x_BTE).split([self.kv_rank, self.d_rotary], dim=-1)
        if self.rotary_norm is not None:
            k_BTR = self.rotary_norm(k_BTR)
        latent_B1TC, k_B1TR = self.kv_latent_norm(latent_BTC)[:, None], k_BTR[:, None]
        if self.kv_factor != 1:
            latent_B1TC = latent_B1TC * self.kv_factor

        state = cast("TokenState | None", forward.state(self))
        offset: KeyOffset = forward.offset
        q_BHTR, k_B1TR = self.rotate(q_BHTR, k_B1TR, forward)
        if self.rotates:
            q_BHTN = self.position.scale_unrotated(q_BHTN, self.prepared(forward))
        more = self.more_keys(x_BTE, forward)
        if state is not None:
            offset, (latent_B1TC, k_B1TR, *own) = state.append(latent_B1TC, k_B1TR, *more)
            more = tuple(own)
        selection = self.select(x_BTE, q, more, k_B1TR.shape[2], forward, offset)

        # A number of tokens that varies (a program of torch.export) takes the form for several.
        if state is not None and not varies(n_tokens) and n_tokens == 1:
            out_BHTV = self._absorbed(q_BHTN, q_BHTR, latent_B1TC, k_B1TR, forward, offset, selection)
        else:
            out_BHTV = self._expanded(q_BHTN, q_BHTR, latent_B1TC, k_B1TR, forward, offset, selection)
        if self.head_gate is not None:
            out_BHTV = out_BHTV * self.head_gate(x_BTE).sigmoid().transpose(1, 2)[..., None]
        for gate_BHTV in gates_BHTV:  # at most one
            out_BHTV = out_BHTV * gate_BHTV.sigmoid()
        out_BTX = out_BHTV.transpose(1, 2).reshape(n_batch, n_tokens, -1)
        if self.gate is not None:
            out_BTX = out_BTX * self.gate(x_BTE).sigmoid()
        return self.output(out_BTX)  # type: ignore[no-any-return]

    def more_keys(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, ...]:
        """Return further tensors of this call's tokens that are cached, each (B, heads, T, features): none here."""
        return ()

    def select(
        self, x_BTE: Tensor, c_BTX: Tensor, more: tuple[Tensor, ...], n_keys: int, forward: Forward, offset: KeyOffset
    ) -> Selection | None:
        """Return which keys in view are attended to; None for all that the mask allows.

        Args:
            x_BTE: the layer's input.
            c_BTX: what queries are projected from, the input or the latent after its norm.
            more: the tensors of `more_keys`, of all keys in view.
            n_keys: number of keys in view.
            offset: their location.
        """
        return None

    def learn(self, selection: Selection, q_BHTD: Tensor, k_BHSD: Tensor, forward: Forward, offset: KeyOffset) -> None:
        """Add a loss of the selection for these queries and keys, of a call with several tokens."""

    def _expanded(
        self,
        q_BHTN: Tensor,
        q_BHTR: Tensor,
        latent_B1SC: Tensor,
        k_B1SR: Tensor,
        forward: Forward,
        offset: KeyOffset,
        selection: Selection | None,
    ) -> Tensor:
        n_batch, _, n_keys, _ = latent_B1SC.shape
        up_BHSX = self.kv_up(latent_B1SC[:, 0]).view(n_batch, n_keys, self.n_heads, -1).transpose(1, 2)
        k_BHSN, v_BHSV = up_BHSX.split([self.d_nope, self.d_value], dim=-1)
        k_BHSR = k_B1SR.expand(-1, self.n_heads, -1, -1)
        q, k = torch.cat((q_BHTN, q_BHTR), -1), torch.cat((k_BHSN, k_BHSR.to(k_BHSN.dtype)), -1)
        if selection is None:
            return self.score(q, k, v_BHSV, forward, offset)
        self.learn(selection, q, k, forward, offset)
        return self.score(q, k, v_BHSV, forward, offset, selection.added)

    def _absorbed(
        self,
        q_BHTN: Tensor,
        q_BHTR: Tensor,
        latent_B1SC: Tensor,
        k_B1SR: Tensor,
        forward: Forward,
        offset: KeyOffset,
        selection: Selection | None,
    ) -> Tensor:
        up_HXC = self.kv_up.weight.view(self.n_heads, -1, self.kv_rank)
        k_up_HNC, v_up_HVC = up_HXC[:, : self.d_nope], up_HXC[:, self.d_nope :]
        q_BHTC = q_BHTN @ k_up_HNC.to(q_BHTN.dtype)
        q, k = torch.cat((q_BHTC, q_BHTR), -1), torch.cat((latent_B1SC, k_B1SR), -1)
        added = None if selection is None else selection.added
        out_BHTC = self.score(q, k, latent_B1SC, forward, offset, added)
        out_BHTV: Tensor = out_BHTC @ v_up_HVC.to(out_BHTC.dtype).transpose(1, 2)
        return out_BHTV

    @property
    def cached_shapes(self) -> tuple[tuple[int, int], ...]:
        return (1, self.kv_rank), (1, self.d_key)
