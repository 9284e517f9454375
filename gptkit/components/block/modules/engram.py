"""Runtime modules of block `engram`.

Shapes: B batch, T tokens, E model width, N residual streams, P features of the embeddings, G ids of the longest n-gram,
J tables, X = N · E.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import Stateful
from gptkit.nn.each_head import EachHead
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.streams import StreamBlock
from gptkit.nn.token_shift import without_padding
from gptkit.ops.causal_conv import causal_conv, conv_tail
from gptkit.ops.ngram_hash import ngram_multipliers, ngram_rows, padded_rows, preceding_ids, prime_sizes

if TYPE_CHECKING:
    from gptkit.components.block.engram import EngramSpec

__all__ = ["Engram", "EngramBlock", "NGramTables"]


class NGramTables(nn.Module):
    """Embeddings of n-grams in tables of hashes, which are one table."""

    multipliers: Tensor
    """Factors of the ids of an n-gram, (G), of 64 bits, stored with the weights, as the next two."""
    sizes: Tensor
    """Rows of the tables, (J)."""
    offsets: Tensor
    """First row of each table, (J)."""

    def __init__(self, spec: EngramSpec, context: BuildContext) -> None:
        super().__init__()
        assert spec.d_embedding is not None
        self.boundary = context.vocab_size if spec.boundary is None else spec.boundary
        # Layers are built in order.
        earlier: list[int] = context.share(("engram",), list)
        sizes = prime_sizes(spec.table_rows, sum(earlier), spec.n_tables)
        n_ids = context.vocab_size + (spec.boundary is None)
        multipliers = ngram_multipliers(n_ids, spec.max_ngram, len(earlier), spec.seed)
        self.n_rows = padded_rows(spec.table_rows, sum(earlier), spec.n_tables, spec.row_multiple)
        earlier.append(spec.n_tables)
        self.table = nn.Embedding(self.n_rows, spec.d_embedding // spec.n_tables)
        self.index_limits = {"sizes": self.n_rows + 1, "offsets": self.n_rows}
        offsets = [sum(sizes[:index]) for index in range(len(sizes))]
        for name, values in (("multipliers", multipliers), ("sizes", sizes), ("offsets", offsets)):
            self.register_buffer(name, torch.tensor(values))

    def forward(self, ids_BT: Tensor, before_BG: Tensor, forward: Forward) -> Tensor:
        """Return the embeddings, (B, T, P).

        Args:
            ids_BT: the ids of this call.
            before_BG: the G − 1 ids before them.
            forward: the context.
        """
        ids = preceding_ids(ids_BT, before_BG, forward.query_positions, self.boundary)
        rows_BTJ = ngram_rows(ids, self.multipliers, self.sizes.clamp_min(1), self.offsets) % self.n_rows
        embedded: Tensor = self.table(rows_BTJ)
        return embedded.flatten(2)


class Engram(nn.Module, Stateful):
    """The gated embeddings of n-grams that are added to the residual streams of one layer.

    Args:
        spec: the block.
        context: the build context.
        streams: N.
    """

    def __init__(self, spec: EngramSpec, context: BuildContext, streams: int) -> None:
        super().__init__()
        assert spec.d_embedding is not None
        n_features = streams * context.d_model
        self.streams, self.max_ngram, self.factor = streams, spec.max_ngram, context.d_model**-0.5
        self.tables = NGramTables(spec, context)
        self.key = context.linear(spec.d_embedding, n_features, bias=False)
        self.value = context.linear(spec.d_embedding, context.d_model, bias=False)
        norm = context.parts.norm
        self.key_norm, self.query_norm, self.value_norm = (
            EachHead(norm.build(context, dim=context.d_model), streams) for _ in range(3)
        )
        dilation = spec.max_ngram
        self.conv = nn.Conv1d(n_features, n_features, spec.conv_width, groups=n_features, dilation=dilation, bias=False)
        self.reach = dilation * (spec.conv_width - 1)

    def initial(self) -> dict[str, Initial]:
        return {"conv.weight": "zeros", "tables.table.weight": "embedding"}

    def forward(self, streams_BTNE: Tensor, forward: Forward) -> Tensor:
        """Return the streams with what is added to them, (B, T, N, E)."""
        n_tokens = streams_BTNE.shape[1]
        ids_BT = forward.ids_BT
        state = cast("RecurrentState | None", forward.state(self))
        kept = None if state is None else state.tensors
        before_BG = ids_BT.new_zeros(ids_BT.shape[0], self.max_ngram - 1) if kept is None else kept[0]
        tail = None if kept is None else kept[1]
        e_BTP = self.tables(ids_BT, before_BG, forward)[:, -n_tokens:]  # a block may return the last tokens only
        key_BTNE = self.key_norm(torch.unflatten(self.key(e_BTP), -1, (self.streams, -1)))
        wide = torch.promote_types(streams_BTNE.dtype, torch.float32)
        score_BTN = (key_BTNE.to(wide) * self.query_norm(streams_BTNE).to(wide)).sum(dim=-1) * self.factor
        gate_BTN = torch.sigmoid(score_BTN.abs().clamp_min(1e-6).sqrt() * score_BTN.sign())
        gated_BTNE = gate_BTN.to(e_BTP.dtype)[..., None] * self.value(e_BTP)[:, :, None]
        seen_BTX = without_padding(self.value_norm(gated_BTNE).flatten(2), forward)
        positions = None if forward.documents_BT is None else forward.positions[..., -n_tokens:]
        weight = self.conv.weight.to(seen_BTX.dtype)
        mixed_BTX = causal_conv(seen_BTX, weight, tail, positions, dilation=self.max_ngram)
        if state is not None:
            joined_BS = torch.cat((before_BG, ids_BT), dim=1)
            last_BG = joined_BS[:, joined_BS.shape[1] - before_BG.shape[1] :].clone()
            state.update(n_tokens, last_BG, conv_tail(seen_BTX, self.reach + 1, tail))
        added_BTNE = gated_BTNE + torch.unflatten(F.silu(mixed_BTX), -1, (self.streams, -1))
        result_BTNE: Tensor = streams_BTNE + added_BTNE.to(streams_BTNE.dtype)
        return result_BTNE

    def new_state(self, allocation: Allocation) -> RecurrentState:
        n_features = self.conv.weight.shape[0]
        return allocation.recurrent(((self.max_ngram - 1,), torch.long), ((self.reach, n_features), allocation.dtype))


class EngramBlock(Block):
    """Runtime part of `EngramSpec`."""

    def __init__(self, spec: EngramSpec, context: BuildContext) -> None:
        super().__init__()
        block = spec.block.build(context)
        carrying = [
            each for each in block.modules() if isinstance(each, Block) and hasattr(each, "carries") and each.carries
        ]
        if carrying and (carrying != [block] or not isinstance(block, StreamBlock)):
            raise GptkitError(
                f"block {spec.name!r} cannot be placed around {spec.block.name!r}, whose residual "
                "streams it would interrupt",
                hint="Place it around a block with one stream, gated-hyper-connections or manifold-hyper-connections.",
            )
        streams = block.streams if isinstance(block, StreamBlock) else 1
        self.engram = Engram(spec, context, streams)
        self.block = block
        self.carries = block.carries if isinstance(block, StreamBlock) else ()

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        if isinstance(self.block, StreamBlock):
            return self.block.run(self.engram(self.block.received(x_BTE, forward), forward), forward)
        y_BTE: Tensor = self.block(self.engram(x_BTE[:, :, None], forward)[:, :, 0], forward)
        return y_BTE
