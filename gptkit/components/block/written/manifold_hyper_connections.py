"""Template of block `manifold-hyper-connections`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gptkit.components.block.written.forms import with_arguments
from gptkit.components.block.written.streams import FORWARD, RETURN
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.block.manifold_hyper_connections import ManifoldHyperConnectionsSpec

__all__ = ["manifold_hyper_connections"]

_WEIGHTS = '''
class $class_name(nn.Module):
    """Weights to read, to write$and_size the residual streams, in numbers of these sizes."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.sizes = list($SIZES)
        self.weight = nn.Parameter(torch.empty(sum($SIZES), $N_STREAMS * D_MODEL).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(sum($SIZES)))
        #if read_bias
        self.bias.data[:$N_STREAMS] = $READ_BIAS
        #end
        #if gate
        self.scale = nn.Parameter(torch.full((len($SIZES),), $STREAM_GATE))
        #else
        self.scale = nn.Parameter(torch.ones(len($SIZES)))
        #end

    def forward(self, streams_BTNE: Tensor) -> list[Tensor]:
        """Return the branch's input, (B, T, N, E) to (B, T, E), and the weights of its output."""
        x_BTX = F.rms_norm(streams_BTNE.flatten(2), ($N_STREAMS * D_MODEL,), eps=$STREAM_NORM_EPS)
        projected = torch.split(F.linear(x_BTX, self.weight), self.sizes, dim=-1)
        groups = zip(projected, self.scale, torch.split(self.bias, self.sizes), strict=True)
        read_BTN, *others = (part * scale + bias for part, scale, bias in groups)
        #if mixes
        return [((read_BTN.sigmoid() + $STREAM_EPS)[..., None] * streams_BTNE).sum(dim=2), *others]
        #else
        h_BTE = ((read_BTN.sigmoid() + $STREAM_EPS)[..., None] * streams_BTNE).sum(dim=2)
        return [h_BTE, *($weights for write_BTN in others)]
        #end
'''

_WRITE = '''
def $class_name(x_BTNE: Tensor, y_BTE: Tensor, write_BTN: Tensor, mix_BTX: Tensor$parameters) -> Tensor:
    """Mix the streams, and add the output of a branch, (B, T, E) to (B, T, N, E)."""
    mix_BTNN = torch.unflatten(mix_BTX, -1, ($N_STREAMS, -1)).softmax(dim=-1) + $STREAM_EPS
    # Sinkhorn's algorithm: columns and rows are scaled in turn until both sum up to 1.
    for step in range(2 * $SINKHORN_ITERATIONS - 1):
        mix_BTNN = mix_BTNN / (mix_BTNN.sum(dim=step % 2 - 2, keepdim=True) + $STREAM_EPS)
    #if write_eps
    write_BTN = $weights
    return mix_BTNN.mT @ x_BTNE + write_BTN[..., None] * y_BTE[:, :, None]
    #else
    return mix_BTNN.mT @ x_BTNE + $weights[..., None] * y_BTE[:, :, None]
    #end
'''

_START = '''
class $class_name(nn.Module):
    """One layer with several residual streams, which its branches read$and_mix write."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_norm = $attention_norm
        self.attention = $attention
        self.feedforward_norm = $feedforward_norm
        self.feedforward = $feedforward
        self.attention_mixing = $mixing
        self.feedforward_mixing = $mixing
        self.collapse = $collapse if $LAYER == N_LAYERS - 1 else None
'''

_BODY = """
        h_BTE, $written = self.attention_mixing(x_BTNE)
        mixed_BTE = self.attention(self.attention_norm(h_BTE), positions_T, cache)
        #if mixes
        x_BTNE = $write(x_BTNE, $mixed, $written$write_arguments)
        #else
        x_BTNE = x_BTNE + write_BTN[..., None] * $mixed[:, :, None]
        #end
        h_BTE, $written = self.feedforward_mixing(x_BTNE)
        fed_BTE = self.feedforward(self.feedforward_norm(h_BTE))
        #if mixes
        x_BTNE = $write(x_BTNE, $fed, $written$write_arguments)
        #else
        x_BTNE = x_BTNE + write_BTN[..., None] * $fed[:, :, None]
        #end
"""

_BLOCK = _START + FORWARD + _BODY.lstrip("\n") + RETURN.lstrip("\n")

_FIELDS = (
    "streams",
    "mixing",
    "iterations",
    "gate",
    "read_bias",
    "write_scale",
    "write_eps",
    "eps",
    "norm_eps",
    "dropout",
)


def manifold_hyper_connections(spec: ManifoldHyperConnectionsSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    mixes = spec.mixing != "none"
    # Where all layers are such blocks, they pass the streams to one another.
    passes = all(type(block) is type(spec) and block.streams == spec.streams for block in context.blocks)
    streams = {"N_STREAMS": Setting(spec.streams, "residual streams")}
    eps = {"STREAM_EPS": Setting(spec.eps, "added to weights of streams and their sums")}
    initial = {
        "STREAM_GATE": Setting(spec.gate, "initial factor of what depends on the token in the weights of streams"),
        "STREAM_NORM_EPS": Setting(spec.norm_eps, "added to the mean square of all streams"),
    }
    if spec.read_bias:
        mean = abs(1 / (1 + math.exp(-spec.read_bias)) - 1 / spec.streams) < 1e-6
        comment = "initial bias of the weights that read streams" + (f": 1/{spec.streams} each" if mean else "")
        initial["READ_BIAS"] = Setting(spec.read_bias, comment)
    write = {
        **streams,
        "WRITE_SCALE": Setting(spec.write_scale, "largest weight with which a stream receives a branch's output"),
    }
    weights = "$WRITE_SCALE * write_BTN.sigmoid()"
    if spec.write_eps:
        write["WRITE_EPS"] = Setting(spec.write_eps, "added to that weight")
        weights += " + $WRITE_EPS"
    if mixes:
        write["SINKHORN_ITERATIONS"] = Setting(spec.iterations, "iterations of Sinkhorn's algorithm")
        write |= eps
    and_mix = ", mix and" if mixes else " and"

    def stream_weights(sizes: str) -> Written:
        own = {"SIZES": Setting(Name(f"({sizes})"), "numbers of weights to read, to write and to mix streams")}
        text = fill(
            _WEIGHTS,
            read_bias=bool(spec.read_bias),
            gate=spec.gate != 1,
            mixes=mixes,
            and_size=" and to mix" if mixes else "",
            weights=weights,
        )
        return Written("StreamMixing", text, settings={**write, **eps, **initial, **own}, section="block")

    settings = {
        **streams,
        "LAYER": Setting(context.parts.index, "index of the layer"),
    }
    mixed, fed = "mixed_BTE", "fed_BTE"
    if spec.dropout:
        settings["BLOCK_DROPOUT"] = Setting(spec.dropout, "share of each branch's output dropped in training")
        mixed, fed = (f"F.dropout({each}, $BLOCK_DROPOUT, self.training)" for each in (mixed, fed))
    norms = ("attention_norm", "feedforward_norm")
    parts = {name: written(context.parts.norm, context, dim=Name("D_MODEL")) for name in norms}
    parts |= {
        "attention": written(context.parts.attention, context),
        "feedforward": written(context.parts.feedforward, context),
        "mixing": stream_weights("$N_STREAMS, $N_STREAMS, $N_STREAMS**2" if mixes else "$N_STREAMS, $N_STREAMS"),
        "collapse": stream_weights("$N_STREAMS,"),
    }
    if mixes:
        parts["write"] = Written(
            "write_streams", fill(_WRITE, weights=weights, write_eps=bool(spec.write_eps)), settings=write, section="block"
        )
    kept_as = f"streams_{spec.streams}"  # a layer with another number of streams does not continue these
    text = fill(
        _BLOCK,
        passes=passes,
        mixes=mixes,
        kept_as=kept_as,
        mixed=mixed,
        fed=fed,
        written="write_BTN, mix_BTX" if mixes else "write_BTN",
        and_mix=and_mix,
    )
    text = with_arguments(text, parts["feedforward"])
    calls = {"streams": str(spec.streams)} if passes else {"kept streams": kept_as}
    return Written("Block", text, settings=settings, parts=parts, calls=calls, section="block", fields=_FIELDS)
