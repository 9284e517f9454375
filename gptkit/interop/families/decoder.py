"""The base of families that follow Llama in how they name keys and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.decoder import AttentionKeys, FeedForwardKeys, NormKeys, llama_rules
from gptkit.interop.families.parts.layers import pattern
from gptkit.interop.families.parts.rope import read_rope, write_rope
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Decoder"]


class Decoder(AttentionKeys, FeedForwardKeys, NormKeys):
    """A pre-norm decoder with rotary positions, grouped queries, RMS norms and a gated feed-forward, part by part.

    A family overrides the parts in which it differs, in both directions.
    """

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        n_layers = config.layers("num_hidden_layers")
        return {
            "context_length": config.integer("max_position_embeddings", 2048),
            "d_model": config.integer("hidden_size"),
            "n_layers": n_layers,
            "vocab_size": config.integer("vocab_size"),
            "embedding": self.read_embedding(config),
            "position": self.read_position(config),
            "attention": self.read_attention(config),
            "norm": self.read_norm(config),
            "feedforward": self.read_feedforward(config),
            "block": self.read_block(config),
            "layers": pattern(self.read_layers(config, n_layers)),
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", self.tied), **self.read_head(config)},
        }

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the embedding."""
        return {"name": "token"}

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the position: rotary, scaled by `rope_scaling` or `rope_parameters`."""
        return read_rope(config, base=self.base, fraction=self.fraction, partial=self.partial or self.fraction != 1)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the block: the order of norms, branches and residuals."""
        return {"name": "pre-norm"}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        """Return fields of the head besides `tied`, which `model` reads: a bias, a scale, a softcap."""
        return {}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        """Return what each layer overrides, by the names of its parts; an empty list if all layers are equal."""
        return []

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        rotary = next((each.position for each in layers if each.position.name == "rotary"), model.position)
        sizes = {"hidden_size": model.d_model, "num_hidden_layers": model.n_layers, "vocab_size": model.vocab_size}
        return {
            "max_position_embeddings": model.context_length,
            **sizes,
            **self.write_attention(layers),
            **self.write_feedforward(layers),
            **self.write_norm(layers),
            "tie_word_embeddings": model.head.tied,
            **({"partial_rotary_factor": 1.0} if self.fraction != 1 else {}),
            **(write_rope(rotary) if rotary.name == "rotary" else {}),
        }

    def rules(self, model: Any) -> list[Rule]:
        return llama_rules(self.inner)
