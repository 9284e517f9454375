"""xLSTM: how its configurations name the sizes of the recurrence and of the feed-forward."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.keys import keys
from gptkit.interop.layouts import HALVES, LINEAR_HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["INERT", "read_mlstm", "read_width", "rules", "write_layer"]

INERT = keys(
    "autocast_kernel_dtype chunk_size chunkwise_kernel inference_state_dtype max_inference_chunksize mode "
    "norm_reduction_force_float32 return_last_states sequence_kernel step_kernel "
    "add_embedding_dropout add_forward_backend_padding force_bos_token_insert head_dim igate_bias_init_range "
    "mlstm_round_up_to_multiple_of"
)
"""Keys of how the layers are computed; and of the released file, keys that follow from others or apply in training only."""

FACTORS = {"d_key": ("qk_dim_factor", 0.5), "d_value": ("v_dim_factor", 1.0)}
NUMBERS = {"norm_eps": ("norm_eps", 1e-6), "eps": ("eps", 1e-6), "gate_softcap": ("gate_soft_cap", 15.0)}


def read_mlstm(config: ExternalConfig, d_model: int) -> dict[str, Any]:
    """Return the attention `mlstm`."""
    n_heads, sizes = config.integer("num_heads", 8), {}
    for own, (key, default) in FACTORS.items():
        width = int(d_model * config.number(key, default))
        if n_heads < 1 or width % n_heads:
            config.refuse(key, f"{width} features cannot be divided into {n_heads} heads")
        sizes[own] = width // n_heads
    return {"name": "mlstm", "n_heads": n_heads, **sizes, **{own: config.number(*key) for own, key in NUMBERS.items()}}


def read_width(config: ExternalConfig, d_model: int) -> int:
    """Return the width of the feed-forward: a multiple of the model's, rounded up."""
    multiple = config.integer("ffn_round_up_to_multiple_of", 64)
    if multiple < 1:
        config.refuse("ffn_round_up_to_multiple_of", "it should be at least 1")
    return int((d_model * config.number("ffn_proj_factor", 2.667) + multiple - 1) // multiple) * multiple


def write_layer(layer: Any, d_model: int) -> dict[str, Any]:
    """The keys of a layer."""
    mlstm, d_hidden = layer.attention, layer.feedforward.d_hidden
    return {
        "num_heads": mlstm.n_heads,
        **{key: _factor(mlstm.n_heads * getattr(mlstm, own), d_model) for own, (key, _) in FACTORS.items()},
        **{key: getattr(mlstm, own) for own, (key, _) in NUMBERS.items()},
        "ffn_proj_factor": d_hidden / d_model,
        "ffn_round_up_to_multiple_of": d_hidden,
    }


def _factor(width: int, d_model: int) -> float:
    """Return a factor of the model's width whose product is `width`, rounded down."""
    exact = width / d_model
    return exact if int(d_model * exact) == width else (width + 0.5) / d_model


def rules() -> list[Rule]:
    """Where the tensors of the layers are."""
    own, block = "blocks.*", "backbone.blocks.*"
    layer = f"{block}.mlstm_layer"
    return [
        Rule(f"{own}.attention.input", f"{layer}.{{q,k,v,ogate_preact}}", LINEAR_HEADS),
        Rule(f"{own}.attention.gates", f"{layer}.{{igate_preact,fgate_preact}}", HALVES),
        Rule(f"{own}.attention.norm_weight", f"{layer}.multihead_norm.weight"),
        Rule(f"{own}.attention.output", f"{layer}.out_proj"),
        Rule(f"{own}.attention_norm", f"{block}.norm_mlstm"),
        Rule(f"{own}.feedforward_norm", f"{block}.norm_ffn"),
        Rule(f"{own}.feedforward.gate_up", f"{block}.ffn.{{proj_up_gate,proj_up}}", HALVES),
        Rule(f"{own}.feedforward.down", f"{block}.ffn.proj_down"),
    ]
