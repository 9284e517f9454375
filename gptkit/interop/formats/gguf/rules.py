"""Tensors of GGUF files and the native ones.

Native tensors have the same names in all models, so most architectures share their rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gptkit.interop.formats.gguf.layouts import (
    DECAYS,
    LATENT_HEADS,
    OFFSET,
    SQUEEZED,
    TURNED_HEADS,
    VECTOR,
    Tiled,
)
from gptkit.interop.layouts import GATED_HEADS, GATES_LAST, HALVES, HEADS, MIXED_RATES, SAME, Stack
from gptkit.kinds.family import Rule

__all__ = [
    "FUSED",
    "FUSED_GATE",
    "OFFSETS",
    "OFFSET_WEIGHTS",
    "POST_NORM",
    "QWEN_NEXT",
    "TURNED",
    "falcon",
    "latent",
    "linear",
    "plain",
    "with_rules",
]

Rules = Callable[[Any], Sequence[Rule]]

_COMMON = (
    Rule("embedding.table", "token_embd"),
    Rule("embedding.position.table", "position_embd"),
    Rule("blocks.*.attention_norm", "blk.*.attn_norm"),
    Rule("blocks.*.attention.qkv", "blk.*.attn_{q,k,v}", HEADS),
    Rule("blocks.*.attention.q_norm", "blk.*.attn_q_norm"),
    Rule("blocks.*.attention.k_norm", "blk.*.attn_k_norm"),
    Rule("blocks.*.attention.sinks", "blk.*.attn_sinks.weight"),
    Rule("blocks.*.attention.output", "blk.*.attn_output"),
    Rule("blocks.*.attention_output_norm", "blk.*.post_attention_norm"),
    Rule("blocks.*.feedforward_norm", "blk.*.ffn_norm"),
    Rule("blocks.*.feedforward.gate_up", "blk.*.ffn_{gate,up}", HALVES),
    Rule("blocks.*.feedforward.up", "blk.*.ffn_up"),
    Rule("blocks.*.feedforward.down", "blk.*.ffn_down"),
    Rule("blocks.*.feedforward.router.scores", "blk.*.ffn_gate_inp"),
    Rule("blocks.*.feedforward.router.selection_bias", "blk.*.exp_probs_b.bias"),
    Rule("blocks.*.feedforward.experts.gate_up", "blk.*.ffn_{gate,up}_exps", Stack(HALVES)),
    Rule("blocks.*.feedforward.experts.down", "blk.*.ffn_down_exps"),
    Rule("blocks.*.feedforward.shared.gate_up", "blk.*.ffn_{gate,up}_shexp", HALVES),
    Rule("blocks.*.feedforward.shared.down", "blk.*.ffn_down_shexp"),
    Rule("blocks.*.feedforward.shared_gate", "blk.*.ffn_gate_inp_shexp", VECTOR),
    Rule("blocks.*.feedforward_output_norm", "blk.*.post_ffw_norm"),
    Rule("final_norm", "output_norm"),
    Rule("head", "output"),
)

TURNED = (Rule("blocks.*.attention.qkv", "blk.*.attn_{q,k,v}", TURNED_HEADS),)
"""Rotary positions on neighboring features, where the family rotates halves."""
FUSED = (Rule("blocks.*.attention.qkv", "blk.*.attn_qkv", SAME),)
"""Queries, keys and values in one tensor."""
_OFFSET_NORMS = {
    "blocks.*.attention_norm": "blk.*.attn_norm",
    "blocks.*.attention.q_norm": "blk.*.attn_q_norm",
    "blocks.*.attention.k_norm": "blk.*.attn_k_norm",
    "blocks.*.attention_output_norm": "blk.*.post_attention_norm",
    "blocks.*.feedforward_norm": "blk.*.ffn_norm",
    "blocks.*.feedforward_output_norm": "blk.*.post_ffw_norm",
    "final_norm": "output_norm",
}
OFFSETS = tuple(Rule(native, stored, OFFSET) for native, stored in _OFFSET_NORMS.items())
"""Norms that add 1 to their weight natively."""
OFFSET_WEIGHTS = tuple(Rule(f"{native}.weight", f"{stored}.weight", OFFSET) for native, stored in _OFFSET_NORMS.items())
"""The same for norms that have a bias too."""


def plain(model: Any) -> Sequence[Rule]:
    """Return the common rules."""
    return _COMMON


def with_rules(*own: Rule) -> Rules:
    """Return a function that returns rules that precede the common ones."""
    return lambda model: (*own, *_COMMON)


POST_NORM = (Rule("blocks.*.feedforward_norm", "blk.*.post_attention_norm"),)
"""The norm before the feed-forward, under the name of one after the attention."""
FUSED_GATE = (Rule("blocks.*.feedforward.gate_up", "blk.*.ffn_up", SAME),)
"""Gate and up-projection in one tensor."""


def falcon(model: Any) -> Sequence[Rule]:
    """Return the rules of Falcon: with two norms, the attention's is the second one."""
    both = model.layer_specs()[0].block.model_dump().get("norms") == 2
    names = {"attention_norm": "attn_norm_2", "feedforward_norm": "attn_norm"} if both else {}
    own = [Rule(f"blocks.*.{native}", f"blk.*.{stored}") for native, stored in names.items()]
    return (*own, *FUSED, *_COMMON)


def latent(model: Any) -> Sequence[Rule]:
    """Return the rules of DeepSeek's latent attention."""
    direct = model.layer_specs()[0].attention.q_rank is None
    names = {
        "q_down": "attn_q_a",
        "q_latent_norm": "attn_q_a_norm",
        "q_up": "attn_q" if direct else "attn_q_b",
        "kv_down": "attn_kv_a_mqa",
        "kv_latent_norm": "attn_kv_a_norm",
    }
    return (
        *(Rule(f"blocks.*.attention.{native}", f"blk.*.{stored}") for native, stored in names.items()),
        Rule("blocks.*.attention.kv_up", "blk.*.{attn_k_b,attn_v_b}", LATENT_HEADS),
        *_COMMON,
    )


def linear(*rates: Rule, tiled: bool) -> Rules:
    """Return a function that returns the rules of models with layers of linear attention (Qwen3-Next and Qwen 3.5).

    Args:
        rates: the rules of the rates.
        tiled: whether value heads are ordered as llama.cpp repeats key heads.
    """

    def rules(model: Any) -> Sequence[Rule]:
        native, stored = "blocks.*.attention", "blk.*"
        layers = [each for each in enumerate(model.layer_specs()) if each[1].attention.name == "gated-delta"]
        return (
            *rates,
            Rule(f"{native}.qkvz", f"{stored}.attn_{{qkv,gate}}", Tiled(GATES_LAST, ("after keys" if tiled else "", tiled))),
            Rule(f"{native}.conv", f"{stored}.ssm_conv1d", _then(SQUEEZED, "after keys" if tiled else "")),
            Rule(f"{native}.norm", f"{stored}.ssm_norm"),
            Rule(f"{native}.decay_log", f"{stored}.ssm_a", _then(DECAYS, tiled)),
            Rule(f"{native}.decay_bias", f"{stored}.ssm_dt.bias", _then(SAME, tiled)),
            *(
                Rule(
                    f"blocks.{index}.attention.output",
                    f"blk.{index}.ssm_out",
                    Tiled(SAME, (tiled,), columns=True, layer=layer),
                )
                for index, layer in layers
            ),
            Rule(f"{native}.qkv", f"{stored}.attn_{{q,k,v}}", GATED_HEADS),
            Rule("blocks.*.feedforward_norm", "blk.*.post_attention_norm", OFFSET),
            *OFFSETS,
            *_COMMON,
        )

    return rules


def _then(layout: Any, part: bool | str) -> Tiled:
    return Tiled(layout, (part,))


QWEN_NEXT = linear(Rule("blocks.*.attention.rates", "blk.*.ssm_ba", MIXED_RATES), tiled=False)
"""The rules of Qwen3-Next."""
