"""Falcon-H1: how its configurations name the factors and the sizes of the recurrence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.mamba import mamba2
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["attending", "read_factors", "read_mamba", "write"]


def read_mamba(config: ExternalConfig, eps: tuple[str, float], activation: tuple[str, str]) -> dict[str, Any]:
    """Return the recurrence, with the factors of its projections."""
    d_values = config.nullable("mamba_d_ssm", 1024)
    mamba = mamba2.read_mamba(config, eps, activation, d_values)["attention"]
    if config.flag("projectors_bias", False) != mamba["bias"]:
        config.refuse("projectors_bias", "gptkit has biases in both projections of Mamba-2 (mamba_proj_bias), or in none")
    norm = "before" if config.flag("mamba_norm_before_gate", True) else "after"
    return {
        **mamba,
        "norm": norm if config.flag("mamba_rms_norm", False) else "none",
        "projection_scales": read_factors(config, "ssm_multipliers", 5),
    }


def read_factors(config: ExternalConfig, key: str, count: int) -> Sequence[float]:
    """Return a list of factors, ones by default."""
    factors = config.items(key, [1.0] * count)
    if len(factors) != count or not all(type(each) in (int, float) for each in factors):
        config.refuse(key, f"it should be {count} numbers")
    return factors


def attending(layer: Any) -> Any:
    """Return a layer with only its attention."""
    return layer.model_copy(update={"attention": layer.attention.attention})


def write(model: Any) -> dict[str, Any]:
    """Return the keys of the recurrence and of all factors."""
    layer = model.layer_specs()[0]
    hybrid, attention, mamba = layer.attention, layer.attention.attention, layer.attention.recurrence
    recurrent = [layer.model_copy(update={"attention": mamba})]
    written = mamba2.write_mamba(recurrent, model.d_model)
    del written["mamba_expand"]  # not read beside mamba_d_ssm
    return {
        **written,
        "mamba_d_ssm": mamba.n_heads * mamba.d_head,
        "mamba_rms_norm": mamba.norm != "none",
        "mamba_norm_before_gate": mamba.norm != "after",
        "projectors_bias": mamba.bias,
        "embedding_multiplier": 1.0 if model.embedding.scale is None else model.embedding.scale,
        "lm_head_multiplier": model.head.scale,
        "mlp_multipliers": [layer.feedforward.gate_scale, layer.feedforward.output_scale],
        "key_multiplier": (attention.scale or attention.d_head**-0.5) * math.sqrt(attention.d_head),
        "attention_in_multiplier": hybrid.attention_input_scale,
        "attention_out_multiplier": hybrid.attention_scale,
        "ssm_in_multiplier": hybrid.recurrence_input_scale,
        "ssm_out_multiplier": hybrid.recurrence_scale,
        "ssm_multipliers": list(mamba.projection_scales or [1.0] * 5),
    }
