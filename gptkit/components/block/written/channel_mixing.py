"""Template of block `channel-mixing`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.block.written.forms import with_arguments
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.block.channel_mixing import ChannelMixingSpec

__all__ = ["channel_mixing"]

_CLASS = '''
class $class_name(nn.Module):
    """One layer: attention, then feed-forward on mixtures with the previous token, with a gate."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_norm = $attention_norm
        self.attention = $attention
        self.feedforward_norm = $feedforward_norm
        self.mix = nn.Parameter(torch.zeros(2, D_MODEL))  # shares of the current token
        self.receptance = $receptance
        self.feedforward = $feedforward

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        mixed_BTE = self.attention(self.attention_norm(x_BTE), positions_T, cache)
        x_BTE = x_BTE + $mixed
        u_BTE = self.feedforward_norm(x_BTE)
        last_B1E = cache.get("last_normed", u_BTE.new_zeros(len(u_BTE), 1, D_MODEL))
        previous_BTE = torch.cat((last_B1E, u_BTE[:, :-1]), dim=1)
        cache["last_normed"] = u_BTE[:, -1:]
        for_k, for_r = (torch.lerp(previous_BTE, u_BTE, mix_E) for mix_E in self.mix)
        fed_BTE = self.feedforward(for_k)
        fed_BTE = torch.sigmoid(self.receptance(for_r)) * fed_BTE
        return x_BTE + $fed
'''


def channel_mixing(spec: ChannelMixingSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    norm = {"dim": Name("D_MODEL")}
    parts = {
        "attention_norm": written(context.parts.norm, context, **norm),
        "attention": written(context.parts.attention, context),
        "feedforward_norm": written(context.parts.norm, context, **norm),
        "feedforward": written(context.parts.feedforward, context),
    }
    settings, dropped = {}, "{}"
    if spec.dropout:
        settings["BLOCK_DROPOUT"] = Setting(spec.dropout, "share of each branch's output dropped in training")
        dropped = "F.dropout({}, $BLOCK_DROPOUT, self.training)"
    text = fill(
        with_arguments(_CLASS, parts["feedforward"]),
        receptance=linear(context, "D_MODEL", "D_MODEL", bias=False),
        mixed=dropped.format("mixed_BTE"),
        fed=dropped.format("fed_BTE"),
    )
    return Written("Block", text, settings=settings, parts=parts, section="block", fields=("dropout",))
