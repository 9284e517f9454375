"""Falcon-Mamba."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.mamba import MambaFamily
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["FalconMambaFamily"]


class FalconMambaFamily(MambaFamily):
    """Falcon-Mamba: Mamba with norms, without weights, of what the selection returns."""

    name: Literal["falcon-mamba"] = "falcon-mamba"  # type: ignore[assignment]
    model_type: ClassVar[str] = "falcon_mamba"
    architecture: ClassVar[str] = "FalconMambaForCausalLM"

    def read_norm(self, config: ExternalConfig) -> Any:
        return {"name": "rms", "scale": False, "eps": config.number("mixer_rms_eps", 1e-6)}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "mixer_rms_eps": model.layer_specs()[0].attention.norm.eps}
