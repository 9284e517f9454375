"""Template of the router `hash`. Its loss, which applies in training only, is not written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gptkit.components.router.scored import GroupedRouterSpec
from gptkit.components.router.written.functions import FUNCTIONS, SHORT
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.router.hashed import HashSpec
    from gptkit.ops.routing import ExpertScore

__all__ = ["hashed", "hashes_in_other_layers"]

_CLASS = '''
class $class_name(nn.Module):
    """$summary; weights are $formula."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if normed
        self.norm = $norm
        #end
        self.scores = nn.Linear(D_MODEL, $N_EXPERTS$no_bias)
        #if either
        #if $BY_ID
        self.table = nn.Buffer(torch.zeros(VOCAB_SIZE, $EXPERTS_PER_TOKEN, dtype=torch.int64))
        #else
        self.selection_bias = nn.Parameter(torch.zeros($N_EXPERTS), requires_grad=False)
        #end
        #elif table
        self.table = nn.Buffer(torch.zeros(VOCAB_SIZE, $EXPERTS_PER_TOKEN, dtype=torch.int64))
        #end

    def forward(self, x_NE: Tensor, ids_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return experts and their weights, (N, E) and (N,) to (N, K) and (N, K)."""
        scores_NX = $scores
        #if either
        #if $BY_ID
        experts_NK = self.table[ids_N]
        #else
        experts_NK = (scores_NX + self.selection_bias).topk($EXPERTS_PER_TOKEN, dim=-1).indices
        #end
        #elif table
        experts_NK = self.table[ids_N]
        #else
        experts_NK = $hashed_experts(ids_N, $N_EXPERTS, $EXPERTS_PER_TOKEN, $HASH_SEED)
        #end
        weights_NK = scores_NX.gather(1, experts_NK)
        #if renormalize
        weights_NK = $normalized
        #elif scale
        weights_NK = $ROUTER_SCALE * weights_NK
        #end
        return experts_NK, weights_NK.to(x_NE.dtype)
'''

_HASH = '''
def $class_name(ids_N: Tensor, n_experts: int, k: int, seed: int) -> Tensor:
    """Return k distinct experts of each token id, those with the largest hashes, (N,) to (N, K)."""
    experts_X = torch.arange(n_experts, device=ids_N.device)
    hashed_NX = ids_N[:, None] * n_experts + experts_X + seed * 1103515245
    for _ in range(3):
        hashed_NX = (hashed_NX % (2**31 - 1) * 1103515245 + 69621) % (2**31 - 1)
        hashed_NX = hashed_NX * hashed_NX % (2**31 - 1)
    return (hashed_NX * n_experts + experts_X).topk(k, dim=-1).indices
'''


def hashed(
    spec: HashSpec | GroupedRouterSpec, context: WritingContext, n_experts: int, score: ExpertScore, *, table: bool = True
) -> Written:
    """Return the router as a class, whose `forward` also receives the token ids.

    Args:
        spec: the router; one that does not read ids is in the class that `hashes_in_other_layers`.
        score: the function of the scores.
        table: whether experts are looked up in a table, not by a hash.
    """
    settings = {
        "N_EXPERTS": Setting(n_experts, "experts of a layer"),
        "EXPERTS_PER_TOKEN": Setting(spec.k, "experts that a token uses"),
    }
    either = hashes_in_other_layers(spec, context)
    if either:
        settings["BY_ID"] = Setting(spec.reads_ids, "whether the ids of tokens determine their experts")
    scored = "x_NE.float()" if spec.norm is None else "self.norm(x_NE).float()"
    if spec.score_scale != 1:
        scored = f"$SCORE_SCALE * {scored}"
        value = Name("D_MODEL**-0.5") if spec.score_scale == context.d_model**-0.5 else spec.score_scale
        settings["SCORE_SCALE"] = Setting(value, "factor of the router's scores")
    if spec.scale != 1:
        settings["ROUTER_SCALE"] = Setting(spec.scale, "factor of the weights of a token's experts")
    parts = {} if spec.norm is None else {"norm": written(spec.norm, context, dim=Name("D_MODEL"))}
    if not table:
        settings["HASH_SEED"] = Setting(0 if context.layer is None else context.layer.index, "seed of the hash, the layer")
        parts["hashed_experts"] = Written("hashed_experts", fill(_HASH), section="feedforward")
    formula = f"{SHORT.get(score, score)}({'W x' if spec.norm is None else 'W norm(x)'})"
    normalized = "F.normalize(weights_NK, p=1, dim=-1, eps=1e-20)"
    bias = ", self.scores.bias.float()" if spec.bias else ""
    text = fill(
        _CLASS,
        summary="Experts by token id or balanced score" if either else _SUMMARY,
        formula=formula + (", renormalized" if spec.renormalize else ""),
        normed=spec.norm is not None,
        either=either,
        table=table,
        scores=FUNCTIONS[score].replace("logits_NX", f"F.linear({scored}, self.scores.weight.float(){bias})"),
        no_bias="" if spec.bias else ", bias=False",
        renormalize=spec.renormalize,
        scale=spec.scale != 1,
        normalized=normalized if spec.scale == 1 else f"$ROUTER_SCALE * {normalized}",
    )
    name = "Router" if either else "HashRouter"
    return Written(name, text, settings=settings, parts=parts, section="feedforward", variant="Hash", fields=_FIELDS)


_SUMMARY = "Experts of each token by its id"
_FIELDS = ("k", "bias", "norm", "score_scale", "balance_loss", "z_loss", "score", "renormalize", "scale", "table")


def hashes_in_other_layers(spec: HashSpec | GroupedRouterSpec, context: WritingContext) -> bool:
    """Return whether a model's mixtures have routers that read a table and routers with scores, alike in all else.

    Such routers are one class.
    """
    mixtures = [layer.feedforward for layer in context.layers if hasattr(layer.feedforward, "router")]
    routers = [mixture.router for mixture in mixtures]
    inner = [getattr(mixture, name, None) for mixture in mixtures for name in ("expert", "shared")]
    others = [*inner, *(layer.attention for layer in context.layers)]
    if spec not in routers or any(hasattr(other, "router") for other in others):
        return False
    forms = [_form(router) for router in routers]
    return None not in forms and len(set(map(repr, forms))) == 1 and len({router.reads_ids for router in routers}) == 2


def _form(router: Any) -> tuple[Any, ...] | None:
    """Return what routers of one class have in common; None for one that has no such class."""
    if router.reads_ids:
        if router.name != "hash" or not router.table:
            return None
        score = router.score
    else:
        plain = isinstance(router, GroupedRouterSpec) and router.top_groups == router.n_groups
        plain = plain and not router.expert_scale and not router.always
        biased = plain and (router.selection_bias or router.bias_rate > 0)
        if not biased or getattr(router, "selects_by", "score") == "logit":
            return None
        score = router.name
    return (score, router.k, router.bias, router.norm, router.score_scale, router.renormalize, router.scale)
