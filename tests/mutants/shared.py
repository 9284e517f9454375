"""Parts of Gemma 3n and 4 with one error each: shared keys and values, embeddings for each layer, several streams."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.components.attention.grouped_query import GroupedQuerySpec
from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.components.block.altup import AltUpSpec
from gptkit.components.block.laurel import LaurelSpec
from gptkit.components.block.modules.altup import AltUp
from gptkit.components.block.modules.laurel import Laurel
from gptkit.components.block.modules.per_layer_embedding import LayerInputs, PerLayerEmbedding
from gptkit.components.block.per_layer_embedding import PerLayerEmbeddingSpec
from gptkit.components.rotary_scaling.proportional import ProportionalScalingSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from tests.mutants.attention import blind
from tests.mutants.mutant import ANYTHING, Mutant, WithRuntime, become


class WrongReuse(WithRuntime, GroupedQuerySpec):
    """Base of attentions to the keys and values of an earlier layer, with the runtime class `runtime_class`."""

    n_heads: int | None = Field(2, description="Query heads.")
    n_kv_heads: int | None = Field(1, description="Key/value heads.")
    d_head: int | None = Field(16, description="Features of a head.")
    reuse_kv: bool = Field(True, description="Attend to the keys and values of an earlier layer.")
    runtime_class: ClassVar[type[GroupedQueryAttention]]
    twin_class = GroupedQuerySpec


class ReusesAcrossDocuments(WrongReuse):
    """Attend to keys of other documents, where they are those of an earlier layer."""

    class Runtime(GroupedQueryAttention):
        def attend_to_provided(self, q_BHTD: Tensor, key: Hashable, forward: Forward) -> Tensor:
            return super().attend_to_provided(q_BHTD, key, blind(forward, documents_BT=None))

    name: Literal["reuses-across-documents"] = "reuses-across-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"
    also = ANYTHING


class ReusesPadding(WrongReuse):
    """Attend to keys of padding, where they are those of an earlier layer."""

    class Runtime(GroupedQueryAttention):
        def attend_to_provided(self, q_BHTD: Tensor, key: Hashable, forward: Forward) -> Tensor:
            return super().attend_to_provided(q_BHTD, key, blind(forward, left_padding_B=None))

    name: Literal["reuses-padding"] = "reuses-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = ANYTHING


class ReusesTheCallsKeys(WrongReuse):
    """Attend to the keys and values of this call only, without those in the cache."""

    class Runtime(GroupedQueryAttention):
        def attend_to_provided(self, q_BHTD: Tensor, key: Hashable, forward: Forward) -> Tensor:
            k, v, offset = forward.read(self, key)
            n_old = k.shape[2] - q_BHTD.shape[2]
            if isinstance(offset, int) and n_old:
                q = self.rotate(q_BHTD, q_BHTD[:, :1], forward)[0]
                return self.score(q, k[:, :, n_old:], v[:, :, n_old:], forward, offset + n_old)
            return super().attend_to_provided(q_BHTD, key, forward)

    name: Literal["reuses-the-calls-keys"] = "reuses-the-calls-keys"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = ANYTHING


class KeepsAState(WrongReuse):
    """Allocate keys and values that are never used."""

    class Runtime(GroupedQueryAttention):
        def state_bytes_per_token(self, dtype: torch.dtype) -> float:
            return super(GroupedQueryAttention, self).state_bytes_per_token(dtype)

    name: Literal["keeps-a-state"] = "keeps-a-state"
    runtime_class = Runtime
    caught_by = "state-size"


class WrongEmbedding(Mutant, PerLayerEmbeddingSpec):
    """Base of blocks with an embedding for each layer, whose shared module has the class `inputs_class`."""

    d_embedding: int = Field(6, description="Features of a token for each layer.")
    projection: bool = Field(True, description="Add a projection of the first layer's input.")
    inputs_class: ClassVar[type[LayerInputs]]
    twin_class = PerLayerEmbeddingSpec

    def build(self, context: BuildContext) -> Block:
        made = super().build(context)
        assert isinstance(made, PerLayerEmbedding)
        if made.embedding.is_first:
            become(made.embedding.inputs, self.inputs_class)
        return made


class ProjectsTheNextToken(WrongEmbedding):
    """Add the projection of the next token's vector."""

    class Inputs(LayerInputs):
        def forward(self, ids_BT: Tensor, x_BTE: Tensor) -> Tensor:
            return super().forward(ids_BT, torch.cat((x_BTE[:, 1:], x_BTE[:, :1]), dim=1))

    name: Literal["projects-the-next-token"] = "projects-the-next-token"
    inputs_class = Inputs
    caught_by = "no-future-leak"
    also = ANYTHING


class CentresTheBatch(WrongEmbedding):
    """Subtract the mean over the rows of a batch."""

    class Inputs(LayerInputs):
        def forward(self, ids_BT: Tensor, x_BTE: Tensor) -> Tensor:
            inputs_BTLP = super().forward(ids_BT, x_BTE)
            return inputs_BTLP - inputs_BTLP.mean(dim=0, keepdim=True)

    name: Literal["centres-the-batch"] = "centres-the-batch"
    inputs_class = Inputs
    caught_by = "rows-are-independent"
    also = ANYTHING


class CountsFromTheCall(WrongEmbedding):
    """Scale the embedding by the token's index in this call."""

    class Inputs(LayerInputs):
        def forward(self, ids_BT: Tensor, x_BTE: Tensor) -> Tensor:
            steps = torch.arange(ids_BT.shape[1], device=ids_BT.device, dtype=x_BTE.dtype)
            return super().forward(ids_BT, x_BTE) * (1 + 0.1 * steps)[:, None, None]

    name: Literal["counts-tokens-of-the-call"] = "counts-tokens-of-the-call"
    inputs_class = Inputs
    caught_by = "cached-equals-full"
    also = ANYTHING


class WrongStreams(WithRuntime, AltUpSpec):
    """Base of blocks with several streams, with the runtime class `runtime_class`."""

    runtime_class: ClassVar[type[AltUp]]
    twin_class = AltUpSpec


class PredictsFromLaterTokens(WrongStreams):
    """Compute the maps from the mean over the tokens."""

    class Runtime(AltUp):
        def _modalities(self, x_BTE: Tensor) -> Tensor:
            return super()._modalities(x_BTE.mean(dim=1, keepdim=True).expand_as(x_BTE))

    name: Literal["predicts-from-later-tokens"] = "predicts-from-later-tokens"
    runtime_class = Runtime
    caught_by = "no-future-leak"
    also = ANYTHING


class PredictsFromTheBatch(WrongStreams):
    """Compute the maps from the mean over the rows."""

    class Runtime(AltUp):
        def _modalities(self, x_BTE: Tensor) -> Tensor:
            return super()._modalities(x_BTE.mean(dim=0, keepdim=True).expand_as(x_BTE))

    name: Literal["predicts-from-the-batch"] = "predicts-from-the-batch"
    runtime_class = Runtime
    caught_by = "rows-are-independent"
    also = ANYTHING


class ExpandsTheFirstToken(WrongStreams):
    """Create the streams from the first token of the call."""

    class Runtime(AltUp):
        def _expanded(self, x_BTE: Tensor) -> Tensor:
            streams_BTNE = super()._expanded(x_BTE[:, :1].expand_as(x_BTE))
            return torch.cat((x_BTE[:, :, None], streams_BTNE[:, :, 1:]), dim=2)

    name: Literal["expands-the-first-token"] = "expands-the-first-token"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = ANYTHING


class WrongLaurel(Mutant, LaurelSpec):
    """Base of blocks whose low-rank map has the class `map_class`."""

    rank: int = Field(5, description="Rank of the map of the input.")
    map_class: ClassVar[type[nn.Linear]]
    twin_class = LaurelSpec

    def build(self, context: BuildContext) -> Block:
        made = super().build(context)
        assert isinstance(made, Laurel)
        become(made.left, self.map_class)
        return made


class MapsTheNextToken(WrongLaurel):
    """Add the map of the next token's vector."""

    class Map(nn.Linear):
        def forward(self, x_BTE: Tensor) -> Tensor:
            return super().forward(torch.cat((x_BTE[:, 1:], x_BTE[:, :1]), dim=1))

    name: Literal["maps-the-next-token"] = "maps-the-next-token"
    map_class = Map
    caught_by = "no-future-leak"
    also = ANYTHING


class MapsTheOtherRow(WrongLaurel):
    """Add the map of another row's vector."""

    class Map(nn.Linear):
        def forward(self, x_BTE: Tensor) -> Tensor:
            return super().forward(x_BTE.roll(1, dims=0))

    name: Literal["maps-the-other-row"] = "maps-the-other-row"
    map_class = Map
    caught_by = "rows-are-independent"
    also = ANYTHING


class MapsTheCallsFirst(WrongLaurel):
    """Add the map of the call's first token to all."""

    class Map(nn.Linear):
        def forward(self, x_BTE: Tensor) -> Tensor:
            return super().forward(x_BTE[:, :1]).expand(-1, x_BTE.shape[1], -1)

    name: Literal["maps-the-calls-first"] = "maps-the-calls-first"
    map_class = Map
    caught_by = "cached-equals-full"
    also = ANYTHING


class RotatesNothing(Mutant, ProportionalScalingSpec):
    """Frequencies that are all zero."""

    name: Literal["rotates-nothing"] = "rotates-nothing"
    caught_by = "frequencies"

    def n_pairs(self, d_rotary: int) -> int:
        return 0
