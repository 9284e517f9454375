"""Template of `block-sparse`: that of `grouped-query`, with an indexer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gptkit.components.attention.written.grouped_query import headed
from gptkit.components.attention.written.parts import append_to, input_width, position_parts
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.block_sparse import BlockSparseSpec

__all__ = ["block_sparse"]

_INDEXER = '''
class $class_name(nn.Module):
    """Indexer: for each query, the blocks of keys with the highest q · k, and the last blocks."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.query = $query
        self.key = $key
        self.query_norm = $index_norm
        self.key_norm = $index_norm

    def forward(
        self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor], mask_TS: Tensor
    ) -> Tensor:
        """Return whether each query may attend each key, (B, H, T, S), H heads of the indexer."""
        q_BTHD = self.query(x_BTE).unflatten(-1, ($INDEX_HEADS, -1))
        q_BHTD = self.query_norm(q_BTHD).transpose(1, 2)
        k_B1TD = self.key_norm(self.key(x_BTE))[:, None]
        #if rotated_whole
        q_BHTD, k_B1TD = $rotated_query, $rotated_key
        #elif rotated
        q_BHTR, q_BHTN = q_BHTD.split(($D_HEAD, $D_INDEX - $D_HEAD), dim=-1)  # with position, without
        k_B1TR, k_B1TN = k_B1TD.split(($D_HEAD, $D_INDEX - $D_HEAD), dim=-1)
        q_BHTD = torch.cat(($rotated_query, q_BHTN), dim=-1)
        k_B1TD = torch.cat(($rotated_key, k_B1TN), dim=-1)
        #end
        k_B1SD = $append_to(cache, "index_keys", k_B1TD)
        lowest = torch.finfo(q_BHTD.dtype).min
        scores_BHTS = (q_BHTD @ k_B1SD.mT).masked_fill(~mask_TS, lowest)
        keys_S = torch.arange(scores_BHTS.shape[3], device=x_BTE.device)
        blocks_BHTS = (keys_S // $BLOCK_SIZE).expand_as(scores_BHTS)
        n_blocks = -(-scores_BHTS.shape[3] // $BLOCK_SIZE)
        best_BHTN = scores_BHTS.new_full((*scores_BHTS.shape[:3], n_blocks), lowest)
        best_BHTN = best_BHTN.scatter_reduce(-1, blocks_BHTS, scores_BHTS, "amax")
        #if local
        # The last blocks up to that of the query are always chosen.
        last_L = torch.arange($LOCAL_BLOCKS, device=x_BTE.device)
        local_TL = positions_T[:, None] // $BLOCK_SIZE - last_L
        local_BHTL = local_TL.clamp(min=0).expand(*scores_BHTS.shape[:3], -1)
        best_BHTN = best_BHTN.scatter(-1, local_BHTL, torch.inf)
        #end
        order_BHTN = best_BHTN.sort(dim=-1, descending=True, stable=True).indices[..., :$TOP_BLOCKS]
        chosen_BHTN = torch.zeros_like(best_BHTN, dtype=torch.bool).scatter(-1, order_BHTN, True)
        return chosen_BHTN.gather(-1, blocks_BHTS) & mask_TS
'''

_FIELDS = ("block_size", "top_blocks", "local_blocks", "index_heads", "d_index", "index_norm", "index_loss")


def block_sparse(spec: BlockSparseSpec, context: WritingContext) -> Written:
    """Return the attention as a class, and its indexer. The loss of the indexer, for training only, is not written."""
    attention = headed(spec, context, grouped=True, indexer=_indexer(spec, context))
    return replace(attention, fields=(*attention.fields, *_FIELDS))


def _indexer(spec: BlockSparseSpec, context: WritingContext) -> Written:
    assert spec.index_heads is not None
    position: Any = context.parts.position
    settings = {
        "INDEX_HEADS": Setting(spec.index_heads, "heads of the indexer"),
        "D_INDEX": Setting(spec.d_index, "features of a query and key of the indexer"),
        "D_HEAD": Setting(spec.d_head, "features of a head"),
        "BLOCK_SIZE": Setting(spec.block_size, "positions of a block of keys"),
        "TOP_BLOCKS": Setting(spec.top_blocks, "blocks of keys that a query attends to"),
    }
    if spec.local_blocks:
        settings["LOCAL_BLOCKS"] = Setting(spec.local_blocks, "last blocks that a query always attends to")
    d_input, own = input_width(context)
    settings |= own
    parts = {"append_to": append_to, "index_norm": written(spec.index_norm, context, dim=Name("$D_INDEX"))}
    calls = {"query": "", "key": ""}
    whole = spec.d_index == spec.head_shape().d_head
    if "rotate" in position.uses:
        heads = HeadShape(spec.index_heads, 1, spec.head_shape().d_head)
        rotation = written(position, context, heads=heads)
        if not rotation.is_function:
            raise NotWrittenError(
                f"attention {spec.name!r} cannot be written out with position {position.name!r}, which is not a function",
                hint="Choose position rotary or none.",
            )
        parts |= position_parts(rotation)
        names = {"query": "q_BHTD", "key": "k_B1TD"} if whole else {"query": "q_BHTR", "key": "k_B1TR"}
        for purpose, name in names.items():  # a position may change queries only
            calls[purpose] = rotation.call(purpose, x=name) if purpose in rotation.calls else name
    else:
        settings.pop("D_HEAD")
    text = fill(
        _INDEXER,
        query=linear(context, d_input, "$INDEX_HEADS * $D_INDEX", bias=False),
        key=linear(context, d_input, "$D_INDEX", bias=False),
        rotated="rotate" in position.uses,
        rotated_whole="rotate" in position.uses and whole,
        local=bool(spec.local_blocks),
        rotated_query=calls["query"],
        rotated_key=calls["key"],
    )
    return Written("BlockIndexer", text, settings=settings, parts=parts, section="attention")
