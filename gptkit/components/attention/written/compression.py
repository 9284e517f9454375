"""Templates of what `compressed` computes of blocks: their entries, and the choice among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.parts import append_to, position_parts
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.compressed import CompressedSpec

__all__ = ["compressor", "indexer"]

_COMPRESSOR = '''
class $class_name(nn.Module):
    """Entries of blocks of tokens: sums of projected tokens, weighted by a softmax over the tokens for each feature."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.content = $content
        self.gate = $gate
        self.position_bias = nn.Parameter(torch.zeros($BLOCK_SIZE, $SERIES * $D_ENTRY))
        self.norm = $norm

    def forward(self, x_BTE: Tensor, cache: dict[str, Tensor], name: str) -> Tensor:
        """Return the entries of the full blocks so far, (B, T, E) to (B, 1, N, D)."""
        content_BSW = $append_to(cache, f"{name}_contents", self.content(x_BTE)[:, None])[:, 0]
        gate_BSW = $append_to(cache, f"{name}_gates", self.gate(x_BTE)[:, None])[:, 0]
        n_blocks = content_BSW.shape[1] // $BLOCK_SIZE
        n_tokens = n_blocks * $BLOCK_SIZE
        content_BNMW = torch.unflatten(content_BSW[:, :n_tokens], 1, (n_blocks, $BLOCK_SIZE))
        gate_BNMW = torch.unflatten(gate_BSW[:, :n_tokens], 1, (n_blocks, $BLOCK_SIZE))
        gate_BNMW = gate_BNMW + self.position_bias
        #if $OVERLAPS
        # Half of the features are for the entry of the next block; the first block has no previous one.
        before_BNMD, content_BNMD = content_BNMW.chunk(2, dim=-1)
        gate_before_BNMD, gate_BNMD = gate_BNMW.chunk(2, dim=-1)
        one_block = (0, 0, 0, 0, 1, 0)
        content_BNMW = torch.cat((F.pad(before_BNMD, one_block)[:, :-1], content_BNMD), dim=2)
        gate_before_BNMD = F.pad(gate_before_BNMD, one_block, value=-torch.inf)[:, :-1]
        gate_BNMW = torch.cat((gate_before_BNMD, gate_BNMD), dim=2)
        #end
        entries_BND = torch.sum(content_BNMW * gate_BNMW.softmax(dim=2), dim=2)
        return self.norm(entries_BND)[:, None]
'''

_INDEXER = '''
class $class_name(nn.Module):
    """Indexer: scores of blocks, the sum over heads of weight · relu(q · k) / √(D · heads)."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.query = $query
        self.weights = nn.Linear(D_MODEL, $INDEX_HEADS, bias=False)
        self.compressor = $index_compressor

    def forward(self, x_BTE: Tensor, q_BTC: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Return the scores of the full blocks so far for each query, (B, T, N)."""
        q_BHTD = self.query(q_BTC).unflatten(-1, ($INDEX_HEADS, -1)).transpose(1, 2)
        k_B1ND = self.compressor(x_BTE, cache, "index")
        #if rotated
        blocks_N = torch.arange(k_B1ND.shape[2], device=positions_T.device)
        widths = [$D_INDEX - $D_SHARED, $D_SHARED]  # the last features are rotated
        q_BHTU, q_BHTR = torch.split(q_BHTD, widths, dim=-1)
        k_B1NU, k_B1NR = torch.split(k_B1ND, widths, dim=-1)
        q_BHTD = torch.cat((q_BHTU, $rotated_query), dim=-1)
        k_B1ND = torch.cat((k_B1NU, $rotated_key), dim=-1)
        #end
        scores_BHTN = torch.relu(q_BHTD @ k_B1ND.mT * $D_INDEX**-0.5)
        weights_BTH = self.weights(x_BTE) * $INDEX_HEADS**-0.5
        return torch.sum(scores_BHTN * weights_BTH.mT[..., None], dim=1)
'''


def compressor(spec: CompressedSpec, context: WritingContext, width: Setting) -> Written:
    """Return what computes entries, as a class.

    Args:
        width: features of an entry.
    """
    projection = linear(context, "D_MODEL", "$SERIES * $D_ENTRY", bias=False)
    text = fill(_COMPRESSOR, content=projection, gate=projection)
    settings = {
        "D_ENTRY": width,
        "BLOCK_SIZE": Setting(spec.block_size, "tokens of a compressed block"),
        "SERIES": Setting(2 if spec.overlap else 1, "entries that a token contributes to"),
        "OVERLAPS": Setting(spec.overlap, "whether an entry has the tokens of the previous block too"),
    }
    parts = {"append_to": append_to, "norm": written(spec.norm, context, dim=Name("$D_ENTRY"))}
    return Written("Compressor", text, settings=settings, parts=parts, section="attention")


def indexer(spec: CompressedSpec, context: WritingContext, position: Written | None) -> Written:
    """Return what scores blocks, as a class.

    Args:
        position: the function that rotates; None without one.
    """
    settings = {
        "INDEX_HEADS": Setting(spec.index_heads, "heads of the indexer"),
        "D_INDEX": Setting(spec.d_index, "features of a query and key of the indexer"),
        "D_SHARED": Setting(spec.d_rotary, "features of a query and key with position"),
        "BLOCK_SIZE": Setting(spec.block_size, "tokens of a compressed block"),
    }
    source = "D_MODEL"
    if spec.q_rank is not None:
        source = "$Q_RANK"
        settings["Q_RANK"] = Setting(spec.q_rank, "features of the vector that queries are computed from")
    parts = {"index_compressor": compressor(spec, context, Setting(spec.d_index, "features of an entry of the indexer"))}
    calls = {"rotated_query": "", "rotated_key": ""}
    if position is not None:
        parts |= position_parts(position)
        key = position.calls["key"]
        calls["rotated_query"] = key.replace("$x", "q_BHTR")
        calls["rotated_key"] = key.replace("$x", "k_B1NR").replace("positions_T", "$BLOCK_SIZE * blocks_N")
    query = linear(context, source, "$INDEX_HEADS * $D_INDEX", bias=False)
    text = fill(_INDEXER, query=query, rotated=position is not None, **calls)
    return Written("Indexer", text, settings=settings, parts=parts, section="attention", variant="Block")
