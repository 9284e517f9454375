"""The base of Gemma 3n and Gemma 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.activations import read_activation
from gptkit.interop.families.parts.gemma.embeddings import embedding_rules, read_layer_embedding, write_layer_embedding
from gptkit.interop.families.parts.gemma.heads import write_heads
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.rope import by_type
from gptkit.interop.families.parts.windows import write_windows
from gptkit.interop.layouts import QUERIES_AND_KEYS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GemmaDecoder", "nested"]

_HARMLESS = "audio_soft_tokens_per_image cache_implementation boa_token_index eoa_token_index vision_soft_tokens_per_image"
_OTHERS = (r"(model\.)?(vision_tower|audio_tower|embed_vision|embed_audio)\..*",)
"""Patterns of the tensors of other modalities."""


def nested(rules: Sequence[Rule]) -> list[Rule]:
    """Return rules that also apply to the block within a block."""
    inner = [replace(rule, native=rule.native.replace("blocks.*.", "blocks.*.block.")) for rule in rules]
    return [*rules, *(rule for rule in inner if ".block." in rule.native)]


class GemmaDecoder(Decoder):
    """Base of both families: normalized queries, keys and values, four norms in a layer, and an embedding for each layer."""

    harmless: ClassVar[frozenset[str]] = Decoder.harmless | keys(_HARMLESS) | {"video_config"}
    prefixes: ClassVar[Mapping[str, str]] = {"model.language_model.": "model."}
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, *_OTHERS)
    tied: ClassVar[bool] = True
    d_head: ClassVar[int | None] = 256
    activation: ClassVar[tuple[str, str]] = ("hidden_activation", "gelu_pytorch_tanh")

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "token", "scale": "sqrt"}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "cast": "after"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        norm = self.read_norm(config)
        return {**super().read_attention(config), "scale": 1.0, "qk_norm": norm, "v_norm": {**norm, "scale": False}}

    def read_layer_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the fields of the embedding for each layer."""
        return read_layer_embedding(config, read_activation(config, *self.activation), self.read_norm(config))

    def config(self, model: Any) -> dict[str, Any]:
        layers, result = model.layer_specs(), {**super().config(model), **write_windows(model)}
        own = {**write_heads(layers), **write_layer_embedding(model), "final_logit_softcapping": model.head.softcap}
        return by_type({**result, **own}, layers)

    def skipped(self, model: Any) -> Sequence[str]:
        # Released files have keys and values for the layers that share those of others.
        sharing = [str(index) for index, layer in enumerate(model.layer_specs()) if layer.attention.reuse_kv]
        unused = rf"model\.layers\.({'|'.join(sharing)})\.self_attn\.(k|v)_(proj|norm)\..*"
        return [*self.ignored, *([unused] if sharing else [])]

    def rules(self, model: Any) -> list[Rule]:
        inner = [
            Rule("blocks.*.attention.query", "model.layers.*.self_attn.q_proj"),
            Rule("blocks.*.attention.qk", "model.layers.*.self_attn.{q,k}_proj", QUERIES_AND_KEYS),
            Rule("blocks.*.attention_output_norm", "model.layers.*.post_attention_layernorm"),
            Rule("blocks.*.feedforward_norm", "model.layers.*.pre_feedforward_layernorm"),
            Rule("blocks.*.feedforward_output_norm", "model.layers.*.post_feedforward_layernorm"),
        ]
        return [*embedding_rules(), *nested([*inner, *super().rules(model)])]
