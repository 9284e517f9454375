"""`latent` attention.

Shapes: B batch, H heads, T tokens of this call, S keys in view, N features without position, R rotated features,
V features of a value, C width of the latent, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import ScoredAttention, head_problems
from gptkit.nn.cache.state import TokenState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

__all__ = ["LatentAttention", "LatentSpec"]


class LatentSpec(AttentionSpec):
    """Multi-head latent attention (MLA): all heads' keys and values come from one small vector, which alone is cached.

    Formula:
        c = norm(W_down x),  [k_h v_h] = W_up,h c,  r = rotate(W_r x), shared by the heads
        q = W_q x, or W_q,up norm(W_q,down x) where q_rank is given; each q_h = [n_h, rotate(p_h)]
        y = W_o [softmax((n_h · k_h + p_h · r) · scale + mask) v_h for all h]
    Shapes:
        (B, T, d_model) -> (B, T, d_model); cache: kv_rank + d_rotary values a token
    Paper:
        https://arxiv.org/abs/2405.04434
    """

    name: Literal["latent"] = "latent"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "bias"})

    n_heads: int | None = Field(None, ge=1, description="Heads; by default as many as 64 features each take.")
    kv_rank: int | None = Field(
        None, ge=1, description="Width of the latent that keys and values come from; d_model / 4 by default."
    )
    q_rank: int | None = Field(
        None, ge=1, description="Width of the latent that queries come from; none by default: directly."
    )
    d_nope: int = Field(64, ge=1, description="Features of a query and key that know no position.")
    d_rotary: int = Field(32, ge=2, description="Features of a query and key that the position rotates.")
    d_value: int = Field(64, ge=1, description="Features of a value.")
    norm: NormSpec = component("rms", description="The norm of the latents.")
    bias: bool = Field(False, description="Add a bias to the projections down and to the output.")
    scale: float | None = Field(None, gt=0, description="Factor of the dot products; 1/√(d_nope + d_rotary) by default.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(None, ge=1, description="Sliding window in tokens, the current one included; all by default.")

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(
            n_heads=self.n_heads or max(1, context.d_model // 64), kv_rank=self.kv_rank or max(1, context.d_model // 4)
        )

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.n_heads is not None
        yield from head_problems(context, HeadShape(self.n_heads, 1, self.d_rotary))

    def build(self, context: BuildContext) -> LatentAttention:
        return LatentAttention(self, context)


class LatentAttention(ScoredAttention):
    """Runtime of `latent`.

    A single new token is scored against the latents themselves, the projections up being absorbed into query and output,
    so decoding reads the small cache only; longer pieces expand keys and values, which is less arithmetic for them.
    """

    def __init__(self, spec: LatentSpec, context: BuildContext) -> None:
        assert spec.n_heads is not None
        assert spec.kv_rank is not None
        self_heads = HeadShape(spec.n_heads, 1, spec.d_rotary)
        scale = spec.scale or (spec.d_nope + spec.d_rotary) ** -0.5
        super().__init__(context, self_heads, scale=scale, dropout=spec.dropout, window=spec.window)
        self.n_heads, self.d_nope, self.d_rotary, self.d_value = spec.n_heads, spec.d_nope, spec.d_rotary, spec.d_value
        self.kv_rank = spec.kv_rank
        d_query = spec.n_heads * (spec.d_nope + spec.d_rotary)
        self.q_down = None if spec.q_rank is None else nn.Linear(context.d_model, spec.q_rank, bias=spec.bias)
        self.q_latent_norm = None if spec.q_rank is None else spec.norm.build(context, dim=spec.q_rank)
        self.q_up = nn.Linear(spec.q_rank or context.d_model, d_query, bias=False)
        """Rows: head by head, first the features without position, then the rotated ones."""
        self.kv_down = nn.Linear(context.d_model, spec.kv_rank + spec.d_rotary, bias=spec.bias)
        self.kv_latent_norm = spec.norm.build(context, dim=spec.kv_rank)
        self.kv_up = nn.Linear(spec.kv_rank, spec.n_heads * (spec.d_nope + spec.d_value), bias=False)
        """Rows: head by head, first the key's, then the value's."""
        self.output = nn.Linear(spec.n_heads * spec.d_value, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        q = x_BTE
        if self.q_down is not None and self.q_latent_norm is not None:
            q = self.q_latent_norm(self.q_down(q))
        q_BHTX = self.q_up(q).view(n_batch, n_tokens, self.n_heads, -1).transpose(1, 2)
        q_BHTN, q_BHTR = q_BHTX.split([self.d_nope, self.d_rotary], dim=-1)
        latent_BTC, k_BTR = self.kv_down(x_BTE).split([self.kv_rank, self.d_rotary], dim=-1)
        latent_B1TC, k_B1TR = self.kv_latent_norm(latent_BTC)[:, None], k_BTR[:, None]

        state = cast("TokenState | None", forward.state(self))
        first = 0
        q_BHTR, k_B1TR = self.rotate(q_BHTR, k_B1TR, forward)
        if state is not None:
            first, (latent_B1TC, k_B1TR) = state.append(latent_B1TC, k_B1TR)

        if n_tokens == 1 and state is not None:
            out_BHTV = self._absorbed(q_BHTN, q_BHTR, latent_B1TC, k_B1TR, forward, first)
        else:
            out_BHTV = self._expanded(q_BHTN, q_BHTR, latent_B1TC, k_B1TR, forward, first)
        return self.output(out_BHTV.transpose(1, 2).reshape(n_batch, n_tokens, -1))  # type: ignore[no-any-return]

    def _expanded(
        self, q_BHTN: Tensor, q_BHTR: Tensor, latent_B1SC: Tensor, k_B1SR: Tensor, forward: Forward, first: int
    ) -> Tensor:
        n_batch, _, n_keys, _ = latent_B1SC.shape
        up_BHSX = self.kv_up(latent_B1SC[:, 0]).view(n_batch, n_keys, self.n_heads, -1).transpose(1, 2)
        k_BHSN, v_BHSV = up_BHSX.split([self.d_nope, self.d_value], dim=-1)
        k_BHSR = k_B1SR.expand(-1, self.n_heads, -1, -1)
        q, k = torch.cat((q_BHTN, q_BHTR), -1), torch.cat((k_BHSN, k_BHSR.to(k_BHSN.dtype)), -1)
        return self.score(q, k, v_BHSV, forward, first)

    def _absorbed(
        self, q_BHTN: Tensor, q_BHTR: Tensor, latent_B1SC: Tensor, k_B1SR: Tensor, forward: Forward, first: int
    ) -> Tensor:
        up_HXC = self.kv_up.weight.view(self.n_heads, -1, self.kv_rank)
        k_up_HNC, v_up_HVC = up_HXC[:, : self.d_nope], up_HXC[:, self.d_nope :]
        q_BHTC = q_BHTN @ k_up_HNC.to(q_BHTN.dtype)
        q, k = torch.cat((q_BHTC, q_BHTR), -1), torch.cat((latent_B1SC, k_B1SR), -1)
        out_BHTC = self.score(q, k, latent_B1SC, forward, first)
        out_BHTV: Tensor = out_BHTC @ v_up_HVC.to(out_BHTC.dtype).transpose(1, 2)
        return out_BHTV

    def new_state(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device) -> TokenState:
        shapes = ((1, self.kv_rank), (1, self.d_rotary))
        return TokenState(batch, capacity, shapes, dtype, device, self.window)

    def state_bytes_per_token(self, dtype: torch.dtype) -> float:
        return (self.kv_rank + self.d_rotary) * dtype.itemsize
