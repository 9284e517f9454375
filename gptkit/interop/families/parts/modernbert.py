"""ModernBERT's decoder: how its configurations describe layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.rope import read_typed
from gptkit.interop.families.parts.rope.writing import write_two
from gptkit.interop.families.parts.windows import read_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["INERT", "TINY", "read_layers", "read_position", "write_layers"]

INERT = keys(
    "causal_mask classifier_pooling cls_token_id deterministic_flash_attn gradient_checkpointing initializer_cutoff_factor "
    "is_causal layer_norm_eps mlp_dropout position_embedding_type reference_compile repad_logits_with_grad "
    "sparse_pred_ignore_index sparse_prediction"
)
"""Keys of training, of programs, and of the encoder."""

TINY = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "local_attention": 12}
"""A configuration of a tiny model; the ids are in its vocabulary."""

LAST = {"block": {"name": "single-branch", "branch": "feedforward", "shortcut": False}}


def read_position(config: ExternalConfig) -> dict[str, Any]:
    """Return the position of layers with full attention."""
    config.only("rope_scaling", why="gptkit reads the scaling of this family from rope_parameters")
    return read_typed(config, "full_attention", config.number("global_rope_theta", 160000.0))


def read_layers(config: ExternalConfig, n_layers: int) -> list[dict[str, Any]]:
    """Return what each layer overrides; the last one, which is not counted, is the layer before the vocabulary."""
    period = max(1, config.integer("global_attn_every_n_layers", 3))
    slides = read_windows(config, [index % period != 0 for index in range(n_layers)])
    # Half of the window of the encoder, which looks in both directions; files of transformers have that half, too.
    usual = 0 if config.is_null("local_attention") else 128
    window = config.integer("sliding_window", config.integer("local_attention", usual) // 2)
    if any(slides) and window < 1:
        config.refuse("sliding_window" if "sliding_window" in config else "local_attention", "layers have a sliding window")
    local = {"scaling": None, **read_typed(config, "sliding_attention", config.number("local_rope_theta", 1e4))}
    layers: list[dict[str, Any]] = [{"attention": {"window": window}, "position": local} if each else {} for each in slides]
    layers[0] = {**layers[0], "block": {"attention_input_norm": False}}
    activation = read_activation(config, "classifier_activation", "gelu")
    bias = config.flag("classifier_bias", False)
    return [*layers, {**LAST, "feedforward": {"name": "single-layer", "activation": activation, "bias": bias}}]


def write_layers(layers: Sequence[Any], last: Any) -> dict[str, Any]:
    """Return the keys that describe the layers, and those of the layer before the vocabulary."""
    first, windows = layers[0], [layer.attention.window for layer in layers]
    return {
        "num_hidden_layers": len(layers),
        "num_attention_heads": first.attention.n_heads,
        "attention_bias": first.attention.qkv_bias,
        "intermediate_size": first.feedforward.d_hidden,
        "hidden_activation": write_activation(first.feedforward.activation),
        "mlp_bias": first.feedforward.bias,
        "norm_eps": first.norm.eps,
        "norm_bias": first.norm.shift,
        "classifier_activation": write_activation(last.feedforward.activation),
        "classifier_bias": last.feedforward.bias,
        "local_attention": 2 * next((window for window in windows if window), 64),
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
        **write_two(layers),
    }
