"""Norms, by the keys of Llama."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.decoder.settings import Settings
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["NormKeys"]


class NormKeys(Settings):
    """Hooks that read and write the norms."""

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the norm, of the layers and after the last one."""
        return {"name": "rms", "eps": config.number(*self.eps)}

    def write_norm(self, layers: Sequence[Any]) -> dict[str, Any]:
        """Return the keys of the norms; `layers` are the specs of all layers, after patterns."""
        return {self.eps[0]: layers[0].norm.eps}
