"""Layers with latent attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["latent", "latents"]


def latents(layers: Sequence[Any]) -> list[Any]:
    """Return the layers with latent attention."""
    return [layer for layer in layers if layer.attention.name in ("latent", "sparse-latent")]


def latent(layers: Sequence[Any]) -> Any:
    """Return the first layer with latent attention."""
    return latents(layers)[0]  # an IndexError means that the family cannot express the model
