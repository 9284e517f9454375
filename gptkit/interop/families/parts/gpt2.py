"""How GPT-2 scales the scores of its attention."""

from __future__ import annotations

from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_scales", "write_scales"]

_SCALED, _BY_LAYER = "scale_attn_weights", "scale_attn_by_inverse_layer_idx"


def read_scales(config: ExternalConfig, d_head: int, n_layers: int) -> list[dict[str, Any]]:
    """Return what each layer overrides: the scale of its scores, where it is not 1/√d_head.

    Without `scale_attn_weights` scores are not scaled; with `scale_attn_by_inverse_layer_idx` those of layer i, counted from
    1, are divided by i.
    """
    usual = d_head**-0.5
    scale, by_layer = usual if config.flag(_SCALED, True) else 1.0, config.flag(_BY_LAYER, False)
    scales = [scale / (index + 1) if by_layer else scale for index in range(n_layers)]
    return [{"attention": {"scale": each}} if each != usual else {} for each in scales]


def write_scales(model: Any) -> dict[str, bool]:
    """Return the keys that `read_scales` reads."""
    usual = (model.d_model // model.attention.n_heads) ** -0.5
    scales = [layer.attention.scale or usual for layer in model.layer_specs()]
    return {_SCALED: scales[0] == usual, _BY_LAYER: scales[-1] != scales[0]}
