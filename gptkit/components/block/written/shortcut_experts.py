"""Template of block `shortcut-experts`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.block.shortcut_experts import ShortcutExpertsSpec

__all__ = ["shortcut_experts"]

_BLOCK = '''
class $class_name(nn.Module):
    """Two attentions, each with a feed-forward, and experts beside the second half."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_norm = nn.ModuleList($attention_norm for _ in range(2))
        self.attention = nn.ModuleList($attention for _ in range(2))
        self.feedforward_norm = nn.ModuleList($feedforward_norm for _ in range(2))
        self.feedforward = nn.ModuleList($feedforward for _ in range(2))
        self.experts = $experts

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        mixed_BTE = self.attention[0](self.attention_norm[0](x_BTE), positions_T, cache.part("first"))
        x_BTE = x_BTE + $mixed
        h_BTE = self.feedforward_norm[0](x_BTE)
        routed_BTE = $routed
        fed_BTE = $first
        x_BTE = x_BTE + $fed
        mixed_BTE = self.attention[1](self.attention_norm[1](x_BTE), positions_T, cache.part("second"))
        x_BTE = x_BTE + $mixed
        fed_BTE = $second
        y_BTE: Tensor = x_BTE + $fed + $experts_output
        return y_BTE
'''


def shortcut_experts(spec: ShortcutExpertsSpec, context: WritingContext) -> Written:
    """Return the block as a class.

    Raises:
        NotWrittenError: the second attention uses the first one's keys and values, and so has other weights.
    """
    if getattr(context.parts.attention, "reuse_kv", False):
        raise NotWrittenError(
            f"block {spec.name!r} cannot be written out with an attention that reuses keys and values",
            hint="Set attention.reuse_kv: false in the layers of this block.",
        )
    parts = {
        name: written(context.parts.norm, context, dim=Name("D_MODEL")) for name in ("attention_norm", "feedforward_norm")
    }
    parts["attention"] = written(context.parts.attention, context)
    parts["feedforward"] = written(context.parts.feedforward, context)
    parts["experts"] = written(spec.experts, context)
    settings = {}
    if spec.dropout:
        settings["BLOCK_DROPOUT"] = Setting(spec.dropout, "share of each branch's output dropped in training")

    def dropped(branch: str) -> str:
        return f"F.dropout({branch}, $BLOCK_DROPOUT, self.training)" if spec.dropout else branch

    def call(part: str, module: str, x: str) -> str:
        apply = parts[part].calls.get("apply", "self.feedforward($x)")
        return apply.replace("self.feedforward", f"self.{module}").replace("$x", x)

    return Written(
        "ShortcutExpertsBlock",
        fill(
            _BLOCK,
            mixed=dropped("mixed_BTE"),
            fed=dropped("fed_BTE"),
            experts_output=dropped("routed_BTE"),
            routed=call("experts", "experts", "h_BTE"),
            first=call("feedforward", "feedforward[0]", "h_BTE"),
            second=call("feedforward", "feedforward[1]", "self.feedforward_norm[1](x_BTE)"),
        ),
        settings=settings,
        parts=parts,
        section="block",
        fields=("experts", "dropout"),
        calls={"times attention": "2", "times feedforward": "2"},
    )
