"""Template of block `altup`. Its blocks pass all streams to one another, (B, T, N, E)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.block.written.per_layer_embedding import FIELDS, layer_embedding, layer_inputs
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.block.altup import AltUpSpec

__all__ = ["altup"]

_BLOCK = '''
class $class_name(nn.Module):
    """One layer that transforms the first of several streams, and corrects all (AltUp).

    The first layer creates the streams, (B, T, E) to (B, T, N, E), and the last one merges them.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        self.router_norm = $router_norm
        self.router = $router
        self.prediction = nn.Linear($STREAMS, $STREAMS**2, bias=False)
        self.correction = nn.Linear($STREAMS, $STREAMS, bias=False)
        self.block = $block
        #if embedded
        self.embedding = $embedding
        #if correct_scale
        self.correct_scale = nn.Parameter(torch.ones(D_MODEL))
        #end
        #end
        if $IS_FIRST:
            self.expand = nn.ModuleList($map for _ in range($STREAMS - 1))
        if $IS_LAST:
            self.merge = nn.ModuleList($map for _ in range($STREAMS - 1))

    def forward(self, x_BTNE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, N, E) to (B, T, N, E)."""
        if $IS_FIRST:
            others = [$resized(expand(x_BTNE), x_BTNE) for expand in self.expand]
            x_BTNE = torch.stack([x_BTNE, *others], dim=2)
        maps_BTNN = self.prediction(self.modalities(x_BTNE[:, :, 0])).unflatten(-1, ($STREAMS, -1))
        x_BTNE = x_BTNE + maps_BTNN @ x_BTNE
        y_BTE = self.block(x_BTNE[:, :, 0], positions_T, cache)
        factors_BTN = self.correction(self.modalities(y_BTE)) + 1
        x_BTNE = x_BTNE + factors_BTN[..., None] * (y_BTE - x_BTNE[:, :, 0])[:, :, None]
        #if embedded
        #if correct_scale
        scaled_BTE = x_BTNE[:, :, 0] * self.correct_scale
        added_BTE = self.embedding(scaled_BTE, cache["layer_input"])
        #else
        added_BTE = self.embedding(x_BTNE[:, :, 0], cache["layer_input"])
        #end
        x_BTNE = torch.cat((x_BTNE[:, :, :1], x_BTNE[:, :, 1:] + added_BTE[:, :, None]), dim=2)
        #end
        if $IS_LAST:
            first_BTE, *others_BTE = x_BTNE.unbind(dim=2)
            maps = zip(self.merge, others_BTE, strict=True)
            merged = [$resized(merge(x_BTE), first_BTE) for merge, x_BTE in maps]
            return torch.stack([first_BTE, *merged]).mean(dim=0)
        return x_BTNE

    def modalities(self, x_BTE: Tensor) -> Tensor:
        """Return the numbers from which the small maps are computed, (B, T, E) to (B, T, N)."""
        return torch.tanh(self.router(self.router_norm(x_BTE) / D_MODEL))
'''

_RESIZED = '''
def $class_name(y_BTE: Tensor, x_BTE: Tensor) -> Tensor:
    """Return y with the root mean square of x."""
    size_BT1 = x_BTE.square().mean(dim=-1, keepdim=True).sqrt()
    own_BT1 = y_BTE.square().mean(dim=-1, keepdim=True).clamp(min=1e-5).sqrt()  # not 0
    return y_BTE * size_BT1 / own_BT1
'''


def altup(spec: AltUpSpec, context: WritingContext) -> Written:
    """Return the block as a class, which is the same for all layers."""
    index = context.parts.index
    embeds = spec.d_embedding is not None
    parts = {
        "router_norm": written(context.parts.norm, context, dim=Name("D_MODEL")),
        "block": written(spec.block, context),
        **({"embedding": layer_embedding(spec, context)} if embeds else {}),
        "resized": Written("resized", fill(_RESIZED), section="block"),
    }
    text = fill(
        _BLOCK,
        embedded=embeds,
        correct_scale=embeds and spec.correct_scale,
        router=linear(context, "D_MODEL", "$STREAMS", bias=False),
        map=linear(context, "D_MODEL", "D_MODEL", bias=False),
    )
    return Written(
        "AltUpBlock",
        text,
        settings={
            "STREAMS": Setting(spec.streams, "residual streams"),
            "IS_FIRST": Setting(index == 0, "whether the layer creates the streams"),
            "IS_LAST": Setting(index == context.n_layers - 1, "whether the layer merges the streams"),
        },
        parts=parts,
        calls={"streams": str(spec.streams)},
        shared=layer_inputs(spec, context) if embeds else {},
        section="block",
        fields=(*FIELDS, "streams", "clip", "correct_scale", "block"),
    )
