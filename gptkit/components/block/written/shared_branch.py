"""Template of block `shared-branch`. The branch is a module of the model, which the layers of a group call."""

from __future__ import annotations

import ast
import dataclasses
from typing import TYPE_CHECKING

from gptkit.components.block.written.forms import with_arguments
from gptkit.core.resolution import in_context
from gptkit.core.walk import components
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import LayerParts
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.block.shared_branch import SharedBranchSpec

__all__ = ["shared_branch"]

_ADAPTER = '''
class $class_name(nn.Module):
    """What a layer adds to a projection of a shared branch: low-rank maps, one for each part."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.down = $down
        self.up = nn.ModuleList($up for width in $WIDTHS)

    def forward(self, x_BTY: Tensor) -> Tensor:
        """Map the input of a projection to what is added to its output, (B, T, Y) to (B, T, X)."""
        narrow = self.down(x_BTY).split($RANK, dim=-1)
        return torch.cat([up(part) for up, part in zip(self.up, narrow, strict=True)], dim=-1)
'''

_BRANCH = '''
class $class_name(nn.Module):
    """Attention, then a feed-forward, each after a norm, with weights that several layers share."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.attention_norm = $attention_norm
        self.attention = $attention
        self.feedforward_norm = $feedforward_norm
        self.feedforward = $feedforward

    def forward(self, x_BTY: Tensor, positions_T: Tensor, cache: dict[str, Tensor]$adapters) -> Tensor:
        """Transform the tokens at these positions, (B, T, Y) to (B, T, E)."""
        #if attention_rank
        x_BTY = self.attention_norm(x_BTY)
        x_BTE = self.attention(x_BTY, positions_T, cache, attention_adapter(x_BTY))
        #else
        x_BTE = self.attention(self.attention_norm(x_BTY), positions_T, cache)
        #end
        #if feedforward_rank
        x_BTE = self.feedforward_norm(x_BTE)
        return self.feedforward(x_BTE, feedforward_adapter(x_BTE))
        #else
        return self.feedforward(self.feedforward_norm(x_BTE))
        #end
'''

_BLOCK = '''
class $class_name(nn.Module):
    """Attention, whose input is the tokens plus the output of a shared branch (Zamba)."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.branch = ($branch,)  # in a tuple, since its weights are those of the model
        #if attention_rank
        self.attention_adapter = $attention_adapter
        #end
        #if feedforward_rank
        self.feedforward_adapter = $feedforward_adapter
        #end
        self.output = $output
        self.attention_norm = $norm
        self.attention = $attention

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        (branch,) = self.branch
        #if embedding
        x_BTY = torch.cat((x_BTE, cache.shared["embedded"]), dim=-1)
        #end
        h_BTE = branch($input, positions_T, cache.part("branch")$adapters)
        h_BTE = x_BTE + self.output(h_BTE)
        mixed_BTE = self.attention(self.attention_norm(h_BTE), positions_T, cache)
        #if dropout
        return x_BTE + F.dropout(mixed_BTE, $BLOCK_DROPOUT, self.training)
        #else
        return x_BTE + mixed_BTE
        #end
'''


def shared_branch(spec: SharedBranchSpec, context: WritingContext) -> Written:
    """Return the block as a class, whose branch belongs to the model."""
    branch = context.own(spec.share_key(context), lambda: _branch(spec, context))
    d_input = Name("2 * D_MODEL" if spec.embedding else "D_MODEL")
    parts = {
        "branch": branch,
        "norm": written(context.parts.norm, context, dim=Name("D_MODEL")),
        "attention": written(context.parts.attention, context),
    }
    if spec.attention_rank is not None:
        parts["attention_adapter"] = _adapter(context, d_input, spec.attention_rank, branch.parts["attention"])
    if spec.feedforward_rank is not None:
        width = Name("D_MODEL")
        parts["feedforward_adapter"] = _adapter(context, width, spec.feedforward_rank, branch.parts["feedforward"])
    text = fill(
        _BLOCK,
        attention_rank=spec.attention_rank is not None,
        feedforward_rank=spec.feedforward_rank is not None,
        adapters="".join(f", self.{name}" for name in parts if name.endswith("_adapter")),
        embedding=spec.embedding,
        input="x_BTY" if spec.embedding else "x_BTE",
        output=linear(context, "D_MODEL", "D_MODEL", bias=False),
        dropout=bool(spec.dropout),
    )
    settings = {"BLOCK_DROPOUT": Setting(spec.dropout, "share of each branch's output dropped in training")}
    fields = [name for name in type(spec).model_fields if name != "name"]
    return Written(
        "SharedBranchBlock",
        text,
        settings=settings if spec.dropout else {},
        parts=parts,
        section="block",
        variant="" if spec.embedding else "narrow",
        fields=fields,
    )


def _branch(spec: SharedBranchSpec, context: WritingContext) -> Written:
    # A branch has a position of its own, so it is written beside the attentions of other branches, not of layers.
    inner = context.replace(shared={}, layers=_attending(spec, context))
    attention, feedforward = (
        written(
            getattr(spec, field),
            spec.inner_context(field, inner).replace(adds=getattr(spec, f"{field}_rank") is not None),
        )
        for field in ("attention", "feedforward")
    )
    adapters = [field for field in ("attention", "feedforward") if getattr(spec, f"{field}_rank") is not None]
    text = fill(
        _BRANCH,
        attention_rank="attention" in adapters,
        feedforward_rank="feedforward" in adapters,
        adapters="".join(f", {name}_adapter: nn.Module" for name in adapters),
    )
    d_input = Name("2 * D_MODEL" if spec.embedding else "D_MODEL")
    norm = context.parts.norm
    return Written(
        "Branch",
        with_arguments(text, feedforward),
        parts={
            "attention_norm": written(norm, context, dim=d_input),
            "attention": attention,
            "feedforward_norm": written(norm, context, dim=Name("D_MODEL")),
            "feedforward": feedforward,
        },
        section="block",
        variant="" if spec.embedding else "narrow",
    )


def _attending(spec: SharedBranchSpec, context: WritingContext) -> list[LayerParts]:
    """Return the parts of all branches of the model, one for each attention in them."""
    blocks = [part for block in context.blocks for _, part in components(block) if isinstance(part, type(spec))]
    result = []
    for index, branch in enumerate(blocks):
        inner = branch.inner_context("attention", context)
        inner = inner.replace(layer=dataclasses.replace(inner.layer, index=index))
        specs = list(in_context(branch.attention, inner))
        within = [
            dataclasses.replace(each.parts, attention=part)
            for path, part, each in specs
            if path and isinstance(part, AttentionSpec)
        ]
        result += within or [inner.parts]
    return result


def _adapter(context: WritingContext, d_input: Name, rank: int, part: Written) -> Written:
    """Return the adapter of a part of the branch.

    Raises:
        NotWrittenError: the part has no template with an addition.
    """
    if "addition widths" not in part.calls:
        raise NotWrittenError(
            f"{part.section} {part.name} cannot be written out with an adapter: its template adds nothing to its projection",
            hint="Remove the rank of block 'shared-branch', or choose another component for its branch.",
        )
    text = fill(
        _ADAPTER,
        down=linear(context, "$D_INPUT", "$RANK * len($WIDTHS)", bias=False),
        up=linear(context, "$RANK", "width", bias=False),
    )
    settings = {
        "D_INPUT": Setting(d_input),
        "RANK": Setting(rank, "rank of the adapters"),
        "WIDTHS": Setting(ast.literal_eval(part.calls["addition widths"]), "features of each part of an adapted projection"),
    }
    return Written("Adapter", text, settings=settings, parts={}, section="block")
