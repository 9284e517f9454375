"""`SoftmaxAttention`: the base of attentions with queries, keys, values and a softmax.

Shapes: B batch, H query heads, K key/value heads (H a multiple of K), T tokens of this call, S keys in view, D features of
queries and keys, V features of values, E model width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.backends.eager import EagerBackend
from gptkit.nn.attention.backends.select import select_backend
from gptkit.nn.attention.base import Attention
from gptkit.nn.attention.mask import AttentionMask
from gptkit.nn.attention.pattern import MaskPattern
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.state import LayerState, TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward, size_key
from gptkit.nn.initial import Role
from gptkit.nn.position import build_position

__all__ = ["AddedTerm", "SoftmaxAttention"]

_EAGER = EagerBackend()
AddedTerm = Callable[[KeyOffset, int], Tensor]
"""Function of the offset of the keys in view and their number S that returns a term of the scores, (B, H, T, S)."""


class SoftmaxAttention(Attention):
    """Base class of attentions with queries, keys and a softmax: positions, cache, mask, score terms, choice of backend.

    Scores are computed in one order, in every backend::

        scale · q kᵀ → + content term → softcap → (mix_scores) → + bias + added term + mask → softmax → (mix_weights)

    A subclass overrides `project` and `combine`, or `forward` as a whole, which calls `attend`::

        class MyAttention(SoftmaxAttention):
            def project(self, x_BTE, forward):
                return self.queries(x_BTE), self.keys(x_BTE), self.values(x_BTE)  # (B, H or K, T, D or V)

            def combine(self, out_BHTV, x_BTE):
                return self.output(out_BHTV.transpose(1, 2).flatten(2))

    Further hooks: `mix_scores` and `mix_weights` mix heads around the softmax (overriding one selects the eager backend);
    `cached_shapes` declares the cached tensors if these are not keys and values of the declared heads; such a subclass calls
    `rotate`, appends to its state, and calls `score`, to which it may pass a content term and an added term.

    Everything that does not change from call to call is determined when the layer is assembled: the hooks of the position
    that run, and the backend.

    Args:
        context: the build context, inside a layer.
        heads: the heads that the position applies to.
        scale: factor of the dot products.
        d_value: features of a value; as many as `heads` declares by default.
        dropout: probability of dropping an attention weight in training.
        window: sliding window in tokens, the current one included; None for no limit.
        pattern: a further restriction of attention by the tokens' positions; None without one.
        softcap: cap of the scores, ``softcap · tanh(score / softcap)``; None for no cap.
        sinks: add a logit of each head to the softmax: `sinks`, learned and initialized as zeros.
        learned_sinks: whether there is this parameter; otherwise the logits are zeros (see `sink_logits`).
        norms_after: norms of queries and keys, applied after the rotation by position.
        content_term: the subclass passes a content term to `score`.
        added_term: the subclass passes an added term to `score`.

    Attributes:
        layer: index of the layer.
        position: the layer's relative position, built for `heads`.
        d_key: features of queries and keys after rotation: the position's `rotated_width`.
        backend: computes the attention; `backend_name` is its name and `backend_reason` the reason for its selection.
        features: the features that the layer requires of a backend.
        provided_key: the key under which later layers read this layer's keys and values; None if none does (`provide`).
    """

    default_initial: ClassVar[Mapping[str, Role]] = {"sinks": "zeros"}

    def __init__(
        self,
        context: BuildContext,
        heads: HeadShape,
        *,
        scale: float,
        d_value: int | None = None,
        dropout: float = 0.0,
        window: int | None = None,
        pattern: MaskPattern | None = None,
        softcap: float | None = None,
        sinks: bool = False,
        learned_sinks: bool = True,
        norms_after: tuple[nn.Module, nn.Module] | None = None,
        content_term: bool = False,
        added_term: bool = False,
    ) -> None:
        super().__init__()
        spec = context.parts.position
        self.layer = context.parts.index
        self.heads = heads
        self.d_key = spec.rotated_width(heads.d_head)
        self.d_value = heads.d_head if d_value is None else d_value
        self.scale = scale
        self.dropout = dropout
        self.window = window
        self.pattern = pattern
        self.softcap = softcap
        self.position, self.position_name = build_position(context, heads), spec.name
        self.rotates = "rotate" in spec.uses
        self.biases = "bias" in spec.uses
        self.reads_content = "content_bias" in spec.uses
        self.changes_values = "value_bias" in spec.uses
        self.mixes_scores = type(self).mix_scores is not SoftmaxAttention.mix_scores
        self.mixes_weights = type(self).mix_weights is not SoftmaxAttention.mix_weights
        self.added_term = added_term
        # Layers that share a position's module share its results. A string, so that a deep copy keeps the key.
        self.position_key = f"position {id(self.position)}"
        self.norms_after = norms_after is not None
        if norms_after is not None:
            self.q_norm, self.k_norm = norms_after
        self.has_sinks = sinks
        own_sinks = sinks and learned_sinks
        self.register_parameter("sinks", nn.Parameter(torch.zeros(heads.n_heads)) if own_sinks else None)
        self.sinks: nn.Parameter | None
        self.provided_key: Hashable | None = None
        self.features = ScoreFeatures.of(
            spec,
            softcap=softcap is not None,
            sinks=sinks,
            mixes_heads=self.mixes_scores or self.mixes_weights,
            content_term=content_term,
            added_term=added_term,
            dropout=dropout > 0,
            pattern=pattern is not None,
        )
        selected = select_backend(context, self.features)
        self.backend, self.backend_name, self.backend_reason = selected.backend, selected.name, selected.reason

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def project(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, T, D), keys (B, K, T, D) and values (B, K, T, V) of this call's tokens, without position."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither project nor forward")

    def combine(self, out_BHTV: Tensor, x_BTE: Tensor) -> Tensor:
        """Return the layer's output (B, T, E) for the heads' outputs: gates and the output projection."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither combine nor forward")

    def mix_scores(self, scores_BHTS: Tensor) -> Tensor:
        """Return the scores mixed over heads, after the softcap and before bias and mask; of the same shape."""
        return scores_BHTS

    def mix_weights(self, weights_BHTS: Tensor) -> Tensor:
        """Return the attention weights mixed over heads, of the same shape. Must be linear, so that zeros stay zero."""
        return weights_BHTS

    @property
    def cached_shapes(self) -> tuple[tuple[int, int], ...]:
        """(heads, features) of each tensor that is cached per token: keys and values."""
        return (self.heads.n_kv_heads, self.d_key), (self.heads.n_kv_heads, self.d_value)

    # -- what subclasses call ------------------------------------------------------------------------------------------

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        q_BHTD, k_BKTD, v_BKTV = self.project(x_BTE, forward)
        return self.combine(self.attend(q_BHTD, k_BKTD, v_BKTV, forward), x_BTE)

    def attend(
        self, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTV: Tensor, forward: Forward, added: AddedTerm | None = None
    ) -> Tensor:
        """Apply position, cache, mask and softmax to this call's queries, keys and values; return (B, H, T, V).

        Args:
            added: returns the added term of `score` for the keys in view, from their offset and number; None without one.
        """
        if self.rotates or self.norms_after:
            q_BHTD, k_BKTD = self.rotate(q_BHTD, k_BKTD, forward)
        state = cast("TokenState | None", forward.state(self))
        offset: KeyOffset = forward.offset
        if state is not None:
            offset, (k_BKTD, v_BKTV) = state.append(k_BKTD, v_BKTV)
        if self.provided_key is not None:
            forward.publish(self, self.provided_key, (k_BKTD, v_BKTV, offset))
        # Without a term, overriding methods need no parameter for it.
        terms = () if added is None else (added(offset, k_BKTD.shape[2]),)
        return self.score(q_BHTD, k_BKTD, v_BKTV, forward, offset, *terms)

    def attend_to_provided(self, q_BHTD: Tensor, key: Hashable, forward: Forward, added: AddedTerm | None = None) -> Tensor:
        """Apply position, mask and softmax to this call's queries and the keys and values that an earlier layer provides.

        Args:
            key: what that layer's `provide` returned; this layer declares it in ``reads``.
            added: as for `attend`.
        """
        if self.rotates or self.norms_after:
            # Keys are required by the contract of a position; these are not used.
            q_BHTD = self.rotate(q_BHTD, q_BHTD[:, : self.heads.n_kv_heads], forward)[0]
        k_BKSD, v_BKSV, offset = forward.read(self, key)
        terms = () if added is None else (added(offset, k_BKSD.shape[2]),)
        return self.score(q_BHTD, k_BKSD, v_BKSV, forward, offset, *terms)

    def provide(self) -> Hashable:
        """Let later layers attend to this layer's keys and values in view, and return the key under which they read them."""
        if self.provided_key is None:
            self.provided_key = ("keys and values", self.layer)
            self.publishes = (*getattr(self, "publishes", ()), self.provided_key)
        return self.provided_key

    def prepared(self, forward: Forward) -> Any:
        """Return what the position prepares for this call, once for all layers that share it."""
        position = self.position
        return forward.once((self.position_key, "prepared"), lambda: position.prepare(forward.positions))

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        """Return this call's queries and keys rotated by their positions, of `d_key` features."""
        if self.rotates:
            q_BHTD, k_BKTD = self.position.rotate(q_BHTD, k_BKTD, self.prepared(forward))
            if q_BHTD.shape[-1] != self.d_key or k_BKTD.shape[-1] != self.d_key:
                raise GptkitError(
                    f"position {self.position_name!r} returns queries of {q_BHTD.shape[-1]} features and keys of "
                    f"{k_BKTD.shape[-1]}; its spec declares {self.d_key}",
                    hint="Return the width from `rotated_width`, and declare `rotated_width` in `uses`.",
                )
        if self.norms_after:
            q_BHTD, k_BKTD = self.q_norm(q_BHTD), self.k_norm(k_BKTD)
        return q_BHTD, k_BKTD

    def score(
        self,
        q_BHTD: Tensor,
        k_BKSD: Tensor,
        v_BKSV: Tensor,
        forward: Forward,
        offset: KeyOffset,
        added: Tensor | None = None,
        content: Tensor | None = None,
    ) -> Tensor:
        """Compute scores, mask and softmax over the keys in view.

        Args:
            offset: the location of the keys in view, as the state's `append` returned it; `forward.offset` without a cache.
            added: a finite term after the softcap, broadcastable to (B, H, T, S). Declared by `added_term`.
            content: a term before the softcap, of the same form. Declared by `content_term`.

        Returns:
            (B, H, T, V).

        Raises:
            GptkitError: the attention does not declare a term that it passes.
        """
        if added is not None and not self.features.added_term:
            raise _undeclared(self, "added")
        if content is not None and not self.features.content_term:
            raise _undeclared(self, "content")
        mask = forward.mask(offset, k_BKSD.shape[2], window=self.current_window, pattern=self.pattern)
        if self.reads_content:
            term = self._content_term(q_BHTD, k_BKSD, forward, offset)
            content = term if content is None or term is None else content + term
        backend = self.backend if forward.weights is None else _EAGER
        return backend.attend(self, q_BHTD, k_BKSD, v_BKSV, mask, forward, content, added)

    def _content_term(self, q_BHTD: Tensor, k_BKSD: Tensor, forward: Forward, offset: KeyOffset) -> Tensor | None:
        repeats = self.heads.n_heads // self.heads.n_kv_heads
        k_BHSD = k_BKSD.repeat_interleave(repeats, 1) if repeats > 1 else k_BKSD
        key_positions = forward.key_positions(offset, k_BKSD.shape[2])
        return self.position.content_bias(q_BHTD * self.scale, k_BHSD, forward.query_positions, key_positions)

    # -- what backends call --------------------------------------------------------------------------------------------

    def sink_logits(self, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """Return the logits of sinks, (H,), in this dtype; None without sinks.

        They are `sinks`; zeros without this parameter, where an attention with a logit for each token subtracts that from
        the scores, which has the same effect.
        """
        if not self.has_sinks:
            return None
        if self.sinks is None:
            return torch.zeros(self.heads.n_heads, dtype=dtype, device=device)
        return self.sinks.to(dtype)

    def additive_term(self, forward: Forward, mask: AttentionMask, dtype: torch.dtype) -> Tensor:
        """Return mask and bias as one term of the scores, -inf for excluded keys: (1 or B, 1 or H, T, S).

        Computed once per call for all layers with the same mask and position.
        """
        if not self.biases:
            return mask.additive(dtype)
        position = self.position

        def make() -> Tensor:
            bias = position.bias(forward.query_positions, forward.key_positions(mask.key_offset, mask.n_keys))
            if bias is None:
                return mask.additive(dtype)
            return bias.to(dtype).masked_fill(~mask.dense(), float("-inf"))

        key = (self.position_key, "term", mask.key_offset, size_key(mask.n_keys), mask.window, self.pattern, dtype)
        return forward.once(key, make)

    def score_mod(self, forward: Forward, mask: AttentionMask) -> Callable[..., Tensor]:
        """Return the position's bias as a score function of flex attention."""
        return self.position.score_mod(forward.query_positions, forward.key_positions(mask.key_offset, mask.n_keys))

    # -- states --------------------------------------------------------------------------------------------------------

    @property
    def reach(self) -> int | None:
        """Number of tokens that a query can attend, itself included; None for no limit."""
        reaches = (self.window, None if self.pattern is None else self.pattern.reach)
        spans = [reach for reach in reaches if reach is not None]
        return min(spans) if spans else None

    @property
    def orders_keys(self) -> bool:
        """Whether keys and values in view must be in the order of the text: terms that depend on them may sum over them."""
        features = self.features
        return features.content_term or features.added_term or features.value_term

    def new_state(self, allocation: Allocation) -> LayerState | None:
        return allocation.tokens(*self.cached_shapes, window=self.reach, ordered=self.orders_keys)

    def state_bytes_per_token(self, dtype: torch.dtype) -> float:
        return sum(n_heads * width for n_heads, width in self.cached_shapes) * dtype.itemsize

    @property
    def prefix_problem(self) -> str | None:
        if self.biases or self.reads_content or self.changes_values or self.added_term:
            what = "its own score term is" if self.added_term else f"the terms of {type(self.position).__name__} are"
            return f"{type(self).__name__} in layer {self.layer}: {what} defined for keys up to the query only"
        return None


def _undeclared(attention: SoftmaxAttention, term: str) -> GptkitError:
    return GptkitError(
        f"{type(attention).__name__} passes {term}=… to score, but does not declare the term",
        hint=f"Pass {term}_term=True to SoftmaxAttention.__init__, and to ScoreFeatures.of in the spec.",
    )
