"""`grouped-query` attention, and the projections that `multi-head` shares with it.

Shapes: B batch, H query heads, K key/value heads, T tokens, D head size, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import optional_component
from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import ScoredAttention, head_problems
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

__all__ = ["GroupedQueryAttention", "GroupedQuerySpec", "HeadedSpec"]


class HeadedSpec(AttentionSpec):
    """The fields of attentions with several heads."""

    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "bias", "content_bias", "value_bias"})

    n_heads: int | None = Field(None, ge=1, description="Query heads; by default as many as give a head size of 64.")
    d_head: int | None = Field(None, ge=1, description="Features of a head; d_model / n_heads by default.")
    qkv_bias: bool = Field(False, description="Add a bias to the query, key and value projections.")
    output_bias: bool = Field(False, description="Add a bias to the output projection.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(
        None, ge=1, description="Sliding window: a token attends this many tokens, itself included; all by default."
    )
    chunk: int | None = Field(None, ge=1, description="Attend only within one's own chunk of this many positions.")
    scale: float | None = Field(None, gt=0, description="Factor of the dot products; 1/√d_head by default.")
    qk_norm: NormSpec | None = optional_component(description="A norm for queries and keys, each with its own weights.")
    qk_norm_width: Literal["head", "each-head", "full"] = Field(
        "head",
        description="Normalise each head by itself (`head`: all with the same weights), or all heads of a token together.",
    )
    qk_norm_order: Literal["before", "after"] = Field(
        "before", description="Normalise before or after the rotation by position."
    )
    softcap: float | None = Field(None, gt=0, description="Cap scores softly: softcap · tanh(score / softcap).")
    sinks: bool = Field(
        False, description="A learned logit for each head that takes a share of the softmax and gives nothing."
    )
    clip_qkv: float | None = Field(None, gt=0, description="Clamp queries, keys and values to ± this after projection.")
    clip_order: Literal["before", "after"] = Field(
        "before", description="Clamp before the norm of queries and keys, or after it."
    )
    output_gate: bool = Field(False, description="Multiply each head's output by a sigmoid gate computed from the input.")

    @property
    def kv_heads(self) -> int:
        """Key/value heads of the resolved spec."""
        raise NotImplementedError

    def resolved(self, context: BuildContext) -> Any:
        n_heads = self.n_heads or max(1, context.d_model // (self.d_head or 64))
        return self.replace(n_heads=n_heads, d_head=self.d_head or max(1, context.d_model // n_heads))

    def head_shape(self) -> HeadShape:
        assert self.n_heads is not None
        assert self.d_head is not None
        return HeadShape(self.n_heads, self.kv_heads, self.d_head)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        heads = self.head_shape()
        if heads.n_heads % heads.n_kv_heads:
            yield Problem(
                ("n_kv_heads",),
                f"n_heads {heads.n_heads} is no multiple of n_kv_heads {heads.n_kv_heads}; choose one of its divisors",
            )
        if heads.d_head * heads.n_heads != context.d_model and self.d_head == context.d_model // heads.n_heads:
            yield Problem(
                ("n_heads",),
                f"d_model {context.d_model} cannot be split into {heads.n_heads} heads; choose a divisor, or set d_head",
            )
        if self.qk_norm is not None and self.qk_norm_width != "head" and self.qk_norm_order == "after":
            yield Problem(
                ("qk_norm_order",),
                f"a norm of width {self.qk_norm_width} is applied before the rotation; set qk_norm_order: before",
            )
        yield from head_problems(context, heads)

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        return GroupedQueryAttention(self, context)


class GroupedQuerySpec(HeadedSpec):
    """Attention whose query heads share fewer key/value heads (GQA); with one it is multi-query attention (MQA).

    Formula:
        head_h = softmax(q_h k_gᵀ / √d_head + mask) v_g,  g = h // (n_heads / n_kv_heads)
        y = W_o [head_1 … head_H]
    Shapes:
        (B, T, d_model) -> (B, T, d_model); cache: 2 · n_kv_heads · d_head values a token
    Paper:
        https://arxiv.org/abs/2305.13245
    """

    name: Literal["grouped-query"] = "grouped-query"
    n_kv_heads: int | None = Field(
        None, ge=1, description="Key/value heads, a divisor of n_heads; 1 is multi-query. A quarter of n_heads by default."
    )

    @property
    def kv_heads(self) -> int:
        assert self.n_kv_heads is not None
        return self.n_kv_heads

    def resolved(self, context: BuildContext) -> Any:
        heads = super().resolved(context)
        n_kv_heads = self.n_kv_heads
        if n_kv_heads is None:
            n_kv_heads = next(n for n in range(max(1, heads.n_heads // 4), 0, -1) if heads.n_heads % n == 0)
        return heads.replace(n_kv_heads=n_kv_heads)


class GroupedQueryAttention(ScoredAttention):
    """Runtime of `grouped-query` and `multi-head`. One packed projection makes queries, keys, values (and gates)."""

    def __init__(self, spec: HeadedSpec, context: BuildContext) -> None:
        heads = spec.head_shape()
        d_head, n_heads, n_kv_heads = heads.d_head, heads.n_heads, heads.n_kv_heads
        norms = None
        full = spec.qk_norm_width == "full"
        if spec.qk_norm is not None:
            norms = (_qk_norm(spec, context, n_heads), _qk_norm(spec, context, n_kv_heads))
        after = norms is not None and spec.qk_norm_order == "after"
        super().__init__(
            context,
            heads,
            scale=spec.scale or d_head**-0.5,
            dropout=spec.dropout,
            window=spec.window,
            chunk=spec.chunk,
            softcap=spec.softcap,
            norms_after=norms if after else None,
        )
        if norms is not None and not after:
            self.q_norm, self.k_norm = norms
        self.norms_heads = norms is not None and not after and not full
        self.norms_full = norms is not None and full
        self.clip = spec.clip_qkv
        self.clips_after = spec.clip_order == "after"
        self.d_head = d_head
        self.split = [n_heads, n_kv_heads, n_kv_heads]
        if spec.output_gate:
            self.split.append(n_heads)
        self.gated = spec.output_gate
        self.qkv = nn.Linear(context.d_model, sum(self.split) * d_head, bias=spec.qkv_bias)
        """Rows: all query heads, then keys, then values, then gates; head by head."""
        self.output = nn.Linear(n_heads * d_head, context.d_model, bias=spec.output_bias)
        if spec.sinks:
            self.sinks = nn.Parameter(self.qkv.weight.new_zeros(n_heads))

    def initial(self) -> dict[str, Initial]:
        starts: dict[str, Initial] = {"output.weight": "output"}
        if self.sinks is not None:
            starts["sinks"] = "zeros"
        return starts

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        packed = self.qkv(x_BTE)
        q_BTHD, k_BTKD, v_BTKD, *gate = packed.view(n_batch, n_tokens, -1, self.d_head).split(self.split, dim=2)
        if self.clip is not None and not self.clips_after:
            q_BTHD, k_BTKD, v_BTKD = (t.clamp(-self.clip, self.clip) for t in (q_BTHD, k_BTKD, v_BTKD))
        if self.norms_full:
            q_BTHD = self.q_norm(q_BTHD.flatten(2)).view_as(q_BTHD)
            k_BTKD = self.k_norm(k_BTKD.flatten(2)).view_as(k_BTKD)
        elif self.norms_heads:
            q_BTHD, k_BTKD = self.q_norm(q_BTHD), self.k_norm(k_BTKD)
        if self.clip is not None and self.clips_after:
            q_BTHD, k_BTKD, v_BTKD = (t.clamp(-self.clip, self.clip) for t in (q_BTHD, k_BTKD, v_BTKD))
        out_BHTD = self.attend(q_BTHD.transpose(1, 2), k_BTKD.transpose(1, 2), v_BTKD.transpose(1, 2), forward)
        out_BTHD = out_BHTD.transpose(1, 2)
        if self.gated:
            out_BTHD = out_BTHD * gate[0].sigmoid()
        return self.output(out_BTHD.reshape(n_batch, n_tokens, -1))  # type: ignore[no-any-return]


class EachHead(nn.Module):
    """A norm for every head, with weights of its own: (…, H, D) -> (…, H, D). One call a head: for models that have it."""

    def __init__(self, norms: list[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(norms)

    def forward(self, x_BTHD: Tensor) -> Tensor:
        return torch.stack([norm(x_BTHD[..., index, :]) for index, norm in enumerate(self.heads)], dim=-2)


def _qk_norm(spec: HeadedSpec, context: BuildContext, n_heads: int) -> nn.Module:
    assert spec.qk_norm is not None
    assert spec.d_head is not None
    if spec.qk_norm_width == "each-head":
        return EachHead([spec.qk_norm.build(context, dim=spec.d_head) for _ in range(n_heads)])
    return spec.qk_norm.build(context, dim=spec.d_head * n_heads if spec.qk_norm_width == "full" else spec.d_head)
