"""Embedding `bigram`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import Stateful
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

__all__ = ["Bigram", "BigramSpec"]

FIRST, SECOND = 27191, 36313
"""Factors of the previous and of the current token id in the hash."""


class BigramSpec(EmbeddingSpec):
    """Another embedding, to whose vectors those of hashed pairs of tokens are added.

    Formula:
        x_t = embedding(id_t) + b[h_t],  h_t = (36313 · id_t xor 27191 · id_{t-1}) mod (rows − 1)
        h_t = rows − 1 for the first token of a document

    Shapes:
        ids (B, T) → (B, T, d_model); table b (rows, d_model); cache: the last token id, one number per row

    Paper:
        https://github.com/KellerJordan/modded-nanogpt

    Notes:
        Pairs with the same hash share a row. The table is initialized with zeros, so that the model initially equals one
        without it. Only the rows of the tokens are read, so that a large table costs memory, and little time.
    """

    name: Literal["bigram"] = "bigram"
    rows: int | None = Field(None, ge=2, description="Rows of the table; 5 times the vocabulary by default.")
    embedding: EmbeddingSpec = component("token", description="The embedding to which vectors are added.")
    examples = ({}, {"rows": 50, "embedding": {"name": "token", "norm": "rms"}})

    def build(self, context: BuildContext) -> Embedding:
        return Bigram(self, context)


class Bigram(Embedding, Stateful):
    """The runtime part of `BigramSpec`. Its decoding state is the last token id."""

    def __init__(self, spec: BigramSpec, context: BuildContext) -> None:
        super().__init__()
        self.embedding = spec.embedding.build(context)
        self.rows = spec.rows or max(2, 5 * context.vocab_size)
        self.table = nn.Embedding(self.rows, context.d_model)

    def initial(self) -> dict[str, Initial]:
        return {"table.weight": "zeros"}

    @property
    def table_VE(self) -> nn.Parameter:
        return self.embedding.table_VE

    def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
        state = cast("RecurrentState | None", forward.state(self))
        last_B1 = torch.zeros_like(ids_BT[:, :1])
        if state is not None and state.tensors is not None:
            (last_B1,) = state.tensors
        previous_BT = torch.cat((last_B1.to(ids_BT.dtype), ids_BT[:, :-1]), dim=1)
        pairs_BT = (SECOND * ids_BT).bitwise_xor(FIRST * previous_BT) % (self.rows - 1)
        # The predecessor of a first token is padding, or belongs to another document.
        pairs_BT = torch.where(forward.positions > 0, pairs_BT, self.rows - 1)
        if state is not None:
            state.update(ids_BT.shape[1], ids_BT[:, -1:].clone())
        added_BTE: Tensor = self.table(pairs_BT)
        return self.embedding(ids_BT, forward) + added_BTE

    def new_state(self, allocation: Allocation) -> RecurrentState:
        return allocation.recurrent(((1,), torch.long))
