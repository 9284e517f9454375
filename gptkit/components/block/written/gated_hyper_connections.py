"""Template of block `gated-hyper-connections`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.block.written.forms import with_arguments
from gptkit.components.block.written.streams import FORWARD, RETURN
from gptkit.kinds.written import Setting, WritingContext, Written, fill, linear, written
from gptkit.kinds.written_each_head import each_head

if TYPE_CHECKING:
    from gptkit.components.block.gated_hyper_connections import GatedHyperConnectionsSpec

__all__ = ["gated_hyper_connections"]

_GATES = '''
class $class_name(nn.Module):
    """Norms of the residual streams, gates to read them, and weights to add a branch's output to them."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.norm = $norm
        self.down = $down
        self.up = $up
        self.write = nn.Linear($N_STREAMS * D_MODEL, $N_STREAMS, bias=False) if $WRITES else None

    def forward(self, streams_BTNE: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the branch's input, (B, T, N, E) to (B, T, E), and the weights of its output, (B, T, N)."""
        normed_BTNE = self.norm(streams_BTNE)
        normed_BTX = normed_BTNE.flatten(2)
        gates_BTX = self.up(F.silu(self.down(normed_BTX) / $N_STREAMS)).sigmoid()
        h_BTE = (gates_BTX.unflatten(-1, ($N_STREAMS, -1)) * normed_BTNE).mean(dim=2)
        if self.write is None:
            return h_BTE, None
        return h_BTE, $WRITE_SCALE * (self.write(normed_BTX) / $N_STREAMS).sigmoid()
'''

_START = '''
class $class_name(nn.Module):
    """One layer with several residual streams, which its branches read through gates."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_gates = $gates
        self.attention = $attention
        self.feedforward_gates = $gates
        self.feedforward = $feedforward
        self.collapse = $collapse if $LAYER == N_LAYERS - 1 else None
'''

_BODY = """
        h_BTE, write_BTN = self.attention_gates(x_BTNE)
        mixed_BTE = self.attention(h_BTE, positions_T, cache)
        x_BTNE = x_BTNE + write_BTN[..., None] * $mixed[:, :, None]
        h_BTE, write_BTN = self.feedforward_gates(x_BTNE)
        fed_BTE = self.feedforward(h_BTE)
        x_BTNE = x_BTNE + write_BTN[..., None] * $fed[:, :, None]
"""

_BLOCK = _START + FORWARD + _BODY.lstrip("\n") + RETURN.lstrip("\n")


def gated_hyper_connections(spec: GatedHyperConnectionsSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    # Where all layers are such blocks, they pass the streams to one another.
    passes = all(type(block) is type(spec) and block.streams == spec.streams for block in context.blocks)
    settings = {
        "N_STREAMS": Setting(spec.streams, "residual streams"),
        "LAYER": Setting(context.parts.index, "index of the layer"),
    }
    mixed, fed = "mixed_BTE", "fed_BTE"
    if spec.dropout:
        settings["BLOCK_DROPOUT"] = Setting(spec.dropout, "share of each branch's output dropped in training")
        mixed, fed = (f"F.dropout({each}, $BLOCK_DROPOUT, self.training)" for each in (mixed, fed))
    parts = {
        "attention": written(context.parts.attention, context),
        "feedforward": written(context.parts.feedforward, context),
        "gates": _gates(spec, context, writes=True),
        "collapse": _gates(spec, context, writes=False),
    }
    # A layer with another number of streams does not continue these.
    kept_as = f"gated_streams_{spec.streams}"
    text = fill(_BLOCK, passes=passes, kept_as=kept_as, mixed=mixed, fed=fed)
    text = with_arguments(text, parts["feedforward"])
    calls = {"streams": str(spec.streams)} if passes else {"kept streams": kept_as}
    fields = ("streams", "rank", "write_scale", "dropout")
    return Written("Block", text, settings=settings, parts=parts, calls=calls, section="block", fields=fields)


def _gates(spec: GatedHyperConnectionsSpec, context: WritingContext, *, writes: bool) -> Written:
    settings = {
        "N_STREAMS": Setting(spec.streams, "residual streams"),
        "GATE_RANK": Setting(spec.rank, "width of the vector that gates of streams are computed from"),
        "WRITE_SCALE": Setting(spec.write_scale, "largest weight with which a stream receives a branch's output"),
        "WRITES": Setting(writes, "whether the output of a branch is added to the streams"),
    }
    norm = each_head(context.parts.norm, context, "$N_STREAMS", "D_MODEL")
    text = fill(
        _GATES,
        down=linear(context, "$N_STREAMS * D_MODEL", "$GATE_RANK", bias=False),
        up=linear(context, "$GATE_RANK", "$N_STREAMS * D_MODEL", bias=False),
    )
    return Written("StreamGates", text, settings=settings, parts={"norm": norm}, section="block")
