"""Template of block `engram`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.core.walk import components
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written
from gptkit.kinds.written_each_head import each_head
from gptkit.ops.ngram_hash import padded_rows

if TYPE_CHECKING:
    from gptkit.components.block.engram import EngramSpec

__all__ = ["engram"]

_TABLES = '''
class $class_name(nn.Module):
    """Embeddings of n-grams of token ids in tables of hashes, which are one table."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.table = nn.Embedding($N_ROWS, $D_TABLE)
        self.multipliers = nn.Buffer(torch.zeros($MAX_NGRAM, dtype=torch.int64))
        self.sizes = nn.Buffer(torch.ones($N_TABLES, dtype=torch.int64))
        self.offsets = nn.Buffer(torch.zeros($N_TABLES, dtype=torch.int64))

    def forward(self, ids_BT: Tensor, before_BG: Tensor, positions_T: Tensor) -> Tensor:
        """Return the embeddings of the tokens after those before them, (B, T) to (B, T, P)."""
        ids_BS = torch.cat((before_BG, ids_BT), dim=1)
        last_BT, mixed_BT = ids_BT, ids_BT * self.multipliers[0]
        rows = []
        for back in range(1, $MAX_NGRAM):
            known_BT = positions_T >= back
            if back > 1:
                known_BT = known_BT & (last_BT != $BOUNDARY)
            seen_BT = ids_BS[:, $MAX_NGRAM - 1 - back : ids_BS.shape[1] - back]
            last_BT = torch.where(known_BT, seen_BT, $BOUNDARY)
            mixed_BT = mixed_BT ^ (last_BT * self.multipliers[back])
            own = slice((back - 1) * $TABLES_PER_LENGTH, back * $TABLES_PER_LENGTH)
            rows.append(mixed_BT[..., None] % self.sizes[own] + self.offsets[own])
        return self.table(torch.cat(rows, dim=-1)).flatten(2)
'''

_ENGRAM = '''
class $class_name(nn.Module):
    """Gated embeddings of n-grams of token ids, which are added to the residual streams."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.tables = $tables
        self.key = $key
        self.value = $value
        self.key_norm = $norm
        self.query_norm = $norm
        self.value_norm = $norm
        self.conv = nn.Conv1d(
            $ENGRAM_STREAMS * D_MODEL,
            $ENGRAM_STREAMS * D_MODEL,
            $CONV_WIDTH,
            groups=$ENGRAM_STREAMS * D_MODEL,
            dilation=$MAX_NGRAM,
            bias=False,
        )

    def forward(
        self, x_BTNE: Tensor, ids_BT: Tensor, positions_T: Tensor, cache: dict[str, Tensor]
    ) -> Tensor:
        """Return the streams with what is added to them, (B, T, N, E) to (B, T, N, E)."""
        before_BG = cache.get("engram_ids", ids_BT.new_zeros(len(ids_BT), $MAX_NGRAM - 1))
        e_BTP = self.tables(ids_BT, before_BG, positions_T)
        cache["engram_ids"] = torch.cat((before_BG, ids_BT), dim=1)[:, ids_BT.shape[1] :]
        key_BTNE = self.key_norm(self.key(e_BTP).unflatten(-1, ($ENGRAM_STREAMS, -1)))
        score_BTN = (key_BTNE * self.query_norm(x_BTNE)).sum(dim=-1) / D_MODEL**0.5
        gate_BTN = (score_BTN.abs().clamp(min=1e-6).sqrt() * score_BTN.sign()).sigmoid()
        gated_BTNE = gate_BTN[..., None] * self.value(e_BTP)[:, :, None]
        normed_BTX = self.value_norm(gated_BTNE).flatten(2)
        n_kept = $MAX_NGRAM * ($CONV_WIDTH - 1)
        start_BTX = cache.get("engram", normed_BTX.new_zeros(len(ids_BT), n_kept, normed_BTX.shape[2]))
        normed_BSX = torch.cat((start_BTX, normed_BTX), dim=1)
        cache["engram"] = normed_BSX[:, ids_BT.shape[1] :]
        mixed_BTX = F.silu(self.conv(normed_BSX.transpose(1, 2)).transpose(1, 2))
        y_BTNE: Tensor = x_BTNE + gated_BTNE + torch.unflatten(mixed_BTX, -1, ($ENGRAM_STREAMS, -1))
        return y_BTNE
'''

_BLOCK = '''
class $class_name(nn.Module):
    """Embeddings of the last token ids, then one layer."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.engram = $engram
        self.block = $block

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        ids_BT = cache.shared["ids"]
        #if kept_as
        # The output of a layer has the streams as an attribute.
        x_BTNE: Tensor | None = getattr(x_BTE, "$kept_as", None)
        if x_BTNE is None:
            x_BTNE = x_BTE[:, :, None].expand(-1, -1, $ENGRAM_STREAMS, -1)
        x_BTNE = self.engram(x_BTNE, ids_BT, positions_T, cache)
        x_BTE = x_BTNE.mean(dim=2)
        x_BTE.__dict__["$kept_as"] = x_BTNE
        #else
        x_BTE = self.engram(x_BTE[:, :, None], ids_BT, positions_T, cache)[:, :, 0]
        #end
        return self.block(x_BTE, positions_T, cache)
'''

_FIELDS = (
    "max_ngram",
    "heads",
    "d_embedding",
    "table_rows",
    "row_multiple",
    "boundary",
    "seed",
    "conv_width",
    "block",
)


def engram(spec: EngramSpec, context: WritingContext) -> Written:
    """Return the block as a class.

    Raises:
        NotWrittenError: the block within it has residual streams that it cannot change.
    """
    if any(isinstance(part, type(spec)) for _, part in components(spec.block)):
        raise NotWrittenError(
            f"block {spec.name!r} cannot be written out within another one, since both would use one cache",
            hint="Use one of them.",
        )
    block = written(spec.block, context)
    kept_as = block.calls.get("kept streams", "")
    if block.calls.get("streams") or (hasattr(spec.block, "streams") and not kept_as):
        raise NotWrittenError(
            f"block {spec.name!r} cannot be written out around {spec.block.name!r}, whose streams it cannot change",
            hint="Choose another block.",
        )
    streams = getattr(spec.block, "streams", 1) if kept_as else 1
    settings = {"ENGRAM_STREAMS": Setting(streams, "residual streams that embeddings of n-grams are added to")}
    parts = {"engram": _engram(spec, context, streams), "block": block}
    return Written(
        "EngramBlock", fill(_BLOCK, kept_as=kept_as), settings=settings, parts=parts, section="block", fields=_FIELDS
    )


def _engram(spec: EngramSpec, context: WritingContext, streams: int) -> Written:
    earlier = [
        part.n_tables
        for block in context.blocks[: context.parts.index]
        for _, part in components(block)
        if isinstance(part, type(spec))
    ]
    assert spec.d_embedding is not None
    n_rows = padded_rows(spec.table_rows, sum(earlier), spec.n_tables, spec.row_multiple)
    boundary = Name("VOCAB_SIZE") if spec.boundary is None else spec.boundary
    tables = Written(
        "NGramTables",
        fill(_TABLES),
        settings={
            "N_ROWS": Setting(n_rows, "rows of all tables of n-grams"),
            "D_TABLE": Setting(spec.d_embedding // spec.n_tables, "features of an embedding in a table"),
            "N_TABLES": Setting(spec.n_tables, "tables of n-grams of a layer"),
            "TABLES_PER_LENGTH": Setting(spec.heads, "tables for each length of n-grams"),
            "MAX_NGRAM": Setting(spec.max_ngram, "ids of the longest n-gram"),
            "BOUNDARY": Setting(boundary, "id that stands for tokens before the first, which n-grams do not reach over"),
        },
        section="block",
        single=True,
    )
    return Written(
        "Engram",
        fill(
            _ENGRAM,
            key=linear(context, "$D_NGRAMS", "$ENGRAM_STREAMS * D_MODEL", bias=False),
            value=linear(context, "$D_NGRAMS", "D_MODEL", bias=False),
        ),
        settings={
            "ENGRAM_STREAMS": Setting(streams, "residual streams that embeddings of n-grams are added to"),
            "MAX_NGRAM": Setting(spec.max_ngram, "ids of the longest n-gram"),
            "CONV_WIDTH": Setting(spec.conv_width, "tokens of the convolution of embeddings, MAX_NGRAM apart"),
            "D_NGRAMS": Setting(spec.d_embedding, "features of the embeddings of a token's n-grams"),
        },
        parts={"tables": tables, "norm": each_head(context.parts.norm, context, "$ENGRAM_STREAMS", "D_MODEL")},
        section="block",
    )
