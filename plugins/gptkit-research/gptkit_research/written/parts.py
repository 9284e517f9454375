"""What the templates of blocks share."""

from __future__ import annotations

from gptkit.kinds.written import Name, Setting, WritingContext, Written, written

__all__ = ["branch_parts", "dropped"]


def branch_parts(context: WritingContext) -> dict[str, Written]:
    """Return the norms, the attention and the feed-forward of a layer, by the names of its modules."""
    parts = context.parts
    norm = {"dim": Name("D_MODEL")}
    return {
        "attention_norm": written(parts.norm, context, **norm),
        "attention": written(parts.attention, context),
        "feedforward_norm": written(parts.norm, context, **norm),
        "feedforward": written(parts.feedforward, context),
    }


def dropped(share: float) -> tuple[dict[str, Setting], str, str]:
    """Return the settings of a block's dropout, and the expressions of its branches' outputs."""
    if not share:
        return {}, "mixed_BTE", "fed_BTE"
    settings = {"BLOCK_DROPOUT": Setting(share, "share of each branch's output dropped in training")}
    call = "F.dropout({}, $BLOCK_DROPOUT, self.training)"
    return settings, call.format("mixed_BTE"), call.format("fed_BTE")
