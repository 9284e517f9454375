"""Templates of the routers. Losses and noise, which apply in training only, are not written."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from gptkit.components.router.written.functions import FUNCTIONS, SHORT
from gptkit.components.router.written.hashed import hashed, hashes_in_other_layers
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.router.scored import GroupedRouterSpec, ScoredRouterSpec
    from gptkit.components.router.sparsemixer import SparsemixerSpec
    from gptkit.components.router.top_k_softmax import TopKSoftmaxSpec
    from gptkit.ops.routing import ExpertScore

__all__ = ["grouped", "sparsemixer", "top_k_softmax"]

_CLASS = '''
class $class_name(nn.Module):
    """Choose experts$how: $formula"""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if normed
        self.norm = $norm
        #end
        self.scores = nn.Linear(D_MODEL, $N_EXPERTS$no_bias)
        #if selection_bias
        self.selection_bias = nn.Parameter(torch.zeros($chosen_from), requires_grad=False)
        #end
        #if expert_scale
        self.expert_scale = nn.Parameter(torch.ones($N_EXPERTS))
        #end

    def forward(self, x_NE: Tensor) -> tuple[Tensor, Tensor]:
        """Return the experts of each token and their weights, (N, E) to (N, K) and (N, K)."""
        #if prepared
        scored_NE = $prepared
        #end
        $linear = F.linear($input, self.scores.weight.float()$bias)$function
        #if top_k_softmax
        best_NK, experts_NK = logits_NX.topk($EXPERTS_PER_TOKEN, dim=-1)
        weights_NK = best_NK.softmax(dim=-1)
        #elif sparsemixer
        left_NX, experts, weights = logits_NX, [], []
        for _ in range($EXPERTS_PER_TOKEN):
            best_N1, expert_N1 = left_NX.max(dim=-1, keepdim=True)
            distance_NX = (best_N1 - logits_NX) / logits_NX.abs().clamp(min=best_N1)
            near_NX = left_NX.masked_fill(distance_NX > 2 * $ROUTER_TOLERANCE, -torch.inf)
            experts.append(expert_N1)
            weights.append(near_NX.softmax(dim=-1).gather(1, expert_N1))
            left_NX = left_NX.scatter(1, expert_N1, -torch.inf)
        experts_NK, weights_NK = torch.cat(experts, dim=1), torch.cat(weights, dim=1)
        #else
        #if from_logits
        scores_NX = $scores
        #end
        #if selects
        #if always
        ranked_NX = $ranked[:, :-$ALWAYS_CHOSEN]  # every token has the other experts
        #if selection_bias
        ranked_NX = ranked_NX + self.selection_bias  # balances the load
        #end
        #elif selection_bias
        ranked_NX = $ranked + self.selection_bias  # balances the load
        #else
        ranked_NX = $ranked
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
        #else
        weights_NK, experts_NK = scores_NX.topk($EXPERTS_PER_TOKEN, dim=-1)
        #end
        #if renormalize
        total_N1 = weights_NK.sum(dim=-1, keepdim=True) + 1e-20  # never 0
        weights_NK = $scaled / total_N1
        #elif scale
        weights_NK = $scaled
        #end
        #if expert_scale
        weights_NK = weights_NK * self.expert_scale[experts_NK]
        #end
        #end
        return experts_NK, weights_NK.to(x_NE.dtype)
'''

_SCORED_FIELDS = ("k", "bias", "norm", "score_scale", "balance_loss", "z_loss")
_GROUPED_FIELDS = (
    "renormalize",
    "scale",
    "expert_scale",
    "always",
    "n_groups",
    "top_groups",
    "selection_bias",
    "bias_rate",
    "group_score",
)
_NO_GROUPS: dict[str, bool | str] = {
    **dict.fromkeys(
        ["selection_bias", "expert_scale", "selects", "always", "groups", "two", "from_logits", "renormalize", "scale"],
        False,
    ),
    "chosen_from": "$N_EXPERTS",
    "linear": "logits_NX",
    "function": "",
}


def grouped(
    spec: GroupedRouterSpec,
    context: WritingContext,
    n_experts: int,
    scores: ExpertScore,
    *,
    by_logit: bool = False,
    more: Collection[str] = (),
) -> Written:
    """Return a router whose weights are the largest of a function of all scores.

    Args:
        by_logit: whether experts are selected by W x, not by the function of it.
        more: further fields of the spec that are written.
    """
    if hashes_in_other_layers(spec, context):
        names = (*_SCORED_FIELDS, *_GROUPED_FIELDS, *more)
        return dataclasses.replace(hashed(spec, context, n_experts, scores), variant="", fields=names)
    groups = spec.top_groups < spec.n_groups
    selection_bias = spec.selection_bias or spec.bias_rate > 0
    function = FUNCTIONS[scores]
    method = function.removeprefix("logits_NX")  # of the product, where it is one
    from_logits = by_logit or method == function
    settings: dict[str, Setting] = {}
    if spec.scale != 1:
        settings["ROUTER_SCALE"] = Setting(spec.scale, "factor of the weights of a token's experts")
    if groups:
        settings["N_GROUPS"] = Setting(spec.n_groups, "groups of experts")
        settings["TOP_GROUPS"] = Setting(spec.top_groups, "groups that a token's experts are chosen from")
    if spec.always:
        settings["ALWAYS_CHOSEN"] = Setting(spec.always, "last experts, which every token uses besides")
    formula = f"weights are the largest of {SHORT.get(scores, scores)}(W x)" + (", renormalized" if spec.renormalize else "")
    return _router(
        spec,
        context,
        n_experts,
        formula,
        settings,
        (*_GROUPED_FIELDS, *more),
        how=" in the best groups" if groups else "",
        selection_bias=selection_bias,
        expert_scale=spec.expert_scale,
        selects=selection_bias or groups or by_logit or spec.always > 0,
        always=spec.always > 0,
        chosen_from="$N_EXPERTS - $ALWAYS_CHOSEN" if spec.always else "$N_EXPERTS",
        ranked="logits_NX" if by_logit else "scores_NX",
        groups=groups,
        two=spec.group_score == "top-2-sum",
        top_k_softmax=False,
        sparsemixer=False,
        from_logits=from_logits,
        linear="logits_NX" if from_logits else "scores_NX",
        function="" if from_logits else method,
        scores=function,
        renormalize=spec.renormalize,
        scale=spec.scale != 1,
        scaled="weights_NK" if spec.scale == 1 else "$ROUTER_SCALE * weights_NK",
    )


def top_k_softmax(spec: TopKSoftmaxSpec, context: WritingContext, n_experts: int) -> Written:
    """Return the router as a class."""
    formula = "weights are the softmax of the largest scores W x"
    return _router(spec, context, n_experts, formula, {}, (), how="", top_k_softmax=True, sparsemixer=False, **_NO_GROUPS)


def sparsemixer(spec: SparsemixerSpec, context: WritingContext, n_experts: int) -> Written:
    """Return the router as a class."""
    formula = "a weight is the softmax of scores W x near the largest one left"
    settings = {"ROUTER_TOLERANCE": Setting(spec.tolerance, "half the largest relative distance of near scores")}
    return _router(
        spec,
        context,
        n_experts,
        formula,
        settings,
        ("tolerance",),
        how="",
        top_k_softmax=False,
        sparsemixer=True,
        **_NO_GROUPS,
    )


def _router(
    spec: ScoredRouterSpec,
    context: WritingContext,
    n_experts: int,
    formula: str,
    settings: Mapping[str, Setting],
    fields: Collection[str],
    **values: bool | str,
) -> Written:
    scored = plain = "x_NE.float()"
    if spec.norm is not None:
        scored = "self.norm(x_NE).float()"
        formula = formula.replace("W x", "W norm(x)")
    if spec.score_scale != 1:
        scored = f"$SCORE_SCALE * {scored}"
        value = Name("D_MODEL**-0.5") if spec.score_scale == context.d_model**-0.5 else spec.score_scale
        settings = {**settings, "SCORE_SCALE": Setting(value, "factor of the router's scores")}
    text = fill(
        _CLASS,
        formula=f"{formula}.",
        normed=spec.norm is not None,
        prepared=scored if scored != plain else "",
        input="scored_NE" if scored != plain else plain,
        no_bias="" if spec.bias else ", bias=False",
        bias=", self.scores.bias.float()" if spec.bias else "",
        **values,
    )
    sizes = {
        "N_EXPERTS": Setting(n_experts, "experts of a layer"),
        "EXPERTS_PER_TOKEN": Setting(spec.k, "experts that a token uses"),
    }
    parts = {} if spec.norm is None else {"norm": written(spec.norm, context, dim=Name("D_MODEL"))}
    fields = [*_SCORED_FIELDS, *fields]
    return Written("Router", text, settings={**sizes, **settings}, parts=parts, section="feedforward", fields=fields)
