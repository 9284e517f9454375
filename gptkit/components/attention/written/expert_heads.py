"""Template of `expert-heads`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.parts import (
    append_to,
    attend,
    causal_mask,
    common_position,
    position_calls,
    position_parts,
)
from gptkit.kinds.written import NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.expert_heads import ExpertHeadsSpec

__all__ = ["expert_heads"]

_START = '''
class $class_name(nn.Module):
    """Mixture of attention heads: a router chooses a few of many groups of heads for each token.

    All groups attend to the same keys and values.
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        d_heads = $N_KV_HEADS * $D_HEAD
        self.router = $router
        # The matrices of all experts, stacked: (experts, outputs, inputs).
        query = torch.empty($N_EXPERTS, d_heads, D_MODEL).uniform_(-1, 1) * D_MODEL**-0.5
        output = torch.empty($N_EXPERTS, D_MODEL, d_heads).uniform_(-1, 1) * d_heads**-0.5
        self.query = nn.ParameterDict({"weight": query})
        self.kv = $packed
        self.output = nn.ParameterDict({"weight": output})
        #if output_bias
        self.output_bias = nn.Parameter(torch.zeros(D_MODEL))
        #end
        #if position
        self.position = $position
        #end

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        x_NE = x_BTE.flatten(0, 1)
        #if reads_ids
        experts_NK, weights_NK = self.router(x_NE, cache.shared["ids"].flatten())
        #else
        experts_NK, weights_NK = self.router(x_NE)
        #end
        q_NKU = x_NE.new_zeros(*experts_NK.shape, $N_KV_HEADS * $D_HEAD)
        for expert in range($N_EXPERTS):
            tokens_M, choices_M = (experts_NK == expert).nonzero(as_tuple=True)
            q_MU = F.linear(x_NE[tokens_M], self.query["weight"][expert])
            q_NKU = q_NKU.index_put((tokens_M, choices_M), q_MU)
        # For each key head, the queries of all chosen experts.
        q_BTKHD = torch.unflatten(torch.unflatten(q_NKU, -1, (-1, $D_HEAD)), 0, x_BTE.shape[:2])
        q_BHTD = q_BTKHD.permute(0, 3, 2, 1, 4).flatten(1, 2)
        k_BTU, v_BTU = self.kv(x_BTE).chunk(2, dim=-1)
        k_BHTD = k_BTU.unflatten(-1, (-1, $D_HEAD)).transpose(1, 2)
        v_BHTD = v_BTU.unflatten(-1, (-1, $D_HEAD)).transpose(1, 2)
        #if both
        q_BHTD, k_BHTD = $both
        #end
        #if query
        q_BHTD = $query
        #end
        #if key
        k_BHTD = $key
        #end
        k_BHSD, v_BHSD = append_to(cache, "keys", k_BHTD), append_to(cache, "values", v_BHTD)
        mask_TS = $mask
'''

_END = """
        y_BTKHD = torch.unflatten(y_BHTD, 1, ($N_KV_HEADS, -1)).permute(0, 3, 2, 1, 4)
        y_NKU = y_BTKHD.reshape(*experts_NK.shape, -1)
        y_NE = torch.zeros_like(x_NE)
        for expert in range($N_EXPERTS):
            tokens_M, choices_M = (experts_NK == expert).nonzero(as_tuple=True)
            y_ME = F.linear(y_NKU[tokens_M, choices_M], self.output["weight"][expert])
            y_NE = y_NE.index_add(0, tokens_M, weights_NK[tokens_M, choices_M, None] * y_ME)
        #if output_bias
        return y_NE.view_as(x_BTE) + self.output_bias
        #else
        return y_NE.view_as(x_BTE)
        #end
"""

_FIELDS = ("n_experts", "router", "n_kv_heads", "d_head", "output_bias", "dropout", "window")


def expert_heads(spec: ExpertHeadsSpec, context: WritingContext) -> Written:
    """Return the attention as a class, and its router."""
    heads = spec.head_shape()
    position = common_position(spec, context, heads, together=True)
    mask, mask_call, settings = causal_mask(context, spec.window, None)
    parts = {
        "causal_mask": mask,
        "append_to": append_to,
        "router": written(spec.router, context, n_experts=spec.n_experts),
    }
    if "apply" in parts["router"].calls:
        raise NotWrittenError(
            f"attention {spec.name!r} cannot be written out with router {spec.router.name!r}, which "
            "reads those of other layers",
            hint="Set reads_previous: false.",
        )
    calls = position_calls(position)
    if position is not None:
        parts |= position_parts(position)
    settings |= {
        "N_EXPERTS": Setting(spec.n_experts, "experts of a layer"),
        "N_HEADS": Setting(heads.n_heads, "heads of a token, those of its experts"),
        "N_KV_HEADS": Setting(heads.n_kv_heads, "heads of keys and values, and of an expert"),
        "D_HEAD": Setting(heads.d_head, "features of a head"),
    }
    if spec.dropout:
        settings["ATTENTION_DROPOUT"] = Setting(spec.dropout, "share of the attention weights dropped in training")
    text = fill(
        _START,
        packed=linear(context, "D_MODEL", "2 * d_heads", bias=False),
        reads_ids=spec.router.reads_ids,
        output_bias=spec.output_bias,
        position="position" in parts,
        mask=mask_call,
        **calls,
    )
    repeats = heads.n_heads != heads.n_kv_heads
    text += attend(position, scale="", repeats=repeats, dropout=spec.dropout) + fill(_END, output_bias=spec.output_bias)
    return Written("Attention", text, settings=settings, parts=parts, section="attention", variant="Expert", fields=_FIELDS)
