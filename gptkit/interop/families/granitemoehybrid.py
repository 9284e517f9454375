"""Granite 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families import _mamba
from gptkit.interop.families._common import write_activation
from gptkit.interop.families._experts import first_of, write_experts
from gptkit.interop.families.granitemoe import GraniteMoeFamily
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GraniteMoeHybridFamily"]

LINEARS = {"gate_up": "input_linear", "down": "output_linear"}


class GraniteMoeHybridFamily(GraniteMoeFamily):
    """Granite 4: Mamba-2 in most layers, attention mostly without positions, experts with a shared one, or none."""

    name: Literal["granitemoehybrid"] = "granitemoehybrid"  # type: ignore[assignment]
    model_type: ClassVar[str] = "granitemoehybrid"
    architecture: ClassVar[str] = "GraniteMoeHybridForCausalLM"
    harmless: ClassVar[frozenset[str]] = GraniteMoeFamily.harmless | _mamba.INERT_MAMBA
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"layer_types": ["mamba", "attention"] * 2, "mamba_n_heads": 4, "mamba_d_head": "auto", "mamba_d_state": 8},
    )

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("position_embedding_type", None, "nope", "rope", why="transformers supports rope, or none")
        rotary = super().read_position(config)
        return rotary if config.value("position_embedding_type") == "rope" else {"name": "none"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        experts = super().read_feedforward(config)
        shared = {**experts["expert"], "d_hidden": config.integer("shared_intermediate_size", 1024)}
        return {**experts, "shared": shared} if experts["n_experts"] else shared

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        mamba = _mamba.read_mamba(config, self.eps, self.activation)
        return [mamba if each else {} for each in _mamba.read_mamba_types(config, n_layers)]

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        position = "rope" if any(layer.position.name == "rotary" for layer in layers) else None
        more = {"position_embedding_type": position, "layer_types": _mamba.write_mamba_types(layers)}
        return {**super().config(model), **_mamba.write_mamba(layers, model.d_model), **more}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return super().write_attention([layer for layer in layers if layer.attention.name != "mamba2"])

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        first = layers[0].feedforward
        if first_of(layers, "experts") is None:
            sizes = {"num_local_experts": 0, "shared_intermediate_size": first.d_hidden}
            return {**sizes, "hidden_act": write_activation(first.activation)}
        experts = write_experts(layers, "num_local_experts", "intermediate_size")
        return {**experts, "shared_intermediate_size": first.shared.d_hidden}

    def rules(self, model: Any) -> list[Rule]:
        block, shared = "blocks.*.feedforward", "model.layers.*.shared_mlp"
        linears = [Rule(f"{block}.shared.{native}", f"{shared}.{external}") for native, external in LINEARS.items()]
        linears += [Rule(f"{block}.{native}", f"{shared}.{external}") for native, external in LINEARS.items()]
        return [*_mamba.mamba_rules(model), *linears, *super().rules(model)]
