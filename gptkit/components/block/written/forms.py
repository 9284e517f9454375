"""Templates of the blocks, which differ in the places of norms and shortcuts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, written
from gptkit.kinds.written_convolution import short_convolution

if TYPE_CHECKING:
    from gptkit.components.block.deep_norm import DeepNormSpec
    from gptkit.components.block.output_norm import OutputNormSpec
    from gptkit.components.block.parallel import ParallelSpec
    from gptkit.components.block.post_norm import PostNormSpec
    from gptkit.components.block.pre_norm import PreNormSpec
    from gptkit.components.block.sandwich import SandwichSpec
    from gptkit.components.block.single_branch import SingleBranchSpec
    from gptkit.kinds.norm import NormSpec

__all__ = [
    "deep_norm",
    "output_norm",
    "parallel",
    "post_norm",
    "pre_norm",
    "sandwich",
    "scale_of_output",
    "single_branch",
    "with_arguments",
]

_START = '''
class $class_name(nn.Module):
    """$description"""

    def __init__(self$parameters) -> None:
        super().__init__()
'''

_FORWARD = '''
    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
'''

_PRE_NORM = """
        #if unnormed_attention
        mixed_BTE = self.attention(x_BTE, positions_T, cache)
        #else
        mixed_BTE = self.attention(self.attention_norm(x_BTE), positions_T, cache)
        #end
        #if output_conv
        start_BTE = cache.get("mixed", mixed_BTE.new_zeros(len(x_BTE), $OUTPUT_CONV - 1, D_MODEL))
        mixed_BTE, cache["mixed"] = $short_convolution(mixed_BTE, self.attention_conv, start_BTE)
        #end
        #if output_norm
        mixed_BTE = self.attention_output_norm(mixed_BTE)
        #end
        #if stream_norm
        x_BTE = self.attention_stream_norm(x_BTE)
        #end
        x_BTE = $added_mixed
        fed_BTE = self.feedforward(self.feedforward_norm(x_BTE))
        #if output_conv
        start_BTE = cache.get("fed", fed_BTE.new_zeros(len(x_BTE), $OUTPUT_CONV - 1, D_MODEL))
        fed_BTE, cache["fed"] = $short_convolution(fed_BTE, self.feedforward_conv, start_BTE)
        #end
        #if output_norm
        fed_BTE = self.feedforward_output_norm(fed_BTE)
        #end
        #if stream_norm
        x_BTE = self.feedforward_stream_norm(x_BTE)
        #end
        return $added_fed
"""

_CONV = "nn.Conv1d(D_MODEL, D_MODEL, $OUTPUT_CONV, groups=D_MODEL, bias=False)"

_POST_NORM = """
        mixed_BTE = self.attention(x_BTE, positions_T, cache)
        x_BTE = self.attention_norm($added_mixed)
        fed_BTE = self.feedforward(x_BTE)
        return self.feedforward_norm($added_fed)
"""

_SANDWICH = """
        mixed_BTE = self.attention(self.attention_norm(x_BTE), positions_T, cache)
        mixed_BTE = self.attention_output_norm(mixed_BTE)
        x_BTE = $added_mixed
        #if unnormed
        fed_BTE = self.feedforward_output_norm(self.feedforward(x_BTE))
        #else
        fed_BTE = self.feedforward(self.feedforward_norm(x_BTE))
        fed_BTE = self.feedforward_output_norm(fed_BTE)
        #end
        #if output_scale
        return ($added_fed) * self.output_scale
        #else
        return $added_fed
        #end
"""

_OUTPUT_NORM = """
        mixed_BTE = self.attention_output_norm(self.attention(x_BTE, positions_T, cache))
        x_BTE = $added_mixed
        fed_BTE = self.feedforward_output_norm(self.feedforward(x_BTE))
        return $added_fed
"""

_PARALLEL = """
        normed_BTE = self.attention_norm(x_BTE)
        mixed_BTE = self.attention(normed_BTE, positions_T, cache)
        #if two_norms
        fed_BTE = self.feedforward(self.feedforward_norm(x_BTE))
        #else
        fed_BTE = self.feedforward(normed_BTE)
        #end
        #if dropout
        mixed_BTE = F.dropout(mixed_BTE, $BLOCK_DROPOUT, self.training)
        fed_BTE = F.dropout(fed_BTE, $BLOCK_DROPOUT, self.training)
        #end
        #if scaled
        return x_BTE + $RESIDUAL_SCALE * (mixed_BTE + fed_BTE)
        #else
        return x_BTE + mixed_BTE + fed_BTE
        #end
"""

_ATTENTION_BRANCH = """
        mixed_BTE = self.attention(self.attention_norm(x_BTE), positions_T, cache)
        return $added_mixed
"""

_FEEDFORWARD_BRANCH = """
        fed_BTE = self.feedforward(self.feedforward_norm(x_BTE))
        return $added_fed
"""


def pre_norm(spec: PreNormSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    description = "One layer: attention, then feed-forward, each after a norm and with a shortcut around it."
    if not spec.shortcut:
        description = "One layer: attention, then feed-forward, each after a norm, without shortcuts."
    parts = [*(["attention_norm"] if spec.attention_input_norm else []), "attention", "feedforward_norm", "feedforward"]
    fields = ["residual_scale", "shortcut", "attention_input_norm", "feedforward_norm"]
    fields += ["output_norm", "stream_norm", "output_conv"]
    norms = {} if spec.feedforward_norm is None else {"feedforward_norm": spec.feedforward_norm}
    for place, norm in (("output", spec.output_norm), ("stream", spec.stream_norm)):
        if norm is not None:
            norms |= {f"{branch}_{place}_norm": norm for branch in ("attention", "feedforward")}
    parts += [name for name in norms if name not in parts]
    return _block(
        context,
        description,
        parts,
        _PRE_NORM,
        spec.dropout,
        spec.residual_scale,
        shortcut=spec.shortcut,
        norms=norms,
        output_conv=spec.output_conv,
        fields=fields,
    )


def post_norm(spec: PostNormSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    description = "One layer: attention, then feed-forward, each with a shortcut and a norm of the sum."
    parts = ["attention", "attention_norm", "feedforward", "feedforward_norm"]
    return _block(context, description, parts, _POST_NORM, spec.dropout, spec.residual_scale)


def deep_norm(spec: DeepNormSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    description = "One layer (DeepNorm): attention, then feed-forward, each with a shortcut and a norm."
    parts = ["attention", "attention_norm", "feedforward", "feedforward_norm"]
    fields = ("alpha", "beta", "residual_scale", "feedforward_alpha", "feedforward_residual_scale")
    assert spec.feedforward_residual_scale is not None
    factors = (spec.alpha, spec.residual_scale), (spec.feedforward_alpha, spec.feedforward_residual_scale)
    if factors[0] == factors[1]:
        alpha = Setting(spec.alpha, "factor of the shortcuts")
        return _block(context, description, parts, _POST_NORM, spec.dropout, spec.residual_scale, alpha=alpha, fields=fields)
    settings: dict[str, Setting] = {}
    added: list[str] = []
    branches = (("mixed_BTE", "ATTENTION", "attention"), ("fed_BTE", "FEEDFORWARD", "feed-forward"))
    for (branch, prefix, name), (shortcut, scale) in zip(branches, factors, strict=True):
        settings[f"{prefix}_ALPHA"] = Setting(shortcut, f"factor of the shortcut around the {name}")
        settings[f"{prefix}_RESIDUAL_SCALE"] = Setting(scale, f"factor of the {name} before it is added")
        value = f"F.dropout({branch}, $BLOCK_DROPOUT, self.training)" if spec.dropout else branch
        added.append(f"${prefix}_ALPHA * x_BTE + ${prefix}_RESIDUAL_SCALE * {value}")
    result = _block(context, description, parts, _POST_NORM, spec.dropout, 1.0, added=added, fields=fields)
    return dataclasses.replace(result, settings={**result.settings, **settings})


def sandwich(spec: SandwichSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    description = "One layer: attention, then feed-forward, each between two norms and with a shortcut."
    parts = ["attention_norm", "attention", "attention_output_norm"]
    normed = ["feedforward_norm"] if spec.feedforward_input_norm else []
    parts += [*normed, "feedforward", "feedforward_output_norm"]
    fields = ("residual_scale", "output_scale", "feedforward_input_norm", "depth_scaled")
    return _block(
        context,
        description,
        parts,
        _SANDWICH,
        spec.dropout,
        spec.residual_scale,
        output_scale=spec.output_scale,
        depth_scaled=spec.depth_scaled,
        fields=fields,
    )


def output_norm(spec: OutputNormSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    description = "One layer: attention, then feed-forward; the output of each is normalized, then added."
    parts = ["attention", "attention_output_norm", "feedforward", "feedforward_output_norm"]
    return _block(context, description, parts, _OUTPUT_NORM, spec.dropout, spec.residual_scale)


def parallel(spec: ParallelSpec, context: WritingContext) -> Written:
    """Return the block as a class."""
    two = spec.norms == 2
    fields = ("residual_scale", "norms")
    description = "One layer: attention and feed-forward, in parallel, with a shortcut around both."
    parts = ["attention_norm", "attention", *(["feedforward_norm"] if two else []), "feedforward"]
    return _block(context, description, parts, _PARALLEL, spec.dropout, spec.residual_scale, two_norms=two, fields=fields)


def single_branch(spec: SingleBranchSpec, context: WritingContext) -> Written:
    """Return the block as a class of its branch."""
    attends = spec.branch == "attention"
    what = f"after a norm, with{'' if spec.shortcut else 'out'} a shortcut."
    name, description = "FeedForwardBlock", f"One layer: feed-forward {what}"
    if attends:
        name, description = "AttentionBlock", f"One layer: attention {what}"
    body = _ATTENTION_BRANCH if attends else _FEEDFORWARD_BRANCH
    fields = ("residual_scale", "branch", "shortcut")
    parts = [f"{spec.branch}_norm", spec.branch]
    return _block(
        context,
        description,
        parts,
        body,
        spec.dropout,
        spec.residual_scale,
        shortcut=spec.shortcut,
        fields=fields,
        name=name,
    )


def _block(
    context: WritingContext,
    description: str,
    names: list[str],
    body: str,
    dropout: float,
    residual_scale: float,
    *,
    shortcut: bool = True,
    two_norms: bool = False,
    alpha: Setting | None = None,
    added: Sequence[str] = (),
    output_scale: str | None = None,
    depth_scaled: bool = False,
    norms: Mapping[str, NormSpec] = MappingProxyType({}),
    output_conv: int | None = None,
    fields: Collection[str] = ("residual_scale",),
    name: str = "Block",
) -> Written:
    settings: dict[str, Setting] = {}
    if dropout:
        settings["BLOCK_DROPOUT"] = Setting(dropout, "share of each branch's output dropped in training")
    if residual_scale != 1:
        settings["RESIDUAL_SCALE"] = Setting(residual_scale, "factor of each branch before it is added")
    if alpha is not None:
        settings["ALPHA"] = alpha
    if depth_scaled:
        settings["LAYER"] = Setting(context.parts.index, "index of the layer")

    def sum_with(branch: str, n_terms: int) -> str:
        value = f"F.dropout({branch}, $BLOCK_DROPOUT, self.training)" if dropout else branch
        value = f"$RESIDUAL_SCALE * {value}" if residual_scale != 1 else value
        if not shortcut:
            return value
        if depth_scaled:  # the stream is a sum of this many terms, and of two for each earlier layer, divided by its root
            return f"(math.sqrt(2 * $LAYER + {n_terms - 1}) * x_BTE + {value}) / math.sqrt(2 * $LAYER + {n_terms})"
        return f"$ALPHA * x_BTE + {value}" if alpha is not None else f"x_BTE + {value}"

    assignments = "".join(f"        self.{part} = ${part}\n" for part in names)
    filled = fill(
        body,
        two_norms=two_norms,
        dropout=bool(dropout),
        scaled=residual_scale != 1,
        output_scale=output_scale is not None,
        unnormed="feedforward_norm" not in names,
        unnormed_attention="attention_norm" not in names,
        output_norm="attention_output_norm" in names,
        output_conv=output_conv is not None,
        stream_norm="attention_stream_norm" in names,
        added_mixed=added[0] if added else sum_with("mixed_BTE", 2),
        added_fed=added[1] if added else sum_with("fed_BTE", 3),
    )
    if output_scale is not None:
        assignments += f"        self.output_scale = {scale_of_output(output_scale)}\n"
    parts = {part: _part(part, context, norms) for part in names}
    if output_conv is not None:
        settings["OUTPUT_CONV"] = Setting(output_conv, "tokens of the convolutions of the branches' outputs")
        parts["short_convolution"] = short_convolution
        assignments += "".join(f"        self.{branch}_conv = {_CONV}\n" for branch in ("attention", "feedforward"))
    if "feedforward" in parts:
        filled = with_arguments(filled, parts["feedforward"])
    text = fill(_START, description=description) + assignments + "\n" + fill(_FORWARD) + filled
    return Written(name, text, settings=settings, parts=parts, section="block", fields=("dropout", *fields))


def with_arguments(text: str, feedforward: Written) -> str:
    """Return the source of a block whose calls of the feed-forward have all arguments that this one needs."""
    call = feedforward.calls.get("apply", "")
    if not call:
        return text
    return re.sub(r"self\.feedforward\(((?:self\.\w+\(\w+\))|\w+)\)", lambda match: call.replace("$x", match[1]), text)


def scale_of_output(kind: str) -> str:
    """Return the expression of the factor of a block's output, which is fixed or learned."""
    return f"nn.Parameter(torch.ones(1){'' if kind == 'learned' else ', requires_grad=False'})"


def _part(name: str, context: WritingContext, norms: Mapping[str, NormSpec]) -> Written:
    if name.endswith("norm"):
        return written(norms.get(name, context.parts.norm), context, dim=Name("D_MODEL"))
    return written(context.parts.attention if name == "attention" else context.parts.feedforward, context)
