"""What Gemma 3n and Gemma 4 have in common: keys and values shared by the last layers, and embeddings for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from gptkit.interop.families._common import keys, read_activation, write_windows
from gptkit.interop.families._rope import write_two
from gptkit.interop.families.decoder import Decoder
from gptkit.interop.layouts import QUERIES_AND_KEYS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = [
    "GLOBAL",
    "N_IDS",
    "PER_LAYER",
    "SPARSITY",
    "GemmaDecoder",
    "nested",
    "read_feedforwards",
    "read_first_sharing",
    "read_full_heads",
]

PER_LAYER, N_IDS = "hidden_size_per_layer_input", "vocab_size_per_layer_input"
SPARSITY, _WIDTH = "activation_sparsity_pattern", "intermediate_size"
GLOBAL = keys("global_head_dim attention_k_eq_v num_global_key_value_heads")
"""Keys of the heads in layers with full attention, which only Gemma 4 has."""
_HARMLESS = keys(
    "audio_soft_tokens_per_image cache_implementation boa_token_index eoa_token_index vision_soft_tokens_per_image "
    "video_config"
)
"""Keys of multimodal models that do not matter for text."""
_OTHERS = (r"(model\.)?(vision_tower|audio_tower|embed_vision|embed_audio)\..*",)
"""Patterns of the tensors of other modalities."""


def read_first_sharing(config: ExternalConfig, slides: Sequence[bool], default: int = 0) -> int:
    """Return the first of the last layers that attend to the keys and values of the last layer of their type before them."""
    n_shared = config.integer("num_kv_shared_layers", default)
    first = len(slides) - n_shared
    if n_shared and not (first > 0 and set(slides[:first]) == set(slides)):
        config.refuse("num_kv_shared_layers", "layers of each type should precede those that share keys and values")
    return first


def read_full_heads(config: ExternalConfig, index: int) -> dict[str, Any]:
    """Return the heads of the layer `index`, which has full attention, from either form that transformers reads."""
    tied = config.flag("attention_k_eq_v", False)
    result: dict[str, Any] = {"tie_kv": True} if tied else {}
    wide, n_global = config.integer("global_head_dim", 512), config.value("num_global_key_value_heads")
    own = config.section("per_layer_config")
    if "per_layer_config" not in config:
        n_kv_heads = {"n_kv_heads": config.integer("num_global_key_value_heads")} if tied and n_global is not None else {}
        return {**result, "d_head": wide, **n_kv_heads}
    layer = own.section(next((key for key in own.data if key.isdigit() and int(key) == index), str(index)))
    n_kv_heads = {"n_kv_heads": layer.integer("num_key_value_heads")} if "num_key_value_heads" in layer else {}
    return {**result, "d_head": layer.integer("head_dim", config.integer("head_dim", 256)), **n_kv_heads}


def read_feedforwards(config: ExternalConfig) -> list[dict[str, Any]]:
    """Return the width and the sparsity of the feed-forward in each layer (Gemma 3n)."""
    n_layers = config.layers("num_hidden_layers")
    listed = isinstance(config.value(_WIDTH), list)
    widths = config.items(_WIDTH) if listed else [config.integer(_WIDTH, 16384)] * n_layers
    n_sparse = 10 if n_layers > 10 else 0
    shares = config.items(SPARSITY, [0.95] * n_sparse + [0.0] * (n_layers - n_sparse))
    for key, values in ((_WIDTH, widths), (SPARSITY, shares)):
        if len(values) != n_layers:
            config.refuse(key, f"it should have a value for each of {n_layers} layers")
    return [{"d_hidden": width, "sparsity": share} for width, share in zip(widths, shares, strict=True)]


def _heads(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the heads of both types of layers, and of layers that share keys and values."""
    local = next((layer.attention for layer in layers if layer.attention.window), layers[0].attention)
    full = next((layer.attention for layer in layers if not layer.attention.window), local)
    return {
        "head_dim": local.d_head,
        "num_key_value_heads": local.kv_heads,
        "global_head_dim": full.d_head,
        "attention_k_eq_v": full.tie_kv,
        "num_global_key_value_heads": full.kv_heads if full.tie_kv else None,
        "num_kv_shared_layers": sum(layer.attention.reuse_kv for layer in layers),
    }


def nested(rules: Sequence[Rule]) -> list[Rule]:
    """Return rules that also apply to the block within a block."""
    inner = [replace(rule, native=rule.native.replace("blocks.*.", "blocks.*.block.")) for rule in rules]
    return [*rules, *(rule for rule in inner if ".block." in rule.native)]


class GemmaDecoder(Decoder):
    """Base of both families: normalized queries, keys and values, four norms in a layer, and an embedding for each layer."""

    harmless: ClassVar[frozenset[str]] = Decoder.harmless | _HARMLESS
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
        n_ids, vocab_size = config.integer(N_IDS, 262144), config.integer("vocab_size")
        width = config.integer(PER_LAYER, 256)
        if width and n_ids > vocab_size:
            config.refuse(N_IDS, f"there are {vocab_size:,} token ids")
        fields = {"activation": read_activation(config, *self.activation), "norm": self.read_norm(config)}
        return {"d_embedding": width, "n_ids": n_ids if n_ids < vocab_size else None, "projection": True, **fields}

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        result = {**super().config(model), **write_windows(model), **_heads(layers), **write_two(layers)}
        for key in ("rope_theta", "rope_scaling", "partial_rotary_factor"):
            result.pop(key, None)
        block: Any = layers[0].block
        width, n_ids = (getattr(block, name, None) for name in ("d_embedding", "n_ids"))
        own = {PER_LAYER: width or 0, N_IDS: n_ids or model.vocab_size, "final_logit_softcapping": model.head.softcap}
        return {**result, **own}

    def skipped(self, model: Any) -> Sequence[str]:
        # Released files have keys and values for the layers that share those of others.
        sharing = [str(index) for index, layer in enumerate(model.layer_specs()) if layer.attention.reuse_kv]
        unused = rf"model\.layers\.({'|'.join(sharing)})\.self_attn\.(k|v)_(proj|norm)\..*"
        return [*self.ignored, *([unused] if sharing else [])]

    def rules(self, model: Any) -> list[Rule]:
        layer, inputs = "model.layers.*", "shared.per-layer-embedding"
        outer = [
            Rule("blocks.*.embedding.gate", f"{layer}.per_layer_input_gate"),
            Rule("blocks.*.embedding.output", f"{layer}.per_layer_projection"),
            Rule("blocks.*.embedding.norm", f"{layer}.post_per_layer_input_norm"),
            Rule(f"{inputs}.table", "model.embed_tokens_per_layer"),
            Rule(f"{inputs}.projection", "model.per_layer_model_projection"),
            Rule(f"{inputs}.norm", "model.per_layer_projection_norm"),
        ]
        inner = [
            Rule("blocks.*.attention.query", f"{layer}.self_attn.q_proj"),
            Rule("blocks.*.attention.qk", f"{layer}.self_attn.{{q,k}}_proj", QUERIES_AND_KEYS),
            Rule("blocks.*.attention_output_norm", f"{layer}.post_attention_layernorm"),
            Rule("blocks.*.feedforward_norm", f"{layer}.pre_feedforward_layernorm"),
            Rule("blocks.*.feedforward_output_norm", f"{layer}.post_feedforward_layernorm"),
        ]
        return [*outer, *nested([*inner, *super().rules(model)])]
