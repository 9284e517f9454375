"""Template of the router `hash`. Its loss, which applies in training only, is not written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.router.written.scored import FUNCTIONS, SHORT
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.router.hashed import HashSpec

__all__ = ["hashed"]

_CLASS = '''
class $class_name(nn.Module):
    """Experts of each token by its id; weights are $formula."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if normed
        self.norm = $norm
        #end
        self.scores = nn.Linear(D_MODEL, $N_EXPERTS$no_bias)
        #if table
        self.table = nn.Buffer(torch.zeros(VOCAB_SIZE, $EXPERTS_PER_TOKEN, dtype=torch.int64))
        #end

    def forward(self, x_NE: Tensor, ids_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return experts and their weights, (N, E) and (N,) to (N, K) and (N, K)."""
        logits_NX = F.linear($scored, self.scores.weight.float()$bias)
        scores_NX = $scores
        #if table
        experts_NK = self.table[ids_N]
        #else
        experts_NK = $hashed_experts(ids_N, $N_EXPERTS, $EXPERTS_PER_TOKEN, $HASH_SEED)
        #end
        weights_NK = scores_NX.gather(1, experts_NK)
        #if renormalize
        total_N1 = weights_NK.sum(dim=-1, keepdim=True) + 1e-20  # never 0
        weights_NK = $scaled / total_N1
        #elif scale
        weights_NK = $scaled
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


def hashed(spec: HashSpec, context: WritingContext, n_experts: int) -> Written:
    """Return the router as a class, whose `forward` also receives the token ids."""
    settings = {
        "N_EXPERTS": Setting(n_experts, "experts of a layer"),
        "EXPERTS_PER_TOKEN": Setting(spec.k, "experts that a token uses"),
    }
    scored = "x_NE.float()" if spec.norm is None else "self.norm(x_NE).float()"
    if spec.score_scale != 1:
        scored = f"$SCORE_SCALE * {scored}"
        value = Name("D_MODEL**-0.5") if spec.score_scale == context.d_model**-0.5 else spec.score_scale
        settings["SCORE_SCALE"] = Setting(value, "factor of the router's scores")
    if spec.scale != 1:
        settings["ROUTER_SCALE"] = Setting(spec.scale, "factor of the weights of a token's experts")
    parts = {} if spec.norm is None else {"norm": written(spec.norm, context, dim=Name("D_MODEL"))}
    if not spec.table:
        settings["HASH_SEED"] = Setting(0 if context.layer is None else context.layer.index, "seed of the hash, the layer")
        parts["hashed_experts"] = Written("hashed_experts", fill(_HASH), section="feedforward")
    formula = f"{SHORT.get(spec.score, spec.score)}({'W x' if spec.norm is None else 'W norm(x)'})"
    text = fill(
        _CLASS,
        formula=formula + (", renormalized" if spec.renormalize else ""),
        normed=spec.norm is not None,
        table=spec.table,
        scored=scored,
        scores=FUNCTIONS[spec.score],
        no_bias="" if spec.bias else ", bias=False",
        bias=", self.scores.bias.float()" if spec.bias else "",
        renormalize=spec.renormalize,
        scale=spec.scale != 1,
        scaled="weights_NK" if spec.scale == 1 else "$ROUTER_SCALE * weights_NK",
    )
    fields = ("k", "bias", "norm", "score_scale", "balance_loss", "z_loss", "score", "renormalize", "scale", "table")
    return Written("HashRouter", text, settings=settings, parts=parts, section="feedforward", fields=fields)
