"""Granite 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.granitemoe import GraniteMoeFamily
from gptkit.interop.families.parts.activations import write_activation
from gptkit.interop.families.parts.experts import first_of, write_experts
from gptkit.interop.families.parts.hybrids import layers_without, write_linear
from gptkit.interop.families.parts.layers import read_types
from gptkit.interop.families.parts.mamba import mamba2
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GraniteMoeHybridFamily"]

TYPES = ("linear_attention", "full_attention")
LINEARS = {"gate_up": "input_linear", "down": "output_linear"}


class GraniteMoeHybridFamily(GraniteMoeFamily):
    """Granite 4: Mamba-2 in most layers, attention mostly without positions, experts with a shared one, or none."""

    name: Literal["granitemoehybrid"] = "granitemoehybrid"  # type: ignore[assignment]
    model_type: ClassVar[str] = "granitemoehybrid"
    architecture: ClassVar[str] = "GraniteMoeHybridForCausalLM"
    rank: ClassVar[int] = 11
    harmless: ClassVar[frozenset[str]] = GraniteMoeFamily.harmless | mamba2.INERT_MAMBA | {"init_method"}
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {"normalization_function": ("rmsnorm",)}
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
        mamba = mamba2.read_mamba(config, self.eps, self.activation)
        key, usual = config.alias("layer_types", "layers_block_type"), ["linear_attention"] * n_layers
        types = read_types(config, n_layers, usual, TYPES, key, {"mamba": TYPES[0], "attention": TYPES[1]})
        return [mamba if each == TYPES[0] else {} for each in types]

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        position = "rope" if any(layer.position.name == "rotary" for layer in layers) else None
        more = {"position_embedding_type": position, **write_linear(layers, "mamba2")}
        return {**super().config(model), **mamba2.write_mamba(layers, model.d_model), **more}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return super().write_attention(layers_without(layers, "mamba2"))

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
        return [*mamba2.mamba_rules(model), *linears, *super().rules(model)]
