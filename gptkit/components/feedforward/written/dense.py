"""Templates of `mlp` and `gated`, alone and as the experts of a mixture."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

from gptkit.kinds.written import Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.feedforward.gated import GatedSpec
    from gptkit.components.feedforward.mlp import MLPSpec

__all__ = ["gated", "gated_experts", "mlp", "mlp_experts"]

_CLASS = '''
class $class_name(nn.Module):
    """$description: $formula."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if gated
        self.$up_name = $up  # the gate's rows come first
        #else
        self.$up_name = $up
        #end
        #if activation
        self.activation = $activation
        #end
        self.down = $down

    #if experts
    def forward(self, x_ME: Tensor, expert: int) -> Tensor:
        """Apply one expert to tokens, (M, E) to (M, E)."""
    #else
    def forward(self, x_BTE: Tensor) -> Tensor:
        """Transform each token, (B, T, E) to (B, T, E)."""
    #end
'''

_MLP = """
        hidden_BTF = $activated
        #if dropout
        hidden_BTF = F.dropout(hidden_BTF, $FEEDFORWARD_DROPOUT, self.training)
        #end
        return self.down(hidden_BTF)
"""

_GATED = """
        gate_BTF, up_BTF = self.gate_up(x_BTE).chunk(2, dim=-1)
        #if gate_scale
        gate_BTF = $gate_scale * gate_BTF
        #end
        #if cutoff
        deviation, mean = torch.std_mean(gate_BTF, dim=-1, correction=0, keepdim=True)
        gate_BTF = F.relu(gate_BTF - mean - $cutoff * deviation)  # zero for $share of the features
        #end
        #if clamp
        gate_BTF, up_BTF = gate_BTF.clamp(max=$clamp), up_BTF.clamp(-$clamp, $clamp)
        #end
        #if dropout
        hidden_BTF = F.dropout($activated * $factor, $FEEDFORWARD_DROPOUT, self.training)
        #elif output_scale
        hidden_BTF = $activated * $factor
        #end
        #if output_scale
        y_BTE = self.down(hidden_BTF)
        return $output_scale * y_BTE
        #elif dropout
        return self.down(hidden_BTF)
        #else
        return self.down($activated * $factor)
        #end
"""

_STACKED_LINEAR = '''
class $class_name(nn.Module):
    """Projections of all experts, stacked: weight (X, outputs, inputs), bias (X, outputs)."""

    def __init__(self, n_experts: int, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_experts, d_out, d_in).uniform_(-1, 1) * d_in**-0.5)
        #if bias
        self.bias = nn.Parameter(torch.zeros(n_experts, d_out))
        #end

    def forward(self, x_MI: Tensor, expert: int) -> Tensor:
        """Apply the projection of one expert, (M, inputs) to (M, outputs)."""
        #if bias
        return F.linear(x_MI, self.weight[expert], self.bias[expert])
        #else
        return F.linear(x_MI, self.weight[expert])
        #end
'''

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
    body = fill(_MLP, dropout=bool(spec.dropout), activated=activation.call("apply", x="self.up(x_BTE)"))
    formula = "y = W_down · f(W_up x)"
    return _class(spec, context, body, activation, "up", "$D_HIDDEN", formula, n_experts, *_FIELDS)


def _gated(spec: GatedSpec, context: WritingContext, n_experts: int) -> Written:
    activation = written(spec.activation, context)
    body = fill(
        _GATED,
        dropout=bool(spec.dropout),
        clamp=f"{spec.clamp:g}" if spec.clamp else "",
        cutoff=repr(NormalDist().inv_cdf(spec.sparsity)) if spec.sparsity else "",
        share=f"{spec.sparsity:g}",
        activated=activation.call("apply", x="gate_BTF"),
        factor=f"(up_BTF + {spec.up_offset:g})" if spec.up_offset else "up_BTF",
        gate_scale=f"{spec.gate_scale!r}" if spec.gate_scale != 1 else "",
        output_scale=f"{spec.output_scale!r}" if spec.output_scale != 1 else "",
    )
    formula = "y = W_down · (f(W_gate x) ⊙ W_up x)"
    fields = (*_FIELDS, "multiple_of", "clamp", "up_offset", "gate_scale", "output_scale", "sparsity")
    return _class(spec, context, body, activation, "gate_up", "2 * $D_HIDDEN", formula, n_experts, *fields)


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
    if n_experts:
        settings["N_EXPERTS"] = Setting(n_experts, "experts of a layer")
        parts["stacked"] = Written("StackedLinear", fill(_STACKED_LINEAR, bias=spec.bias), section="feedforward")
        up, down = (f"$stacked_class($N_EXPERTS, {sizes})" for sizes in (f"D_MODEL, {d_up}", "$D_HIDDEN, D_MODEL"))
        for name, shaped in (("self.up(", "x_BTE"), ("self.gate_up(", "x_BTE"), ("self.down(", "")):
            body = _with_expert(body, name, shaped)
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
        activation="activation" in parts and not activation.is_function,
    )
    text = start + body
    if n_experts:
        text = text.replace("$D_HIDDEN", "$D_EXPERT")
    name = "Experts" if n_experts else "FeedForward"
    variant = spec.name.title()
    return Written(name, text, settings=settings, parts=parts, section="feedforward", variant=variant, fields=fields)


def _with_expert(body: str, call: str, argument: str) -> str:
    """Add the argument `expert` to the call that begins with `call`."""
    first = body.find(call)
    if first < 0:
        return body
    depth, index = 1, first + len(call)
    while depth:
        depth += {"(": 1, ")": -1}.get(body[index], 0)
        index += 1
    return body[: index - 1] + ", expert" + body[index - 1 :]
