"""The recurrence of Zamba, of several heads: keys and tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gptkit.interop.families.parts.activations import write_activation
from gptkit.interop.families.parts.mamba.mamba1 import read_selective
from gptkit.interop.layouts import ALTERNATING
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Layout

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["D_MODEL", "TENSORS", "layouts", "read_mamba", "write_mamba"]

D_MODEL = 3712
NAMES = {"d_state": "mamba_d_state", "step_rank": "mamba_dt_rank", "conv_width": "mamba_d_conv"}
NAMES |= {"conv_bias": "mamba_conv_bias", "bias": "mamba_proj_bias", "activation": "hidden_mamba_act"}
TENSORS = {"input": "in_proj", "conv": "conv1d", "select.weight": "x_proj_weight", "step.weight": "dt_proj_weight"}
TENSORS |= {"step_bias": "dt_proj_bias", "decay_log": "A_log", "skip": "D", "output": "out_proj"}
"""External names of the recurrence's tensors, by the native ones."""


class ByHead(Layout):
    """Features with a dimension of heads before them."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0].flatten(0, 1)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor.reshape(layer.attention.n_heads, -1, *tensor.shape[1:])]


BY_HEAD = ByHead()


def layouts(model: Any) -> Mapping[str, Layout]:
    """Return the layouts of the recurrence's tensors: transformers has a dimension of heads wherever there are features."""
    named: dict[str, Layout] = {"input": ALTERNATING, "step_bias": BY_HEAD, "decay_log": BY_HEAD, "skip": BY_HEAD}
    return named if model.attention.n_heads > 1 else {**named, "select.weight": BY_HEAD, "step.weight": BY_HEAD}


def read_mamba(config: ExternalConfig) -> dict[str, Any]:
    """Return the recurrence of all layers."""
    d_model, n_heads = config.integer("hidden_size", D_MODEL), config.integer("n_mamba_heads", 2)
    d_inner = config.integer("mamba_expand", 2) * d_model
    return {**read_selective(config, NAMES, d_model, d_inner, "none"), "n_heads": n_heads}


def write_mamba(mamba: Any, d_model: int) -> dict[str, Any]:
    """Return the keys of the recurrence."""
    return {
        **{key: getattr(mamba, own) for own, key in NAMES.items() if own != "activation"},
        "hidden_mamba_act": write_activation(mamba.activation),
        "mamba_expand": mamba.d_inner // d_model,
        "n_mamba_heads": mamba.n_heads,
    }
