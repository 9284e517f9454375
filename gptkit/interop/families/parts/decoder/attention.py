"""Grouped queries, by the keys of Llama."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.decoder.settings import Settings
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["AttentionKeys"]


class AttentionKeys(Settings):
    """Hooks that read and write the attention."""

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the attention of all layers; `read_layers` overrides it for some."""
        n_heads = config.integer("num_attention_heads")
        bias = self.attention_biases and config.flag("attention_bias", self.biased)
        usual = None if config.is_null("head_dim") else self.d_head
        return {
            "name": "grouped-query",
            "n_heads": n_heads,
            "n_kv_heads": config.integer("num_key_value_heads", n_heads),
            "d_head": config.integer("head_dim", usual or config.integer("hidden_size") // max(1, n_heads)),
            "qkv_bias": bias,
            "output_bias": bias and self.output_biases,
        }

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        """Return the keys of the attention; `layers` are the specs of all layers with one, after patterns."""
        if not layers:
            return {"num_attention_heads": 1, "num_key_value_heads": 1}  # a hybrid without attention
        attention = layers[0].attention
        return {
            "num_attention_heads": attention.n_heads,
            "num_key_value_heads": attention.kv_heads,
            "head_dim": attention.d_head,
            **({"attention_bias": attention.qkv_bias} if self.attention_biases else {}),
        }
