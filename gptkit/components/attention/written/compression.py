"""Templates of what `compressed` computes of blocks: their entries, and the choice among them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gptkit.components.attention.written.parts import position_parts
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.compressed import CompressedSpec

__all__ = ["block_settings", "compressor", "indexer", "rotate_last"]

_ROTATE = '''
def $class_name(x_BHTD: Tensor, positions_T: Tensor$parameters) -> Tensor:
    """Rotate the last features, (B, H, T, D) to (B, H, T, D)."""
    rotated_BHTR = $rotated
    return torch.cat((x_BHTD[..., :-$D_SHARED], rotated_BHTR), dim=-1)
'''

_COMPRESSOR = '''
class $class_name(nn.Module):
    """Entries of blocks: sums of projected tokens, weighted by a softmax for each feature."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if differ
        width = 2 * $D_ENTRY if $OVERLAPS else $D_ENTRY
        #end
        self.content = $content
        self.gate = $gate
        self.position_bias = nn.Parameter(torch.zeros($BLOCK_SIZE, $width))
        self.norm = $norm

    def forward(self, x_BTE: Tensor, cache: dict[str, Tensor], name: str) -> Tensor:
        """Return the entries of the full blocks so far, (B, T, E) to (B, 1, N, D)."""
        x_B2TD = torch.stack((self.content(x_BTE), self.gate(x_BTE)), dim=1)
        x_B2SD = cache[name] = torch.cat((cache.get(name, x_B2TD[:, :, :0]), x_B2TD), dim=2)
        n_blocks = x_B2SD.shape[2] // $BLOCK_SIZE
        x_B2SD = x_B2SD[:, :, : n_blocks * $BLOCK_SIZE]
        x_BNMD, gate_BNMD = torch.unflatten(x_B2SD, 2, (n_blocks, $BLOCK_SIZE)).unbind(1)
        gate_BNMD = gate_BNMD + self.position_bias
        #if differ
        if $OVERLAPS:
            before_BNMD, x_BNMD = x_BNMD.chunk(2, dim=-1)  # half is for the next block's entry
            gate_before_BNMD, gate_BNMD = gate_BNMD.chunk(2, dim=-1)
            gate_before_BNMD = F.pad(gate_before_BNMD, (0, 0, 0, 0, 1, 0), value=-torch.inf)[:, :-1]
            x_BNMD = torch.cat((before_BNMD.roll(1, dims=1), x_BNMD), dim=2)
            gate_BNMD = torch.cat((gate_before_BNMD, gate_BNMD), dim=2)
        #elif overlaps
        before_BNMD, x_BNMD = x_BNMD.chunk(2, dim=-1)  # half is for the next block's entry
        gate_before_BNMD, gate_BNMD = gate_BNMD.chunk(2, dim=-1)
        gate_before_BNMD = F.pad(gate_before_BNMD, (0, 0, 0, 0, 1, 0), value=-torch.inf)[:, :-1]
        x_BNMD = torch.cat((before_BNMD.roll(1, dims=1), x_BNMD), dim=2)
        gate_BNMD = torch.cat((gate_before_BNMD, gate_BNMD), dim=2)
        #end
        entries_BND = torch.sum(x_BNMD * gate_BNMD.softmax(dim=2), dim=2)
        #if rotated
        positions_N = $BLOCK_SIZE * torch.arange(n_blocks, device=x_BTE.device)
        return $rotate_last(self.norm(entries_BND)[:, None], positions_N$rotate_last_arguments)
        #else
        return self.norm(entries_BND)[:, None]
        #end
'''

_INDEXER = '''
class $class_name(nn.Module):
    """Indexer: scores of blocks, the sum over heads of weight · relu(q · k) / √(D · heads)."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.query = $query
        self.weights = nn.Linear(D_MODEL, $INDEX_HEADS, bias=False)
        self.compressor = $index_compressor

    def forward(self, x_BTE: Tensor, q_BTC: Tensor, k_B1ND: Tensor, positions_T: Tensor) -> Tensor:
        """Return the scores of blocks with these keys for each query, (B, T, N)."""
        q_BHTD = self.query(q_BTC).unflatten(-1, ($INDEX_HEADS, -1)).transpose(1, 2)
        scores_BHTN = torch.relu($rotated_query @ k_B1ND.mT * $D_INDEX**-0.5)
        return torch.einsum("bhtn,bth->btn", scores_BHTN, self.weights(x_BTE) * $INDEX_HEADS**-0.5)
'''


def rotate_last(spec: CompressedSpec, position: Written, purpose: str = "key") -> Written:
    """Return the function that rotates the last features of a query or a key.

    Args:
        position: the function that rotates.
        purpose: "key", or "query".
    """
    if "LAST" in position.settings and position.calls["query"] == position.calls["key"]:
        last = {"LAST": Setting(True), "D_LAST": Setting(spec.d_rotary, "features with position, the last ones")}
        return dataclasses.replace(position, settings={**position.settings, **last})
    text = fill(_ROTATE, rotated=position.call(purpose, x="x_BHTD[..., -$D_SHARED:]"))
    settings = {"D_SHARED": Setting(spec.d_rotary, "features of a query and key with position")}
    return Written("rotate_last", text, settings=settings, parts=position_parts(position), section="position")


def compressor(spec: CompressedSpec, context: WritingContext, position: Written | None, width: str) -> Written:
    """Return what computes entries, as a class. Its user has the settings of blocks.

    Args:
        position: the function that rotates; None without one.
        width: the user's setting of the features of an entry.
    """
    others = [layer.attention for layer in context.layers if isinstance(layer.attention, type(spec))]
    differ = any(each.overlap != spec.overlap for each in others if each.block_size is not None)
    projected = "width" if differ else "2 * $D_ENTRY" if spec.overlap else "$D_ENTRY"
    projection = linear(context, "D_MODEL", projected, bias=False)
    text = fill(
        _COMPRESSOR,
        content=projection,
        gate=projection,
        width=projected,
        differ=differ,
        overlaps=spec.overlap,
        rotated=position is not None,
    )
    settings = {name: Setting(Name(f"${name}")) for name in block_settings(spec)}
    settings["D_ENTRY"] = Setting(Name(f"${width}"))
    parts = {"norm": written(spec.norm, context, dim=Name("$D_ENTRY"))}
    if position is not None:
        parts["rotate_last"] = rotate_last(spec, position)
    return Written("Compressor", text, settings=settings, parts=parts, section="attention")


def block_settings(spec: CompressedSpec) -> dict[str, Setting]:
    """Return the settings of blocks, which a class passes on to its parts."""
    return {
        "BLOCK_SIZE": Setting(spec.block_size, "tokens of a compressed block"),
        "OVERLAPS": Setting(spec.overlap, "whether an entry has the tokens of the previous block too"),
    }


def indexer(spec: CompressedSpec, context: WritingContext, position: Written | None) -> Written:
    """Return what scores blocks, as a class. Its user has the settings of blocks.

    Args:
        position: the function that rotates; None without one.
    """
    settings = {
        "INDEX_HEADS": Setting(spec.index_heads, "heads of the indexer"),
        "D_INDEX": Setting(spec.d_index, "features of a query and key of the indexer"),
        **{name: Setting(Name(f"${name}")) for name in block_settings(spec)},
    }
    source = "D_MODEL"
    if spec.q_rank is not None:
        source = "$Q_RANK"
        settings["Q_RANK"] = Setting(spec.q_rank, "features of the vector that queries are computed from")
    parts = {"index_compressor": compressor(spec, context, position, "D_INDEX")}
    if position is not None:
        parts["rotate_last"] = rotate_last(spec, position)
    query = linear(context, source, "$INDEX_HEADS * $D_INDEX", bias=False)
    rotated = "q_BHTD" if position is None else "$rotate_last(q_BHTD, positions_T$rotate_last_arguments)"
    text = fill(_INDEXER, query=query, rotated_query=rotated)
    return Written("Indexer", text, settings=settings, parts=parts, section="attention", variant="Block")
