"""Attention `forgetting`.

Shapes: B batch, H heads, T tokens of this call, S keys in view, D head size, E model width.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import optional_component
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit_research.heads import HeadsSpec

__all__ = ["ForgettingAttention", "ForgettingSpec"]


class ForgettingSpec(HeadsSpec):
    """Forgetting attention (FoX): a gate of each token and head decays the scores of all earlier tokens.

    Formula:
        f_t = sigmoid(w_f · x_t + b_f), for each head
        score[t, s] = q_t · k_s / √d_head + Σ_{s < l ≤ t} log f_l
        y = W_o [head_1 … head_H],  head = softmax(score + mask) v
    Shapes:
        (B, T, d_model) -> (B, T, d_model); cache: n_heads · (2 · d_head + 1) values per token
    Paper:
        https://arxiv.org/abs/2503.02130
    Notes:
        The paper's "LLaMA" form with `position: none`, which it recommends, since the decay encodes the order of tokens.
        Its "Pro" form adds, among other things, `qk_norm` and `output_gate`.
    """

    name: Literal["forgetting"] = "forgetting"

    gate_bias: float = Field(0.0, description="The initial b_f; a higher one decays less.")
    qk_norm: NormSpec | None = optional_component(description="A norm for queries and keys, each with its own weights.")
    output_gate: bool = Field(False, description="Multiply the heads' output by a sigmoid gate computed from the input.")

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(context.parts.position, added_term=True, dropout=self.dropout > 0)

    def build(self, context: BuildContext) -> ForgettingAttention:
        return ForgettingAttention(self, context)


class ForgettingAttention(SoftmaxAttention):
    """Runtime part of `ForgettingSpec`. The log f of each token is cached, from which the decay between keys is computed."""

    def __init__(self, spec: ForgettingSpec, context: BuildContext) -> None:
        heads = spec.heads
        super().__init__(context, heads, scale=heads.d_head**-0.5, dropout=spec.dropout, window=spec.window, added_term=True)
        self.n_heads, self.d_head = heads.n_heads, heads.d_head
        self.gate_bias = spec.gate_bias
        width = heads.n_heads * heads.d_head
        self.qkv = context.linear(context.d_model, 3 * width, bias=False)
        """Rows: queries, keys, values; head by head."""
        self.forget = nn.Linear(context.d_model, heads.n_heads)
        self.query_norm = None if spec.qk_norm is None else spec.qk_norm.build(context, dim=heads.d_head)
        self.key_norm = None if spec.qk_norm is None else spec.qk_norm.build(context, dim=heads.d_head)
        self.gate = context.linear(context.d_model, width, bias=False) if spec.output_gate else None
        self.output = context.linear(width, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output", "forget.bias": lambda shape, generator: torch.full(shape, self.gate_bias)}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        packed = self.qkv(x_BTE).view(n_batch, n_tokens, 3, self.n_heads, self.d_head)
        q_BHTD, k_BHSD, v_BHSD = packed.permute(2, 0, 3, 1, 4)
        if self.query_norm is not None and self.key_norm is not None:
            q_BHTD, k_BHSD = self.query_norm(q_BHTD), self.key_norm(k_BHSD)
        q_BHTD, k_BHSD = self.rotate(q_BHTD, k_BHSD, forward)
        gate_BTH = self.forget(x_BTE)
        # In fp32 at least: these are summed over the whole text.
        wide = torch.promote_types(gate_BTH.dtype, torch.float32)
        log_f_BHS1 = F.logsigmoid(gate_BTH.to(wide)).transpose(1, 2)[..., None]
        state = cast("TokenState | None", forward.state(self))
        offset: KeyOffset = forward.offset
        if state is not None:
            offset, (k_BHSD, v_BHSD, log_f_BHS1) = state.append(k_BHSD, v_BHSD, log_f_BHS1)
        sums_BHS1 = log_f_BHS1.to(wide).cumsum(dim=2)
        decay_BHTS = sums_BHS1.index_select(2, forward.queries_in_view(offset)) - sums_BHS1.transpose(2, 3)
        out_BHTD = self.score(q_BHTD, k_BHSD, v_BHSD, forward, offset, added=decay_BHTS)
        out_BTX = out_BHTD.transpose(1, 2).reshape(n_batch, n_tokens, -1)
        if self.gate is not None:
            out_BTX = out_BTX * self.gate(x_BTE).sigmoid()
        return self.output(out_BTX)  # type: ignore[no-any-return]

    @property
    def cached_shapes(self) -> tuple[tuple[int, int], ...]:
        return (self.n_heads, self.d_key), (self.n_heads, self.d_head), (self.n_heads, 1)
