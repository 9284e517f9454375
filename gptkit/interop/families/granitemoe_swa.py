"""Granite with experts and sliding windows."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.granite_swa import GraniteSWAFamily
from gptkit.interop.families.granitemoeshared import GraniteMoeSharedFamily
from gptkit.interop.families.parts.windows import write_windows
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GraniteMoeSWAFamily"]


class GraniteMoeSWAFamily(GraniteMoeSharedFamily):
    """Granite with experts, attention sinks, windows in three of four layers, and a rotary base for each layer."""

    name: Literal["granitemoe-swa"] = "granitemoe-swa"  # type: ignore[assignment]
    model_type: ClassVar[str] = "granitemoe_swa"
    architecture: ClassVar[str] = "GraniteMoeSWAForCausalLM"

    read_layers = GraniteSWAFamily.read_layers

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "sinks": True}

    def config(self, model: Any) -> dict[str, Any]:
        bases = [getattr(layer.position, "base", 0) for layer in model.layer_specs()]
        return {**super().config(model), **write_windows(model, 128), "layer_rope_theta": bases}

    def rules(self, model: Any) -> list[Rule]:
        native, block = "blocks.*.feedforward", "model.layers.*.block_sparse_moe"
        return [
            Rule("blocks.*.attention.sinks", "model.layers.*.self_attn.sinks"),
            Rule(f"{native}.router.scores", f"{block}.router"),
            Rule(f"{native}.experts.gate_up.weight", f"{block}.experts.gate_up_proj"),
            Rule(f"{native}.experts.down.weight", f"{block}.experts.down_proj"),
            *super().rules(model),
        ]
