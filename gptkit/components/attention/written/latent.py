"""Template of `latent`, which `sparse-latent` uses too."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from gptkit.components.attention.written.parts import (
    any_indexer,
    append_to,
    attend,
    causal_mask,
    common_position,
    head_gate,
    position_parts,
)
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.latent import LatentSpec

__all__ = ["latent"]

_CLASS = '''
class $class_name(nn.Module):
    """Multi-head latent attention: keys and values of all heads come from one small vector.

    Only this vector and a rotated key, which the heads share, are kept in the cache.
    #if indexed
    An indexer, which keeps keys of its own, chooses the keys that a query attends to.
    #if follows
    Layers without an indexer attend to the keys that the last one chose.
    #end
    #end
    """

    def __init__(self$parameters) -> None:
        super().__init__()
        #if q_rank
        self.q_down = $q_down
        self.q_latent_norm = $q_latent_norm
        #end
        self.q_up = $q_up
        self.kv_down = $kv_down
        self.kv_latent_norm = $kv_latent_norm
        #if rotary_norm
        self.rotary_norm = $rotary_norm
        #end
        self.kv_up = nn.Linear($KV_RANK, $N_HEADS * ($D_NOPE + $D_VALUE), bias=False)
        self.output = $projection
        #if own_gate
        self.gate = $own_gate
        #end
        #if sinks
        self.sinks = nn.Parameter(torch.zeros($N_HEADS))  # a logit that takes a share of attention
        #end
        #if head_gate
        self.head_gate = $head_gate
        #end
        #if indexed
        #if $SPARSE
        self.indexer = $indexer
        #end
        #end
        #if position
        self.position = $position
        #end

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        #if reads_both
        down_BTC = self.q_down(x_BTE)
        q_BTC = $q_latent
        q_BTHD = self.q_up(torch.cat((q_BTC, down_BTC), dim=-1)).unflatten(-1, ($N_HEADS, -1))
        #else
        #if q_rank
        q_BTC = $q_latent
        #end
        q_BTHD = self.q_up($q_source).unflatten(-1, ($N_HEADS, -1))
        #end
        #if gate_of_queries
        q_BTHD, gate_BTHD = q_BTHD.split(($D_NOPE + $D_SHARED, $D_VALUE), dim=-1)
        #end
        q_BHTU, q_BHTR = q_BTHD.transpose(1, 2).split(($D_NOPE, $D_SHARED), dim=-1)
        #if unrotated
        q_BHTU = $unrotated
        #end
        latent_BTC, k_BTR = self.kv_down(x_BTE).split(($KV_RANK, $D_SHARED), dim=-1)
        #if rotary_norm
        k_BTR = self.rotary_norm(k_BTR)
        #end
        #if query
        q_BHTR = $query
        #end
        #if key
        k_B1TR = $key  # one head
        #else
        k_B1TR = k_BTR[:, None]  # one head
        #end
        #if scale_latents
        latent_BTC = self.kv_latent_norm(latent_BTC) * (D_MODEL / $KV_RANK) ** 0.5
        #end
        latent_B1SC = append_to(cache, "latents", $kv_latent[:, None])
        k_B1SR = append_to(cache, "keys", k_B1TR)
        kv_BSHX = self.kv_up(latent_B1SC[:, 0]).unflatten(-1, ($N_HEADS, -1))
        k_BHSU, v_BHSD = kv_BSHX.transpose(1, 2).split(($D_NOPE, $D_VALUE), dim=-1)
        q_BHTD = torch.cat((q_BHTU, q_BHTR), dim=-1)
        k_BHSD = torch.cat((k_BHSU, k_B1SR.expand(-1, $N_HEADS, -1, -1)), dim=-1)
        mask_TS = $mask
        #if indexed
        #if $SPARSE
        scores_B1TS = self.indexer(x_BTE, $q_source, positions_T, cache)
        scores_B1TS = scores_B1TS.masked_fill(~mask_TS, -torch.inf)
        # The keys with the highest scores; of equal ones, the first.
        order_B1TS = scores_B1TS.sort(dim=-1, descending=True, stable=True).indices[..., :$TOP_K]
        chosen_B1TS = torch.zeros_like(scores_B1TS).scatter(-1, order_B1TS, 1).bool()
        #if follows
        cache["chosen"] = chosen_B1TS  # for layers without an indexer
        #end
        #else
        #if follows
        chosen_B1TS = cache["chosen"]
        #else
        chosen_B1TS = torch.ones_like(mask_TS)  # all keys
        #end
        #end
        mask_B1TS = mask_TS & chosen_B1TS
        #end
'''

_FIELDS = (
    "n_heads",
    "kv_rank",
    "q_rank",
    "d_nope",
    "d_rotary",
    "d_value",
    "norm",
    "bias",
    "scale",
    "dropout",
    "window",
    "head_gate",
    "scale_latents",
    "rotary_norm",
    "output_gate",
    "gate_input",
    "query_latents",
    "sinks",
)


def latent(
    spec: LatentSpec,
    context: WritingContext,
    *,
    indexer: Written | None = None,
    follows: bool = False,
    top_k: int | None = None,
    fields: Collection[str] = (),
) -> Written:
    """Return the attention as a class. Several and single tokens are computed in the same way, with expanded keys.

    Args:
        indexer: the class that chooses the keys of a query; None in a layer without.
        follows: whether layers without an indexer attend to the keys that the last one chose, instead of all.
        top_k: number of keys that a query attends to, with an indexer.
        fields: further fields of the spec that are written.
    """
    assert spec.n_heads is not None
    assert spec.kv_rank is not None
    position = common_position(spec, context, HeadShape(spec.n_heads, 1, spec.d_rotary))
    mask, mask_call, settings = causal_mask(context, spec.window, None)
    parts = {"causal_mask": mask, "append_to": append_to}
    calls = {"query": "", "unrotated": "", "key": ""}
    if position is not None:
        parts |= position_parts(position)
        named = {"query": "q_BHTR", "unrotated": "q_BHTU", "key": "k_BTR[:, None]"}
        calls |= {purpose: position.call(purpose, x=named[purpose]) for purpose in named if purpose in position.calls}
    settings |= {
        "N_HEADS": Setting(spec.n_heads, "heads"),
        "KV_RANK": Setting(spec.kv_rank, "features of the vector that keys and values are computed from"),
        "D_NOPE": Setting(spec.d_nope, "features of a query and key without position"),
        "D_SHARED": Setting(spec.d_rotary, "features of a query and key with position"),
        "D_VALUE": Setting(spec.d_value, "features of a value"),
        "ATTENTION_SCALE": Setting(
            Name("($D_NOPE + $D_SHARED) ** -0.5") if spec.scale is None else spec.scale, "factor of the dot products"
        ),
    }
    scale = "$ATTENTION_SCALE"
    if spec.scale is None:
        settings.pop("ATTENTION_SCALE")
        scale = "($D_NOPE + $D_SHARED) ** -0.5"
    if spec.dropout:
        settings["ATTENTION_DROPOUT"] = Setting(spec.dropout, "share of the attention weights dropped in training")
    d_query = f"$N_HEADS * ($D_NOPE + $D_SHARED{' + $D_VALUE' if spec.d_gate else ''})"
    d_source = "D_MODEL" if spec.q_rank is None else "2 * $Q_RANK" if spec.reads_both else "$Q_RANK"
    if spec.q_rank is not None:
        settings["Q_RANK"] = Setting(spec.q_rank, "features of the vector that queries are computed from")
        parts["q_latent_norm"] = written(spec.norm, context, dim=Name("$Q_RANK"))
    # Layers without an indexer are written as those with one, so that one class serves both.
    indexed = any_indexer(spec, context)
    settings["SPARSE"] = Setting(indexer is not None, "whether an indexer chooses the keys of a query")
    if indexer is not None:
        parts["indexer"] = indexer
        settings["TOP_K"] = Setting(top_k, "keys that a query attends to, those with the highest scores")
    parts["kv_latent_norm"] = written(spec.norm, context, dim=Name("$KV_RANK"))
    if spec.rotary_norm is not None:
        parts["rotary_norm"] = written(spec.rotary_norm, context, dim=Name("$D_SHARED"))
    q_latent = f"self.q_latent_norm({'down_BTC' if spec.reads_both else 'self.q_down(x_BTE)'})"
    own_gate = spec.output_gate and not spec.d_gate
    text = fill(
        _CLASS,
        q_rank=spec.q_rank is not None,
        q_latent=f"{q_latent} * (D_MODEL / $Q_RANK) ** 0.5" if spec.scale_latents else q_latent,
        q_source="x_BTE" if spec.q_rank is None else "q_BTC",
        kv_latent="latent_BTC" if spec.scale_latents else "self.kv_latent_norm(latent_BTC)",
        scale_latents=spec.scale_latents,
        rotary_norm=spec.rotary_norm is not None,
        position="position" in parts,
        indexed=indexed,
        follows=follows,
        q_down=linear(context, "D_MODEL", "$Q_RANK", bias=spec.bias),
        q_up=linear(context, d_source, d_query, bias=False),
        reads_both=spec.reads_both,
        gate_of_queries=bool(spec.d_gate),
        kv_down=linear(context, "D_MODEL", "$KV_RANK + $D_SHARED", bias=spec.bias),
        projection=linear(context, "$N_HEADS * $D_VALUE", "D_MODEL", bias=spec.bias),
        head_gate=linear(context, "D_MODEL", "$N_HEADS", bias=False) if spec.head_gate else "",
        own_gate=linear(context, "D_MODEL", "$N_HEADS * $D_VALUE", bias=False) if own_gate else "",
        sinks=spec.sinks,
        mask=mask_call,
        **calls,
    )
    attended = attend(position, scale=scale, dropout=spec.dropout, sinks=spec.sinks)
    text += attended.replace("mask_TS", "mask_B1TS") if indexed else attended
    text += head_gate("sigmoid" if spec.head_gate else None)
    if spec.d_gate:
        text += "        y_BHTD = y_BHTD * torch.sigmoid(gate_BTHD).transpose(1, 2)\n"
    if own_gate:
        text += "        y_BTX = y_BHTD.transpose(1, 2).flatten(2) * torch.sigmoid(self.gate(x_BTE))\n"
    text += f"        return self.output({'y_BTX' if own_gate else 'y_BHTD.transpose(1, 2).flatten(2)'})\n"
    fields = (*_FIELDS, *fields)
    return Written("Attention", text, settings=settings, parts=parts, section="attention", variant=spec.name, fields=fields)
