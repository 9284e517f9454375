"""Embedding `smear`.

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

__all__ = ["Smear", "SmearSpec"]


class SmearSpec(EmbeddingSpec):
    """Another embedding, in which a gate adds a part of the previous token's vector to each vector.

    Formula:
        e_t = embedding(id_t)
        x_t = e_t + λ · sigmoid(w · e_t[: gate_features]) · e_{t-1};  x_0 = e_0 at the start of a document

    Shapes:
        ids (B, T) → (B, T, d_model); λ is one number; cache: the last vector, d_model values per row

    Paper:
        https://github.com/KellerJordan/modded-nanogpt

    Notes:
        λ is initially 0, so that the model initially equals one without this part. nanochat uses 24 features and a norm of
        the vectors before (`embedding: {name: token, norm: rms}`; https://github.com/karpathy/nanochat).
    """

    name: Literal["smear"] = "smear"
    gate_features: int = Field(12, ge=1, description="The first features of a vector, from which its gate is computed.")
    factor: float = Field(0.0, description="Initial value of λ.")
    embedding: EmbeddingSpec = component("token", description="The embedding whose vectors are mixed.")
    examples = ({}, {"gate_features": 4, "factor": 0.5, "embedding": {"name": "token", "norm": "rms"}})

    def build(self, context: BuildContext) -> Embedding:
        return Smear(self, context)


class Smear(Embedding, Stateful):
    """The runtime part of `SmearSpec`. Its decoding state is the vector of the last token."""

    def __init__(self, spec: SmearSpec, context: BuildContext) -> None:
        super().__init__()
        self.d_model = context.d_model
        self.embedding = spec.embedding.build(context)
        self.gate = nn.Linear(min(spec.gate_features, context.d_model), 1, bias=False)
        self.first_factor = spec.factor
        self.factor = nn.Parameter(torch.tensor([spec.factor]))

    def initial(self) -> dict[str, Initial]:
        return {"factor": lambda shape, generator: torch.full(shape, self.first_factor)}

    @property
    def table_VE(self) -> nn.Parameter:
        return self.embedding.table_VE

    def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
        e_BTE = self.embedding(ids_BT, forward)
        state = cast("RecurrentState | None", forward.state(self))
        last_B1E = e_BTE.new_zeros(e_BTE.shape[0], 1, self.d_model)
        if state is not None and state.tensors is not None:
            (last_B1E,) = state.tensors
        previous_BTE = torch.cat((last_B1E.to(e_BTE.dtype), e_BTE[:, :-1]), dim=1)
        gate_BT1 = self.factor.to(e_BTE.dtype) * self.gate(e_BTE[..., : self.gate.in_features]).sigmoid()
        # The predecessor of a first token is padding, or belongs to another document.
        gate_BT1 = gate_BT1 * (forward.positions > 0)[..., None]
        if state is not None:
            state.update(ids_BT.shape[1], e_BTE[:, -1:].clone())
        x_BTE: Tensor = e_BTE + gate_BT1 * previous_BTE
        return x_BTE

    def new_state(self, allocation: Allocation) -> RecurrentState:
        return allocation.recurrent(((1, self.d_model), allocation.dtype))
