"""`PastDecoder`: a model whose call takes the cache and returns the next one, as graphs without mutable tensors require.

Shapes: T tokens of a call, V vocabulary, P tokens of earlier calls, H heads, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptkit.interop.programs.states import leaves, tensors_of
from gptkit.model.cache import Cache
from gptkit.model.gpt import GPT
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.blocks import BlockState
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.static import StaticState
from gptkit.nn.cache.store import States

__all__ = ["PastDecoder", "Piece"]


class _PastState(StaticState):
    """Tensors with the tokens of earlier calls, to which a call appends its own by concatenation.

    Masks and positions are computed from the offset, a tensor, as for other static caches.
    """

    def append(self, *new_BHTD: Tensor) -> tuple[int, tuple[Tensor, ...]]:
        pairs = zip(self.buffers, new_BHTD, strict=True)
        self.buffers = [torch.cat((past, new.to(past.dtype)), dim=2) for past, new in pairs]
        return 0, tuple(self.buffers)


class _Concatenated(Allocation):
    """Allocation of empty states that grow with each call, also those of an attention window."""

    def tokens(self, *shapes: tuple[int, int], window: int | None = None, ordered: bool = True) -> TokenState:
        assert self.offset is not None
        return _PastState(self.batch, 0, shapes, self.dtype, self.device, self.offset)


@dataclass(frozen=True)
class Piece:
    """A tensor of the cache.

    Attributes:
        past: the name of the input.
        present: the name of the output.
        shape: its shape; None for the number of tokens of earlier calls.
        dtype: its dtype.
    """

    past: str
    present: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype

    def empty(self, n_tokens: int = 0) -> Tensor:
        """Return zeros for a text of `n_tokens` tokens: the cache before the first call has 0."""
        return torch.zeros([n_tokens if size is None else size for size in self.shape], dtype=self.dtype)


class PastDecoder(nn.Module):
    """A model with a cache of one row, whose tensors are arguments and results.

    ::

        decoder = PastDecoder(model)
        past = [piece.empty() for piece in decoder.pieces]
        logits, *past = decoder(ids_1T, torch.tensor(0), past)          # a new text
        logits, *past = decoder(next_id_11, torch.tensor(T), past)      # its next token

    Args:
        model: the model, in evaluation mode.

    Attributes:
        pieces: the tensors of the cache, in the order of arguments and results.

    Raises:
        StateError: the model does not support a static cache.
    """

    def __init__(self, model: GPT) -> None:
        super().__init__()
        model.new_cache(1, 1, static=True)  # which raises for a model that does not support one
        self.model = model
        cache = Cache(
            lambda rows, size, offset: States(model.stateful, _Concatenated(rows, size, model.dtype, model.device, offset)),
            1,
            model.context_length,
            device=model.device,
            static=True,
        )
        with torch.no_grad():
            # States of second calls of a module exist after the first call of the model.
            model(torch.zeros(1, 1, dtype=torch.long, device=model.device), cache=cache)
        # In a tuple: a cache is not a module.
        self._cache = (cache,)
        self.pieces: list[Piece] = []
        for index, state in enumerate(leaves(cache.states)):
            for part, tensor in enumerate(tensors_of(state)):
                shape: tuple[int | None, ...] = tuple(tensor.shape)
                if not isinstance(state, (BlockState, RecurrentState)):
                    shape = (*shape[:2], None, *shape[3:])
                self.pieces.append(Piece(f"past.{index}.{part}", f"present.{index}.{part}", shape, tensor.dtype))

    def forward(self, ids: Tensor, position: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the logits of the next token after each token, (1, T, V) in fp32, and the cache after the call.

        Args:
            ids: token ids, (1, T).
            position: P, the number of tokens of the text that earlier calls have processed, 0-d int64.
            past: the cache before the call: for each of `pieces`, (1, H, P, D), or of a fixed
                shape: recurrent states, and entries of blocks.
        """
        (cache,) = self._cache
        offset = position.clone()  # the cache advances it in place
        cache.set_static_offset(offset)
        states, given = list(leaves(cache.states)), iter(past)
        for state in states:
            tensors = [next(given) for _ in tensors_of(state)]
            if isinstance(state, RecurrentState):
                state.tensors = tuple(tensor.clone() for tensor in tensors)  # which are written in place
            elif isinstance(state, BlockState):
                state.buffers = [tensor.clone() for tensor in tensors]
            else:
                assert isinstance(state, StaticState)
                state.buffers, state.offset = tensors, offset
        logits: Tensor = self.model(ids, cache=cache).logits.float()
        return (logits, *(tensor for state in states for tensor in tensors_of(state)))
