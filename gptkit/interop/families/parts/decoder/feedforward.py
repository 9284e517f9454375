"""A gated feed-forward, by the keys of Llama."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.decoder.settings import Settings
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["FeedForwardKeys"]


class FeedForwardKeys(Settings):
    """Hooks that read and write the feed-forward."""

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the feed-forward of all layers."""
        if not self.feedforward_biases:
            config.only("mlp_bias", False, why="the family has no such biases")
        return {
            "name": "gated",
            "d_hidden": config.integer(self.width, 4 * config.integer("hidden_size")),
            "activation": read_activation(config, *self.activation),
            "bias": self.feedforward_biases and config.flag("mlp_bias", self.biased),
        }

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        """Return the keys of the feed-forward; `layers` are the specs of all layers, after patterns."""
        feedforward = layers[0].feedforward
        return {
            self.width: feedforward.d_hidden,
            self.activation[0]: write_activation(feedforward.activation),
            **({"mlp_bias": feedforward.bias} if self.feedforward_biases else {}),
        }
