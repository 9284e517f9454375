"""Keys that the declarations of several architectures have."""

from __future__ import annotations

from gptkit.interop.formats.gguf.parts import DENSE, Fixed, HasTensor, Key, Keys, Tied, Untrained

__all__ = [
    "ATTENTION_BIAS",
    "COMMON",
    "EXPERTS",
    "GELU",
    "KV",
    "MLP_BIAS",
    "NO_BIAS",
    "RMS",
    "SCALES",
    "SILU",
    "SIZES",
    "UNTIED",
    "WIDTH",
    "ignored_window",
    "layer_norm",
]

GELU = "llama.cpp computes GELU by its approximation with tanh, and this model was defined with the exact function."
"""Remark on architectures whose family has the exact GELU."""
RMS = Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32")
SIZES = (
    Key("context_length", "max_position_embeddings"),
    Key("embedding_length", "hidden_size"),
    Key("block_count", "num_hidden_layers"),
    Key("attention.head_count", "num_attention_heads"),
)
"""Keys that every architecture has."""
KV = Key("attention.head_count_kv", "num_key_value_heads", default="attention.head_count")
WIDTH = Key("feed_forward_length", "intermediate_size")
SILU = Fixed({"hidden_act": "silu"})
COMMON = (Keys((*SIZES, KV, WIDTH, RMS)), SILU, Tied, DENSE)
"""Keys of the decoders with RMS norms and gated feed-forwards."""
EXPERTS = (Key("expert_count", "num_experts"), Key("expert_used_count", "num_experts_per_tok"))
ATTENTION_BIAS = HasTensor("attention_bias", ("blk.0.attn_q.bias",))
MLP_BIAS = HasTensor("mlp_bias", ("blk.0.ffn_up.bias",))
NO_BIAS = Fixed({"attention_bias": False, "mlp_bias": False})
UNTIED = Fixed({"tie_word_embeddings": False})
"""Architectures that require an output matrix."""
SCALES = (
    Key("attention.scale", "attention_multiplier", "f32", factor=True),
    Key("embedding_scale", "embedding_multiplier", "f32", factor=True),
    Key("residual_scale", "residual_multiplier", "f32", factor=True),
    Key("logit_scale", "logits_scaling", "f32", factor=True),
)
"""Granite's factors."""
_WINDOW = "attention.sliding_window"


def layer_norm(config: str) -> Key:
    """Return the key of the layer norms' epsilon, whose name in the configuration is given."""
    return Key("attention.layer_norm_epsilon", config, "f32")


def ignored_window(model: str) -> Untrained:
    """Return the part of an architecture whose attention window llama.cpp ignores."""
    return Untrained(
        lambda config: bool(config.get("sliding_window")) and config["sliding_window"] < config["max_position_embeddings"],
        f"llama.cpp computes {model} without its attention window, so the model would attend to more tokens there",
        lambda keys: {"sliding_window": keys.integer(_WINDOW, 0) or None},
    )
