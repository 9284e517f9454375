"""Templates of `mlp` and `gated`, alone and as the experts of a mixture."""

from __future__ import annotations

import dataclasses
from statistics import NormalDist
from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, number, written

if TYPE_CHECKING:
    from gptkit.components.feedforward.gated import GatedSpec
    from gptkit.components.feedforward.mlp import MLPSpec

__all__ = ["gated", "gated_experts", "mlp", "mlp_experts"]

_CLASS = '''
class $class_name(nn.Module):
    """$description: $formula."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if experts
        $up_name = torch.empty($N_EXPERTS, $d_up, D_MODEL).uniform_(-1, 1) * D_MODEL**-0.5
        down = torch.empty($N_EXPERTS, D_MODEL, $D_EXPERT).uniform_(-1, 1) * $D_EXPERT**-0.5
        #end
        #if gated
        self.$up_name = $up  # the gate's rows come first
        #else
        self.$up_name = $up
        #end
        #if activation
        self.activation = $activation
        #end
        #if hidden_norm
        self.hidden_norm = $hidden_norm  # over all hidden features
        #end
        self.down = $down

    #if experts
    def forward(self, x_ME: Tensor, expert: int) -> Tensor:
        """Apply one expert to tokens, (M, E) to (M, E)."""
    #else
    def forward(self, x_BTE: Tensor$addition) -> Tensor:
        """Transform each token, (B, T, E) to (B, T, E)."""
    #end
'''

_MLP = """
        #if adds
        up_BTF = self.up(x_BTE) + added_BTX
        #end
        hidden_BTF = $activated
        #if dropout
        hidden_BTF = F.dropout(hidden_BTF, $FEEDFORWARD_DROPOUT, self.training)
        #end
        return self.down(hidden_BTF)
"""

_GATED = """
        gate_BTF, up_BTF = $projected.chunk(2, dim=-1)
        #if gate_scale
        gate_BTF = $gate_scale * gate_BTF
        #end
        #if $CUTOFF
        # Features below mean + cutoff · deviation are 0 (1.645: 95 percent of them).
        deviation, mean = torch.std_mean(gate_BTF, dim=-1, correction=0, keepdim=True)
        gate_BTF = F.relu(gate_BTF - mean - $CUTOFF * deviation)
        #end
        #if clamp
        gate_BTF, up_BTF = gate_BTF.clamp(max=$clamp), up_BTF.clamp(-$clamp, $clamp)  # no outliers
        #end
        #if up_softcap
        up_BTF = $up_softcap * torch.tanh(up_BTF / $up_softcap)  # a soft bound
        #end
        #if hidden_norm
        hidden_BTF = self.hidden_norm($activated * $factor)
        #if dropout
        hidden_BTF = F.dropout(hidden_BTF, $FEEDFORWARD_DROPOUT, self.training)
        #end
        #elif dropout
        hidden_BTF = F.dropout($activated * $factor, $FEEDFORWARD_DROPOUT, self.training)
        #elif output_scale
        hidden_BTF = $activated * $factor
        #end
        #if output_scale
        y_BTE = self.down(hidden_BTF)
        return $output_scale * y_BTE
        #elif stored
        return self.down(hidden_BTF)
        #else
        return self.down($activated * $factor)
        #end
"""

_FIELDS = ("activation", "expansion", "d_hidden", "bias", "dropout")


def mlp(spec: MLPSpec, context: WritingContext) -> Written:
    """Return the feed-forward as a class."""
    return _mlp(spec, context, 0)


def mlp_experts(spec: MLPSpec, context: WritingContext, n_experts: int) -> Written:
    """Return the experts, with stacked weights, as a class."""
    return _mlp(spec, context, n_experts)


def gated(spec: GatedSpec, context: WritingContext) -> Written:
    """Return the feed-forward as a class."""
    return _gated(spec, context, 0)


def gated_experts(spec: GatedSpec, context: WritingContext, n_experts: int) -> Written:
    """Return the experts, with stacked weights, as a class."""
    return _gated(spec, context, n_experts)


def _mlp(spec: MLPSpec, context: WritingContext, n_experts: int) -> Written:
    activation = written(spec.activation, context)
    adds = context.adds and not n_experts
    activated = activation.call("apply", x="up_BTF" if adds else "self.up(x_BTE)")
    body = fill(_MLP, dropout=bool(spec.dropout), activated=activated, adds=adds)
    formula = "y = W_down · f(W_up x)"
    return _class(spec, context, body, activation, "up", "$D_HIDDEN", formula, n_experts, *_FIELDS)


def _gated(spec: GatedSpec, context: WritingContext, n_experts: int) -> Written:
    activation = written(spec.activation, context)
    adds = context.adds and not n_experts
    body = fill(
        _GATED,
        projected="(self.gate_up(x_BTE) + added_BTX)" if adds else "self.gate_up(x_BTE)",
        dropout=bool(spec.dropout),
        hidden_norm=spec.hidden_norm is not None,
        stored=bool(spec.dropout) or spec.hidden_norm is not None,
        clamp=number(spec.clamp) if spec.clamp else "",
        up_softcap=f"{spec.up_softcap!r}" if spec.up_softcap else "",
        activated=activation.call("apply", x="gate_BTF"),
        factor=f"(up_BTF + {number(spec.up_offset)})" if spec.up_offset else "up_BTF",
        gate_scale=f"{spec.gate_scale!r}" if spec.gate_scale != 1 else "",
        output_scale=f"{spec.output_scale!r}" if spec.output_scale != 1 else "",
    )
    formula = "y = W_down · (f(W_gate x) ⊙ W_up x)"
    fields = (
        *_FIELDS,
        "multiple_of",
        "clamp",
        "up_softcap",
        "up_offset",
        "gate_scale",
        "output_scale",
        "sparsity",
        "hidden_norm",
    )
    result = _class(spec, context, body, activation, "gate_up", "2 * $D_HIDDEN", formula, n_experts, *fields)
    cutoff = NormalDist().inv_cdf(spec.sparsity) if spec.sparsity else None
    comment = f"deviations above the mean at which features begin: {spec.sparsity:g} of a normal distribution is below"
    return dataclasses.replace(result, settings={**result.settings, "CUTOFF": Setting(cutoff, comment)})


def _class(
    spec: MLPSpec | GatedSpec,
    context: WritingContext,
    body: str,
    activation: Written,
    up_name: str,
    d_up: str,
    formula: str,
    n_experts: int,
    *fields: str,
) -> Written:
    kind = "gated " if up_name == "gate_up" else ""
    hidden = Setting(spec.hidden(context), f"features of the hidden layer{' of an expert' if n_experts else ''}")
    settings = {"D_EXPERT" if n_experts else "D_HIDDEN": hidden}
    if spec.dropout:
        settings["FEEDFORWARD_DROPOUT"] = Setting(spec.dropout, "share of hidden features dropped in training")
    parts = {"activation": activation} if activation.text or activation.expression else {}
    hidden_norm = getattr(spec, "hidden_norm", None)
    if hidden_norm is not None:
        parts["hidden_norm"] = written(hidden_norm, context, dim=Name("$D_HIDDEN"))
    if n_experts:
        settings["N_EXPERTS"] = Setting(n_experts, "experts of a layer")
        up, down = (_stacked(name, size, spec.bias) for name, size in ((up_name, d_up), ("down", "D_MODEL")))
        for name in ("up", "gate_up", "down"):
            body = _with_expert(body, name, spec.bias)
        body = body.replace("BTE", "ME").replace("BTF", "MF")
    else:
        up = linear(context, "D_MODEL", d_up, bias=spec.bias)
        down = linear(context, "$D_HIDDEN", "D_MODEL", bias=spec.bias)
    start = fill(
        _CLASS,
        description=f"Experts, each a {kind}feed-forward" if n_experts else f"{kind}feed-forward".capitalize(),
        gated=bool(kind),
        formula=formula,
        experts=bool(n_experts),
        up_name=up_name,
        up=up,
        down=down,
        d_up=d_up,
        activation="activation" in parts and not activation.is_function,
        hidden_norm="hidden_norm" in parts,
        addition=", added_BTX: Tensor" if context.adds else "",
    )
    text = start + body
    if n_experts:
        text = text.replace("$D_HIDDEN", "$D_EXPERT")
    name = "Experts" if n_experts else "FeedForward"
    variant = spec.name.title()
    calls = {"addition widths": f"({(2 if kind else 1) * spec.hidden(context)},)"} if context.adds and not n_experts else {}
    return Written(
        name, text, settings=settings, parts=parts, calls=calls, section="feedforward", variant=variant, fields=fields
    )


def _stacked(name: str, d_out: str, bias: bool) -> str:
    """Return the expression of the weights of all experts, which are named as those of a projection."""
    biases = f', "bias": torch.zeros($N_EXPERTS, {d_out})' if bias else ""
    return f'nn.ParameterDict({{"weight": {name}{biases}}})'


def _with_expert(body: str, name: str, bias: bool) -> str:
    """Return a body in which the projection of this name is that of one expert."""
    call = f"self.{name}("
    first = body.find(call)
    if first < 0:
        return body
    depth, index = 1, first + len(call)
    while depth:
        depth += {"(": 1, ")": -1}.get(body[index], 0)
        index += 1
    weights = ", ".join(f'self.{name}["{each}"][expert]' for each in ("weight", *(["bias"] if bias else [])))
    return f"{body[:first]}F.linear({body[first + len(call) : index - 1]}, {weights}){body[index:]}"
