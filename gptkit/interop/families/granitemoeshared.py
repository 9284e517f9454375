"""Granite with experts and a shared one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.granitemoe import GraniteMoeFamily
from gptkit.interop.families.parts.experts import first_of
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GraniteMoeSharedFamily"]


class GraniteMoeSharedFamily(GraniteMoeFamily):
    """Granite with experts and a shared one, of its own width."""

    name: Literal["granitemoeshared"] = "granitemoeshared"  # type: ignore[assignment]
    model_type: ClassVar[str] = "granitemoeshared"
    architecture: ClassVar[str] = "GraniteMoeSharedForCausalLM"

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        experts, width = super().read_feedforward(config), config.integer("shared_intermediate_size", 0)
        return {**experts, "shared": {**experts["expert"], "d_hidden": width} if width else None}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        shared = first_of(layers, "experts").shared
        return {**super().write_feedforward(layers), "shared_intermediate_size": shared.d_hidden if shared else 0}

    def rules(self, model: Any) -> list[Rule]:
        names = {"gate_up": "input_linear", "down": "output_linear"}
        shared = [
            Rule(f"blocks.*.feedforward.shared.{native}", f"model.layers.*.shared_mlp.{external}")
            for native, external in names.items()
        ]
        return [*shared, *super().rules(model)]
