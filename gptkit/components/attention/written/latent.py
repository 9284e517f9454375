"""Template of `latent`, which `sparse-latent` uses too."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from gptkit.components.attention.written.parts import (
    append_to,
    attend,
    causal_mask,
    head_gate,
    position_parts,
    relative_position,
)
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.latent import LatentSpec

__all__ = ["latent"]

_CLASS = '''
class $class_name(nn.Module):
    #if indexer
    """Multi-head latent attention to the keys that an indexer gives the highest scores.

    Keys and values of all heads come from one small vector. Only this vector, a rotated key, which
    the heads share, and the key of the indexer are kept in the cache.
    """
    #else
    """Multi-head latent attention: keys and values of all heads come from one small vector.

    Only this vector and a rotated key, which the heads share, are kept in the cache.
    """
    #end

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
        #if output_gate
        self.gate = $output_gate
        #end
        #if sinks
        self.sinks = nn.Parameter(torch.zeros($N_HEADS))  # a logit that takes a share of attention
        #end
        #if head_gate
        self.head_gate = $head_gate
        #end
        #if indexer
        self.indexer = $indexer
        #end
        #if position
        self.position = $position
        #end

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        #if indexer_rank
        q_BTC = $q_latent
        q_BTX = self.q_up(q_BTC)
        #elif q_rank
        q_BTX = self.q_up($q_latent)
        #else
        q_BTX = self.q_up(x_BTE)
        #end
        q_BHTD = q_BTX.reshape(*q_BTX.shape[:2], $N_HEADS, -1).transpose(1, 2)
        q_BHTU, q_BHTR = torch.split(q_BHTD, [$D_NOPE, $D_SHARED], dim=-1)  # without position, with
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
        latent_B1SC = append_to(cache, "latents", $kv_latent[:, None])
        k_B1SR = append_to(cache, "keys", k_B1TR)
        kv_BSHX = self.kv_up(latent_B1SC[:, 0]).unflatten(-1, ($N_HEADS, -1))
        k_BHSU, v_BHSD = kv_BSHX.transpose(1, 2).split(($D_NOPE, $D_VALUE), dim=-1)
        q_BHTD = torch.cat((q_BHTU, q_BHTR), dim=-1)
        k_BHSD = torch.cat((k_BHSU, k_B1SR.expand(-1, $N_HEADS, -1, -1)), dim=-1)
        mask_TS = $mask
        #if indexer_rank
        scores_B1TS = self.indexer(x_BTE, q_BTC, positions_T, cache).masked_fill(~mask_TS, -torch.inf)
        #elif indexer
        scores_B1TS = self.indexer(x_BTE, x_BTE, positions_T, cache).masked_fill(~mask_TS, -torch.inf)
        #end
        #if indexer
        # The keys with the highest scores; of equal ones, the first.
        order_B1TS = scores_B1TS.sort(dim=-1, descending=True, stable=True).indices[..., :$TOP_K]
        chosen_B1TS = torch.zeros_like(scores_B1TS, dtype=torch.bool).scatter(-1, order_B1TS, True)
        #if passed_on
        cache.shared["chosen"] = chosen_B1TS  # for layers without an indexer
        #end
        mask_B1TS = mask_TS & chosen_B1TS
        #elif previous
        mask_B1TS = mask_TS & cache.shared["chosen"]  # by the last layer with an indexer
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
    "sinks",
)


def latent(
    spec: LatentSpec,
    context: WritingContext,
    *,
    indexer: Written | None = None,
    previous: bool = False,
    passed_on: bool = False,
    top_k: int | None = None,
    fields: Collection[str] = (),
) -> Written:
    """Return the attention as a class. Several and single tokens are computed in the same way, with expanded keys.

    Args:
        indexer: the class that scores keys; None if queries attend to all that the mask allows.
        previous: whether queries attend to the keys that the last layer with an indexer chose.
        passed_on: whether later layers use the choice of this one.
        top_k: number of keys that a query attends to, with an indexer.
        fields: further fields of the spec that are written.
    """
    assert spec.n_heads is not None
    assert spec.kv_rank is not None
    position, sometimes = relative_position(context, HeadShape(spec.n_heads, 1, spec.d_rotary))
    if sometimes:
        raise NotWrittenError(
            f"attention {spec.name!r} cannot be written out if only some layers have a position",
            hint="Set the same position for all layers.",
        )
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
    d_query = "$N_HEADS * ($D_NOPE + $D_SHARED)"
    if spec.q_rank is not None:
        settings["Q_RANK"] = Setting(spec.q_rank, "features of the vector that queries are computed from")
        parts["q_latent_norm"] = written(spec.norm, context, dim=Name("$Q_RANK"))
    if indexer is not None:
        parts["indexer"] = indexer
        settings["TOP_K"] = Setting(top_k, "keys that a query attends to, those with the highest scores")
    parts["kv_latent_norm"] = written(spec.norm, context, dim=Name("$KV_RANK"))
    if spec.rotary_norm is not None:
        parts["rotary_norm"] = written(spec.rotary_norm, context, dim=Name("$D_SHARED"))
    q_latent, kv_latent = "self.q_latent_norm(self.q_down(x_BTE))", "self.kv_latent_norm(latent_BTC)"
    if spec.scale_latents:
        q_latent, kv_latent = f"{q_latent} * (D_MODEL / $Q_RANK) ** 0.5", f"({kv_latent} * (D_MODEL / $KV_RANK) ** 0.5)"
    text = fill(
        _CLASS,
        q_rank=spec.q_rank is not None,
        q_latent=q_latent,
        kv_latent=kv_latent,
        rotary_norm=spec.rotary_norm is not None,
        position="position" in parts,
        indexer=indexer is not None,
        indexer_rank=indexer is not None and spec.q_rank is not None,
        previous=previous,
        passed_on=passed_on,
        q_down=linear(context, "D_MODEL", "$Q_RANK", bias=spec.bias),
        q_up=linear(context, "D_MODEL" if spec.q_rank is None else "$Q_RANK", d_query, bias=False),
        kv_down=linear(context, "D_MODEL", "$KV_RANK + $D_SHARED", bias=spec.bias),
        projection=linear(context, "$N_HEADS * $D_VALUE", "D_MODEL", bias=spec.bias),
        head_gate=linear(context, "D_MODEL", "$N_HEADS", bias=False) if spec.head_gate else "",
        output_gate=linear(context, "D_MODEL", "$N_HEADS * $D_VALUE", bias=False) if spec.output_gate else "",
        sinks=spec.sinks,
        mask=mask_call,
        **calls,
    )
    attended = attend(position, scale=scale, dropout=spec.dropout, sinks=spec.sinks)
    text += attended.replace("mask_TS", "mask_B1TS") if indexer is not None or previous else attended
    text += head_gate("sigmoid" if spec.head_gate else None)
    gate = " * torch.sigmoid(self.gate(x_BTE))" if spec.output_gate else ""
    text += f"        return self.output(y_BHTD.transpose(1, 2).flatten(2){gate})\n"
    fields = (*_FIELDS, *fields)
    return Written("Attention", text, settings=settings, parts=parts, section="attention", variant=spec.name, fields=fields)
