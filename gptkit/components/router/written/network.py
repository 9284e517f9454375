"""Template of the router `network`. Its losses, which apply in training only, are not written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.router.written.functions import FUNCTIONS, SHORT
from gptkit.core.walk import components
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.router.network import NetworkSpec

__all__ = ["network"]

_CLASS = '''
class $class_name(nn.Module):
    """Choose experts by a network: weights are the largest of $formula(network(norm(r))), r = W x.

    #if shares
    To its own r, a layer adds that of the previous layer, scaled.
    #else
    The network has an activation after each hidden layer.
    #end
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        self.down = nn.Linear(D_MODEL, $D_ROUTER$no_hidden_bias)
        self.norm = $norm
        self.hidden = nn.ModuleList(nn.Linear($D_ROUTER, $D_ROUTER$no_hidden_bias) for _ in range($ROUTER_LAYERS))
        #if activation
        self.activation = $activation
        #end
        self.scores = nn.Linear($D_ROUTER, $N_EXPERTS$no_bias)
        #if shares
        #if $READS_PREVIOUS
        self.previous_scale = nn.Parameter(torch.ones($D_ROUTER))
        #end
        #end
        #if selection_bias
        self.selection_bias = nn.Parameter(torch.zeros($chosen_from), requires_grad=False)
        #end
        #if expert_scale
        self.expert_scale = nn.Parameter(torch.ones($N_EXPERTS))
        #end

    #if shares
    def forward(self, x_NE: Tensor, shared: dict[Any, Any]) -> tuple[Tensor, Tensor]:
    #else
    def forward(self, x_NE: Tensor) -> tuple[Tensor, Tensor]:
    #end
        """Return the experts of each token and their weights, (N, E) to (N, K) and (N, K)."""
        r_NR = self.applied(self.down, x_NE.float())
        #if shares
        #if $READS_PREVIOUS
        r_NR = r_NR + self.previous_scale.float() * shared["router"]
        #end
        shared["router"] = r_NR
        #end
        h_NR = self.norm(r_NR)
        for layer in self.hidden:
            h_NR = $activated
        logits_NX = $logits
        scores_NX = $scores
        #if always
        ranked_NX = scores_NX[:, :-$ALWAYS_CHOSEN]  # every token has the other experts
        #else
        ranked_NX = scores_NX
        #end
        #if selection_bias
        ranked_NX = ranked_NX + self.selection_bias  # balances the load
        #end
        #if groups
        grouped_NGX = ranked_NX.view(len(ranked_NX), $N_GROUPS, -1)  # only the best groups are kept
        #if two
        best_NG = grouped_NGX.topk(2, dim=-1).values.sum(dim=-1)
        #else
        best_NG = grouped_NGX.amax(dim=-1)
        #end
        others_NG = torch.ones_like(best_NG).scatter(1, best_NG.topk($TOP_GROUPS, dim=-1).indices, 0)
        ranked_NX = grouped_NGX.masked_fill(others_NG[..., None] > 0, -torch.inf).flatten(1)
        #end
        experts_NK = ranked_NX.topk($EXPERTS_PER_TOKEN, dim=-1).indices
        #if always
        always_X = torch.arange(ranked_NX.shape[1], scores_NX.shape[1], device=x_NE.device)
        experts_NK = torch.cat((experts_NK, always_X.expand(len(experts_NK), -1)), dim=1)
        #end
        weights_NK = scores_NX.gather(1, experts_NK)
        #if renormalize
        weights_NK = weights_NK / (weights_NK.sum(dim=-1, keepdim=True) + 1e-20)  # never 0
        #end
        #if scale
        weights_NK = $ROUTER_SCALE * weights_NK
        #end
        #if expert_scale
        weights_NK = weights_NK * self.expert_scale[experts_NK]
        #end
        return experts_NK, weights_NK.to(x_NE.dtype)

    def applied(self, layer: Any, x_NR: Tensor) -> Tensor:
        """Apply a projection in fp32, since rounding could change the chosen experts."""
        #if any_bias
        bias_R = None if layer.bias is None else layer.bias.float()
        return F.linear(x_NR.float(), layer.weight.float(), bias_R)
        #else
        return F.linear(x_NR.float(), layer.weight.float())
        #end
'''

_FIELDS = (
    "k bias norm score_scale balance_loss z_loss renormalize scale expert_scale always n_groups top_groups selection_bias "
    "bias_rate group_score d_hidden hidden_layers activation hidden_bias reads_previous score"
)


def network(spec: NetworkSpec, context: WritingContext, n_experts: int) -> Written:
    """Return the router as a class; with `reads_previous`, its `forward` has what layers share in a call as an argument."""
    activation = written(spec.activation, context)
    parts = {"norm": written(spec.norm, context, dim=Name("$D_ROUTER"))}
    if activation.text or activation.expression:
        parts["activation"] = activation
    settings = {
        "N_EXPERTS": Setting(n_experts, "experts of a layer"),
        "EXPERTS_PER_TOKEN": Setting(spec.k, "experts that a token uses"),
        "D_ROUTER": Setting(spec.d_hidden, "features of the network that chooses experts"),
        "ROUTER_LAYERS": Setting(spec.hidden_layers, "hidden layers of this network"),
    }
    groups = spec.top_groups < spec.n_groups
    if groups:
        settings["N_GROUPS"] = Setting(spec.n_groups, "groups of experts")
        settings["TOP_GROUPS"] = Setting(spec.top_groups, "groups that a token's experts are chosen from")
    if spec.always:
        settings["ALWAYS_CHOSEN"] = Setting(spec.always, "last experts, which every token uses besides")
    if spec.scale != 1:
        settings["ROUTER_SCALE"] = Setting(spec.scale, "factor of the weights of a token's experts")
    if spec.score_scale != 1:
        settings["SCORE_SCALE"] = Setting(spec.score_scale, "factor of the router's scores")
    if spec.reads_previous:
        _require_previous(spec, context)
        first = context.layer is None or context.layer.index == 0
        settings["READS_PREVIOUS"] = Setting(not first, "whether a router adds the vectors of the previous layer's")
    scaled = "$SCORE_SCALE * h_NR" if spec.score_scale != 1 else "h_NR"
    text = fill(
        _CLASS,
        formula=SHORT.get(spec.score, spec.score),
        shares=spec.reads_previous,
        no_hidden_bias="" if spec.hidden_bias else ", bias=False",
        no_bias="" if spec.bias else ", bias=False",
        any_bias=spec.bias or spec.hidden_bias,
        activation="activation" in parts and not activation.is_function,
        activated=activation.call("apply", x="self.applied(layer, h_NR)"),
        logits=f"self.applied(self.scores, {scaled})",
        scores=FUNCTIONS[spec.score],
        selection_bias=spec.selection_bias or spec.bias_rate > 0,
        expert_scale=spec.expert_scale,
        always=spec.always > 0,
        chosen_from="$N_EXPERTS - $ALWAYS_CHOSEN" if spec.always else "$N_EXPERTS",
        groups=groups,
        two=spec.group_score == "top-2-sum",
        renormalize=spec.renormalize,
        scale=spec.scale != 1,
    )
    calls = {"apply": "self.router(x_NE, cache.shared)"} if spec.reads_previous else {}
    return Written(
        "Router",
        text,
        settings=settings,
        parts=parts,
        calls=calls,
        section="feedforward",
        variant="Network",
        fields=_FIELDS.split(),
    )


def _require_previous(spec: NetworkSpec, context: WritingContext) -> None:
    """Refuse models in which a layer does not receive the vectors of the one before it.

    Raises:
        NotWrittenError: the previous layer has another router, or blocks contain others, which may not pass vectors on.
    """
    layers = {layer.index: layer for layer in context.layers}
    index = 0 if context.layer is None else context.layer.index
    before = layers.get(index - 1)
    router = None if before is None else getattr(before.feedforward, "router", None)
    follows = getattr(router, "reads_previous", False) and getattr(router, "d_hidden", None) == spec.d_hidden
    nested = any(path and isinstance(inner, BlockSpec) for block in context.blocks for path, inner in components(block))
    if (index > 0 and not follows) or nested:
        what = "blocks contain others" if nested else f"layer {index - 1} has no such router"
        raise NotWrittenError(
            f"router {spec.name!r} cannot be written out with reads_previous where {what}",
            hint="Give all layers the same router, in blocks without others inside, or set reads_previous: false.",
        )
