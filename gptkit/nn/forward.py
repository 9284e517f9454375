"""The context of one forward pass: token ids, positions, masks, states, and values shared between layers.

The model creates one `Forward` per call and passes it to every layer. Masks are built here only, so that no component can
omit causality, padding, an attention window or a document boundary.

Shapes: B batch, T tokens of this call (queries), S tokens in view (keys, cached ones first).

The *index* of a token counts from the first token of its row, padding included, over all calls on one cache. Its *position*
counts from the first real token of its row or document. Attention windows count tokens, the current one included.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from gptkit.nn.attention.mask import AttentionMask
from gptkit.nn.attention.pattern import MaskPattern
from gptkit.nn.cache.view import KeyOffset, Ring
from gptkit.nn.exchange import Effects, Exchange

if TYPE_CHECKING:
    from gptkit.nn.cache.state import LayerState, Stateful
    from gptkit.nn.cache.store import States

__all__ = ["Forward", "size_key"]

R = TypeVar("R")


class Forward(Exchange):
    """The context of one forward pass.

    Layers exchange values through `Exchange`: published and carried values, auxiliary losses, and attention weights.

    Attributes:
        ids_BT: the token ids.
        offset: the cache offset: index of the first token of this call, the number of tokens already cached. An int, or a
            0-d tensor with a static cache, whose shapes do not change while it grows.
        left_padding_B: number of padding tokens at the start of each row; None without padding.
        prefix_B: number of tokens at the start of each row, padding not counted, that attend one another in both directions;
            None for causal attention throughout.
        documents_BT: the document id of each token in packed rows, negative for padding; None if each row is one document.
        states: the states of all call sites when decoding with a cache, else None.
        losses: auxiliary losses by name, such as those of routers; the model adds them to its own loss.
        weights: attention weights (B, H, T, S) by layer and call, ``weights[layer, call]``; None unless requested.
        last_only: only the last token's output is needed; a block after which no layer needs the others may skip them.
        recomputes: blocks are recomputed in the backward pass (activation checkpointing).
        carries: some module declares a value that blocks carry; without one, the calls of blocks are not recorded.
    """

    def __init__(
        self,
        ids_BT: Tensor,
        *,
        offset: int | Tensor = 0,
        left_padding_B: Tensor | None = None,
        prefix_B: Tensor | None = None,
        documents_BT: Tensor | None = None,
        states: States | None = None,
        keep_weights: bool = False,
        last_only: bool = False,
        recomputes: bool = False,
        carries: bool = True,
    ) -> None:
        if documents_BT is not None and (states is not None or left_padding_B is not None):
            raise ValueError("packed documents cannot be combined with a cache or with padding")
        if documents_BT is not None and prefix_B is not None:
            raise ValueError("packed documents cannot be combined with a bidirectional prefix")
        super().__init__(keep_weights=keep_weights)
        self.ids_BT = ids_BT
        self.n_tokens = ids_BT.shape[1]
        self.device = ids_BT.device
        self.offset = offset
        self.left_padding_B = left_padding_B
        self.prefix_B = prefix_B
        self.documents_BT = documents_BT
        self.states = states
        self.last_only = last_only
        self.recomputes = recomputes
        self.carries = carries
        self._memo: dict[Hashable, Any] = {}
        self._calls: dict[int, int] = {}

    def once(self, key: Hashable, make: Callable[[], R]) -> R:
        """Return `make()`, computed on first request and stored for this call: tables and masks that layers share."""
        if key not in self._memo:
            self._memo[key] = make()
        value: R = self._memo[key]
        return value

    def fork(self, x_BTE: Tensor) -> Forward:
        """Return a context on which the block that has begun, with the input `x_BTE`, runs in isolation (recomputation).

        The fork reads what was published and carried so far. The block's effects on it do not reach this context until they
        are applied: see `effects` and `apply`. Memoized values that a gradient flows through are computed again, so that a
        recomputation repeats every operation. Nested blocks are recomputed with this one.
        """
        fork = copy.copy(self)
        self._fork_into(fork, x_BTE)
        fork._memo = _constants(self._memo)
        fork.recomputes = False
        return fork

    def trial(self) -> Forward:
        """Return a context on which the next block can run without an effect on this one, between calls of blocks."""
        trial = copy.copy(self)
        self._try_into(trial)
        trial._memo = dict(self._memo)
        trial._calls = dict(self._calls)
        return trial

    def span(self, begin: int, end: int) -> Forward:
        """Return the context of some of this call's tokens; published values, losses and weights are the same objects.

        Args:
            begin: the first of the tokens, counted within this call.
            end: the one after the last.
        """
        part = copy.copy(self)
        part.n_tokens = end - begin
        part.ids_BT = self.ids_BT[:, begin:end]
        part.offset = self.offset + begin
        part.documents_BT = None if self.documents_BT is None else self.documents_BT[:, begin:end]
        part._memo = {}
        return part

    def tail(self, n_tokens: int) -> Forward:
        """Return the context of the last tokens of this call."""
        return self.span(self.n_tokens - n_tokens, self.n_tokens)

    def effects(self, y_BTE: Tensor) -> Effects:
        """Return the effects of a block that ran on this fork and returned `y_BTE`."""
        effects = super().effects(y_BTE)
        effects.memo = _constants(self._memo)
        return effects

    def apply(self, effects: Effects) -> None:
        """Repeat the effects of a block that ran on a fork of this context."""
        super().apply(effects)
        self._memo.update(effects.memo)

    def state(self, module: Stateful) -> LayerState | None:
        """Return the state of this call of a module; None without a cache, or if the module has no state.

        To be called once per call of the module: a module that is called several times in one forward pass has as many
        states.
        """
        if self.states is None:
            return None
        call = self._calls.get(module.state_index, 0)
        self._calls[module.state_index] = call + 1
        return self.states.of(module, call)

    @property
    def valid_BT(self) -> Tensor | None:
        """True for real tokens, False for padding; None without padding."""
        padding_B = self.left_padding_B
        if padding_B is None:
            return None
        return self.once("valid", lambda: self._indices(self.offset, self.n_tokens) >= padding_B[:, None])

    @property
    def counted_BT(self) -> Tensor | None:
        """True for tokens that auxiliary losses and loads count, False for padding, also in packed rows; None for all."""
        documents_BT = self.documents_BT
        if documents_BT is None:
            return self.valid_BT
        return self.once("counted", lambda: documents_BT >= 0)

    def counted_mean(self, values_BT: Tensor) -> Tensor:
        """Return the mean of values of tokens, (B, T), over those that auxiliary losses count; 0 if there are none."""
        counted_BT = self.counted_BT
        if counted_BT is None:
            return values_BT.mean()
        return values_BT.masked_fill(~counted_BT, 0).sum() / counted_BT.sum().clamp_min(1)

    @property
    def positions(self) -> Tensor:
        """Positions of this call's tokens: (T,) if all rows have the same, else (B, T). Padding has position 0."""
        return self.once("positions", lambda: self.query_positions.clamp_min(0))

    @property
    def query_positions(self) -> Tensor:
        """Positions of this call's tokens, (T,) or (B, T), for score terms; negative for padding."""
        return self.once("query positions", lambda: self._positions(self.offset, self.n_tokens))

    def queries_in_view(self, offset: KeyOffset) -> Tensor:
        """Return the indices of this call's tokens among the keys in view, (T,): usually the last; not in a static cache.

        Args:
            offset: the location of the keys in view, as a state's `append` returned it (0 without a cache).
        """
        if isinstance(offset, Ring):
            return offset.queries()
        return self.once(("queries in view", offset), lambda: self._indices(self.offset - offset, self.n_tokens))

    def key_positions(self, offset: KeyOffset, n_keys: int) -> Tensor:
        """Return the positions of the keys in view, (S,) or (B, S); negative for padding.

        Args:
            offset: the location of the keys in view, as a state's `append` returned it (0 without a cache).
            n_keys: S.
        """
        return self.once(("key positions", offset, size_key(n_keys)), lambda: self._positions(offset, n_keys))

    def _positions(self, offset: KeyOffset, count: int) -> Tensor:
        indices_S = self._indices(offset, count)
        if self.documents_BT is not None:
            return indices_S - self._document_offsets()
        if self.left_padding_B is None:
            return indices_S
        return indices_S - self.left_padding_B[:, None]

    def _document_offsets(self) -> Tensor:
        """Return the index of the first token of each token's document, (B, T)."""
        assert self.documents_BT is not None
        documents_BT = self.documents_BT
        begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
        begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
        indices_BT = self._indices(self.offset, self.n_tokens).expand_as(documents_BT)
        return torch.where(begins_BT, indices_BT, 0).cummax(dim=1).values

    def _indices(self, offset: KeyOffset, count: int) -> Tensor:
        if isinstance(offset, Ring):
            return self.once(("ring", offset), offset.indices)
        if isinstance(offset, Tensor):
            return torch.arange(count, device=self.device) + offset
        return torch.arange(offset, offset + count, device=self.device)

    def mask(
        self, offset: KeyOffset, n_keys: int, *, window: int | None = None, pattern: MaskPattern | None = None
    ) -> AttentionMask:
        """Return the mask of this call: each query may attend itself and earlier tokens of its row and document.

        Args:
            offset: the location of the keys in view, as a state's `append` returned it (0 without a cache).
            n_keys: S.
            window: attention window in tokens, the current one included; None for no limit.
            pattern: a further restriction by the positions of query and key.
        """
        # Not by `once`: every layer of a decode step asks, and most get the mask of the one before.
        key = ("mask", offset, size_key(n_keys), window, pattern)
        mask: AttentionMask | None = self._memo.get(key)
        if mask is None:
            mask = self._memo[key] = self._mask(offset, n_keys, window, pattern)
        return mask

    def _mask(self, offset: KeyOffset, n_keys: int, window: int | None, pattern: MaskPattern | None) -> AttentionMask:
        # Where the number of keys is a symbol (a traced decode step), the window stays part of the mask.
        if window is not None and isinstance(n_keys, int) and window >= n_keys:
            window = None
        form: Literal["none", "causal", "dense"] = "dense"
        per_row = self.left_padding_B is not None or self.documents_BT is not None or self.prefix_B is not None
        # Where shapes are static, the offsets are tensors.
        plain = isinstance(offset, int) and isinstance(self.offset, int)
        if plain and pattern is not None:
            plain = pattern.is_void(cast("int", offset) + n_keys)
        if plain and not per_row and window is None:
            form = "none" if self.n_tokens == 1 else "causal" if self.n_tokens == n_keys else "dense"
        offsets_BT = None
        if pattern is not None and self.documents_BT is not None:
            offsets_BT = self._document_offsets()
        return AttentionMask(
            form,
            self.n_tokens,
            n_keys,
            self.device,
            query_offset=self.offset,
            key_offset=offset,
            key_indices_S=self._indices(offset, n_keys) if isinstance(offset, Ring) else None,
            window=window,
            pattern=pattern,
            documents_BT=self.documents_BT,
            document_offset_BT=offsets_BT,
            left_padding_B=self.left_padding_B,
            prefix_B=self.prefix_B,
        )


def size_key(size: int) -> Hashable:
    """A size as part of a key; the symbol of a traced graph, which cannot be hashed, by its name."""
    return size if isinstance(size, int) else str(size)


def _constants(memo: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    return {key: value for key, value in memo.items() if not _differentiable(value)}


def _differentiable(value: Any) -> bool:
    """Return whether a gradient may flow through a value; True if its type does not show it."""
    if isinstance(value, Tensor):
        return value.requires_grad
    if value is None or isinstance(value, (bool, int, float, str, AttentionMask)):
        return False
    if isinstance(value, (tuple, list)):
        return any(map(_differentiable, value))
    if isinstance(value, Mapping):
        return any(map(_differentiable, value.values()))
    if is_dataclass(value):
        return any(_differentiable(getattr(value, part.name)) for part in fields(value))
    return True
