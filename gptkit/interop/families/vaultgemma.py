"""VaultGemma."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.gemma2 import Gemma2Family
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["VaultGemmaFamily"]


class VaultGemmaFamily(Gemma2Family):
    """VaultGemma: Gemma 2 without norms of the branches' outputs."""

    name: Literal["vaultgemma"] = "vaultgemma"  # type: ignore[assignment]
    model_type: ClassVar[str] = "vaultgemma"
    architecture: ClassVar[str] = "VaultGemmaForCausalLM"

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "pre-norm"}

    def rules(self, model: Any) -> list[Rule]:
        return [Rule("blocks.*.feedforward_norm", "model.layers.*.pre_feedforward_layernorm"), *super().rules(model)]
