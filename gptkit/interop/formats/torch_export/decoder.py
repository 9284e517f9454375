"""`Decoder`: a model and its decoding cache as one module, whose call is exported as a program.

Shapes: T tokens of a call, V vocabulary.
"""

from __future__ import annotations

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

__all__ = ["Decoder"]


class _Whole(Allocation):
    """Allocation of states that have a place for each token of the capacity, also those of an attention window."""

    def tokens(self, *shapes: tuple[int, int], window: int | None = None, ordered: bool = True) -> TokenState:
        assert self.offset is not None
        return StaticState(self.batch, self.capacity, shapes, self.dtype, self.device, self.offset)


class Decoder(nn.Module):
    """A model with a static cache of one row, whose tensors are buffers that a call updates in place.

    ::

        decoder = Decoder(model, capacity=256)
        logits = decoder(ids_1T, torch.tensor(0))           # a new text
        logits = decoder(next_id_11, torch.tensor(T))       # its next token

    Args:
        model: the model, in evaluation mode.
        capacity: largest number of tokens of a text.

    Raises:
        StateError: the model does not support a static cache.
    """

    def __init__(self, model: GPT, capacity: int) -> None:
        super().__init__()
        model.new_cache(1, 1, static=True)  # which raises for a model that does not support one
        self.model = model
        cache = Cache(
            lambda rows, size, offset: States(model.stateful, _Whole(rows, size, model.dtype, model.device, offset)),
            1,
            capacity,
            device=model.device,
            static=True,
        )
        with torch.no_grad():
            # States of second calls of a module exist after the first call of the model.
            model(torch.zeros(1, 1, dtype=torch.long, device=model.device), cache=cache)
        # In a tuple: a cache is not a module.
        self._cache = (cache,)
        self._names: list[list[str]] = []
        for index, state in enumerate(leaves(cache.states)):
            names = []
            for part, tensor in enumerate(tensors_of(state)):
                names.append(f"cache_{index}_{part}")
                self.register_buffer(names[-1], torch.zeros_like(tensor))
            self._names.append(names)

    def forward(self, ids: Tensor, position: Tensor) -> Tensor:
        """Return the logits of the next token after each token, (1, T, V), in fp32.

        Args:
            ids: token ids, (1, T).
            position: number of tokens of the text that earlier calls have processed, 0-d int64; 0 starts a new text.
        """
        (cache,) = self._cache
        offset = position.clone()  # the cache advances it in place
        cache.set_static_offset(offset)
        for state, names in zip(leaves(cache.states), self._names, strict=True):
            tensors = [getattr(self, name) for name in names]
            if isinstance(state, RecurrentState):
                for tensor in tensors:
                    # A new text starts with empty states. Tokens of the previous one are masked, but a state is not.
                    tensor.copy_(torch.where(position == 0, torch.zeros_like(tensor), tensor))
                state.tensors = tuple(tensors)
            elif isinstance(state, BlockState):
                state.buffers = tensors  # entries of a previous text are not seen before they are written again
            else:
                assert isinstance(state, StaticState)
                state.buffers, state.offset = tensors, offset
        logits: Tensor = self.model(ids, cache=cache).logits.float()
        return logits
