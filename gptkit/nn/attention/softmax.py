"""What attentions with queries, keys and values have in common: positions, cache, mask, and the choice of kernel.

Shapes: B batch, H query heads, K key/value heads, T tokens of this call, S keys in view, D head size, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from gptkit.core.errors import Problem
from gptkit.core.failing import MEANT, failure
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.base import Attention
from gptkit.nn.attention.kernels import additive, explicit, fused
from gptkit.nn.cache.state import TokenState
from gptkit.nn.forward import Forward
from gptkit.nn.position import Position

__all__ = ["ScoredAttention", "head_problems"]


def head_problems(context: BuildContext, heads: HeadShape) -> Iterator[Problem]:
    """Why the layer's position cannot serve these heads, as problems of the attention."""
    position = context.parts.position
    try:
        messages = list(position.head_problems(heads))
    except MEANT:
        raise
    except Exception as error:
        yield Problem((), failure(position, "head_problems", error, context.registry))
        return
    for message in messages:
        yield Problem((), f"position {position.name!r} cannot use these heads: {message}")


class ScoredAttention(Attention):
    """Base of attentions that score queries against keys. A subclass makes q, k and v and calls `attend`.

    One that caches more than keys and values, or adds a term of its own to the scores, calls `rotate`, appends to its
    state and calls `score` instead, and overrides `new_state` and `state_bytes_per_token`.

    Everything that does not change from call to call is settled here, when the layer is assembled: which hooks of the
    position run, and whether the fused kernel can be used.
    """

    def __init__(
        self,
        context: BuildContext,
        heads: HeadShape,
        *,
        scale: float,
        dropout: float = 0.0,
        window: int | None = None,
        chunk: int | None = None,
        softcap: float | None = None,
        norms_after: tuple[nn.Module, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        spec = context.parts.position
        self.layer = context.parts.index
        self.heads = heads
        self.scale = scale
        self.dropout = dropout
        self.window = window
        self.chunk = chunk
        self.softcap = softcap
        self.position: Position = spec.build(context, heads=heads)
        self.rotates = "rotate" in spec.uses
        self.biases = "bias" in spec.uses
        self.reads_content = "content_bias" in spec.uses
        self.changes_values = "value_bias" in spec.uses
        self.fusable = softcap is None and not self.changes_values
        # Layers whose position is one module share what it computes; the name survives a deep copy.
        self.position_key = f"position {id(self.position)}"
        self.norms_after = norms_after is not None
        if norms_after is not None:
            self.q_norm, self.k_norm = norms_after
        self.register_parameter("sinks", None)
        self.sinks: nn.Parameter | None

    def attend(self, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, forward: Forward) -> Tensor:
        """Positions, cache, mask and softmax: (B, H, T, D) out."""
        if self.rotates or self.norms_after:
            q_BHTD, k_BKTD = self.rotate(q_BHTD, k_BKTD, forward)
        state = cast("TokenState | None", forward.state(self))
        first = 0
        if state is not None:
            first, (k_BKTD, v_BKTD) = state.append(k_BKTD, v_BKTD)
        return self.score(q_BHTD, k_BKTD, v_BKTD, forward, first)

    def score(
        self,
        q_BHTD: Tensor,
        k_BKSD: Tensor,
        v_BKSD: Tensor,
        forward: Forward,
        first: int,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Mask, biases and softmax over the keys in view, the first of them at slot `first`.

        Args:
            extra: what else is added to the scaled scores, (1 or B, 1 or H, T, S), finite.

        Returns:
            (B, H, T, features of a value).
        """
        n_keys = k_BKSD.shape[2]
        mask = forward.mask(first, n_keys, window=self.window, chunk=self.chunk)
        term: Tensor | None = None
        use_fused = self.fusable and forward.weights is None
        if not use_fused or self.biases or mask.form == "dense" or self.reads_content or extra is not None:
            dtype = q_BHTD.dtype if use_fused else torch.promote_types(q_BHTD.dtype, torch.float32)
            term = self._term(forward, first, n_keys, dtype)
            if self.reads_content:
                term = self._content_term(term, q_BHTD, k_BKSD, forward, first)
            if extra is not None:
                term = term + extra.to(dtype)
        dropout = self.dropout if self.training else 0.0
        if use_fused:
            causal = mask.is_causal and term is None
            return fused(
                q_BHTD, k_BKSD, v_BKSD, scale=self.scale, causal=causal, term=term, sinks_H=self.sinks, dropout=dropout
            )
        assert term is not None
        out_BHTD, weights_BHTS = explicit(
            q_BHTD,
            k_BKSD,
            v_BKSD,
            scale=self.scale,
            term=term,
            softcap=self.softcap,
            sinks_H=self.sinks,
            dropout=dropout,
        )
        if self.changes_values:
            query_positions = forward.query_positions
            more = self.position.value_bias(weights_BHTS, query_positions, forward.key_positions(first, n_keys))
            out_BHTD = out_BHTD if more is None else out_BHTD + more
        if forward.weights is not None:
            forward.weights[self.layer] = weights_BHTS
        return out_BHTD

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        """This call's queries and keys, turned by their positions."""
        if self.rotates:
            position = self.position
            prepared = forward.once((self.position_key, "prepared"), lambda: position.prepare(forward.positions))
            q_BHTD, k_BKTD = position.rotate(q_BHTD, k_BKTD, prepared)
        if self.norms_after:
            q_BHTD, k_BKTD = self.q_norm(q_BHTD), self.k_norm(k_BKTD)
        return q_BHTD, k_BKTD

    def _term(self, forward: Forward, first: int, n_keys: int, dtype: torch.dtype) -> Tensor:
        """Mask and static bias, computed once a call for all layers that have them in common."""
        position, window, chunk = self.position, self.window, self.chunk
        key = (self.position_key if self.biases else "mask", "term", first, n_keys, window, chunk, dtype)

        def make() -> Tensor:
            bias = None
            if self.biases:
                query_positions = forward.query_positions
                bias = position.bias(query_positions, forward.key_positions(first, n_keys))
            mask = forward.mask(first, n_keys, window=window, chunk=chunk)
            return additive(mask, bias, dtype)

        return forward.once(key, make)

    def _content_term(self, term: Tensor, q_BHTD: Tensor, k_BKSD: Tensor, forward: Forward, first: int) -> Tensor:
        repeats = self.heads.n_heads // self.heads.n_kv_heads
        k_BHSD = k_BKSD.repeat_interleave(repeats, 1) if repeats > 1 else k_BKSD
        query_positions = forward.query_positions
        key_positions = forward.key_positions(first, k_BKSD.shape[2])
        bias = self.position.content_bias(q_BHTD * self.scale, k_BHSD, query_positions, key_positions)
        return term if bias is None else term + bias.to(term.dtype)

    def new_state(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device) -> TokenState:
        shape = (self.heads.n_kv_heads, self.heads.d_head)
        return TokenState(batch, capacity, (shape, shape), dtype, device, self.reach)

    @property
    def prefix_problem(self) -> str | None:
        if self.biases or self.reads_content or self.changes_values:
            return f"the terms of position {type(self.position).__name__} are defined for keys up to the query only"
        return None

    @property
    def reach(self) -> int | None:
        """How far back a query can see, in tokens."""
        spans = [span for span in (self.window, self.chunk) if span is not None]
        return min(spans) if spans else None

    def state_bytes_per_token(self, dtype: torch.dtype) -> float:
        return 2 * self.heads.n_kv_heads * self.heads.d_head * dtype.itemsize
