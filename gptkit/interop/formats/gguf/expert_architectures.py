"""The architectures with experts and grouped queries that the built-in families have: their keys and tensors, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.common_keys import (
    ATTENTION_BIAS,
    EXPERTS,
    KV,
    RMS,
    SCALES,
    SILU,
    SIZES,
    UNTIED,
    WIDTH,
)
from gptkit.interop.formats.gguf.expert_keys import EVERY_LAYER, SHARED_WIDTH, SIGMOID, SPARSE, OneWidth, Routed
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import Fixed, HasTensor, HeadSize, Key, Keys, Tied, Untrained, Windows
from gptkit.interop.formats.gguf.rotary import Rotary
from gptkit.interop.formats.gguf.rules import FUSED, POST_NORM, TURNED, plain, with_rules
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["EXPERT_ARCHITECTURES"]

_ROUNDED = "llama.cpp rounds the range of rotary features that YaRN scales to whole features; this model does not round it."


def _as_many_keys(model: str) -> Untrained:
    """Return the part of an architecture in which llama.cpp expects as many keys as queries."""
    return Untrained(
        lambda config: config["num_key_value_heads"] != config["num_attention_heads"],
        f"llama.cpp expects as many keys as queries in {model}, and this model's queries share keys",
    )


class _FromLayer:
    """ERNIE 4.5's experts in all layers from one on, and its shared experts."""

    keys = (
        Key("expert_count", "moe_num_experts"),
        Key("expert_used_count", "moe_k"),
        Key("expert_feed_forward_length", "moe_intermediate_size"),
        Key("expert_shared_count", "moe_num_shared_experts", default=0),
        Key("leading_dense_block_count", "moe_layer_start_index", default=0),
    )

    def read(self, keys: ExternalConfig, tensors: Any) -> dict[str, Any]:
        config = Keys(self.keys).read(keys, tensors)
        width = config["moe_num_shared_experts"] * config["moe_intermediate_size"]
        if keys.integer("expert_shared_feed_forward_length", width) != width:
            keys.refuse("expert_shared_feed_forward_length", f"the shared experts have {width} features together")
        keys.only("interleave_moe_layer_step", 1, why="llama.cpp expects experts in each layer from the first sparse one on")
        return {**config, "moe_layer_end_index": -1, "moe_layer_interval": 1}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        width = config["moe_num_shared_experts"] * config["moe_intermediate_size"]
        own = {"interleave_moe_layer_step": 1, "expert_shared_feed_forward_length": width}
        return {**Keys(self.keys).write(config), **{key: Typed("u32", value) for key, value in own.items()}}


_LOCAL_EXPERTS = (Key("expert_count", "num_local_experts"), EXPERTS[1])
_EXPERT_WIDTH = Key("expert_feed_forward_length", "intermediate_size", default="feed_forward_length")
_DBRX = (
    Key("context_length", "max_seq_len"),
    Key("embedding_length", "d_model"),
    Key("block_count", "n_layers"),
    Key("attention.head_count", "n_heads"),
    Key("attention.head_count_kv", "attn_config.kv_n_heads", default="attention.head_count"),
    Key("attention.clamp_kqv", "attn_config.clip_qkv", "f32"),
    Key("rope.freq_base", "attn_config.rope_theta", "f32", 10000.0),
    Key("feed_forward_length", "ffn_config.ffn_hidden_size"),
    Key("expert_count", "ffn_config.moe_num_experts"),
    Key("expert_used_count", "ffn_config.moe_top_k"),
)
_GRANITE = (
    Keys((*SIZES, KV, WIDTH, RMS, *_LOCAL_EXPERTS, *SCALES)),
    SILU,
    Tied,
    HeadSize(),
    Rotary(),
    ATTENTION_BIAS,
)
_GRANITE_SHARED = "expert_shared_feed_forward_length"
EXPERT_ARCHITECTURES = (
    Architecture(
        "olmoe",
        "olmoe",
        (
            Keys((*SIZES, KV, WIDTH, RMS, *EXPERTS)),
            SILU,
            UNTIED,
            HeadSize(implied=True),
            Rotary(),
            _as_many_keys("OLMoE"),
            Fixed({"norm_topk_prob": False, "clip_qkv": None, "attention_bias": False}),
        ),
        plain,
    ),
    Architecture(
        "granitemoe",
        "granitemoe",
        (*_GRANITE, Fixed(ignored=(_GRANITE_SHARED,))),
        with_rules(*TURNED),
        lambda metadata: not metadata.get(f"granitemoe.{_GRANITE_SHARED}"),
    ),
    Architecture(
        "granitemoe",
        "granitemoeshared",
        (*_GRANITE, Keys((Key(_GRANITE_SHARED, "shared_intermediate_size"),))),
        with_rules(*TURNED),
        lambda metadata: bool(metadata.get(f"granitemoe.{_GRANITE_SHARED}")),
    ),
    Architecture(
        "dots1",
        "dots1",
        (
            Keys((*SIZES, KV, WIDTH, RMS)),
            SILU,
            UNTIED,
            HeadSize(),
            Rotary(),
            Routed(SIGMOID, normed=True, groups=False),
            _as_many_keys("dots.llm1"),
            Fixed({"attention_bias": False, "sliding_window": None}),
        ),
        plain,
    ),
    Architecture(
        "ernie4_5-moe",
        "ernie4_5_moe",
        (
            Keys((*SIZES, KV, WIDTH, RMS)),
            SILU,
            Tied,
            HeadSize(),
            Rotary(),
            _FromLayer(),
            Fixed({"use_bias": False}),
        ),
        plain,
    ),
    Architecture(
        "hunyuan-moe",
        "hunyuan_v1_moe",
        (
            Keys((*SIZES, KV, WIDTH, RMS, EXPERTS[0], Key("expert_used_count", "moe_topk"), _EXPERT_WIDTH)),
            Keys((Key("expert_shared_feed_forward_length", "intermediate_size", default="feed_forward_length"),)),
            SILU,
            Tied,
            HeadSize(),
            Rotary(),
            Fixed({"attention_bias": False}, keys={"expert_shared_count": Typed("u32", 1)}),
        ),
        plain,
    ),
    Architecture(
        "minimax-m2",
        "minimax_m2",
        (
            Keys((*SIZES, KV, WIDTH, RMS, *_LOCAL_EXPERTS, _EXPERT_WIDTH)),
            SILU,
            UNTIED,
            HeadSize(128),
            Rotary(d_rotary="rotary_dim", head=128),
            Fixed(keys={"expert_gating_func": Typed("u32", SIGMOID)}),
        ),
        plain,
    ),
    Architecture(
        "dbrx",
        "dbrx",
        (Keys(_DBRX), Fixed(keys={"attention.layer_norm_epsilon": Typed("f32", 1e-5)}), UNTIED),
        with_rules(*FUSED, Rule("blocks.*.feedforward_norm", "blk.*.attn_output_norm")),
    ),
    Architecture(
        "llama",
        "mixtral",
        (
            Keys((*SIZES, KV, WIDTH, RMS, Key("expert_count", "num_local_experts"), EXPERTS[1])),
            SILU,
            Tied,
            HeadSize(),
            Rotary(),
            Fixed({"sliding_window": None}),
        ),
        with_rules(*TURNED),
        lambda metadata: bool(metadata.get("llama.expert_count")),
    ),
    Architecture(
        "gpt-oss",
        "gpt_oss",
        (
            Keys((*SIZES, KV, RMS, Key("expert_count", "num_local_experts"), EXPERTS[1])),
            Keys((Key("expert_feed_forward_length", "intermediate_size"),)),
            Fixed({"hidden_act": "silu", "swiglu_alpha": 1.702, "swiglu_limit": 7.0, "attention_bias": True}),
            Fixed({"tie_word_embeddings": False}, ignored=("feed_forward_length",)),
            HeadSize(64),
            Rotary(head=64, scalings=("yarn",), yarn={"truncate": False}, explicit=True),
            Windows(2),
        ),
        with_rules(*POST_NORM),
        remark=lambda config: _ROUNDED if config.get("rope_scaling") else "",
    ),
    Architecture(
        "qwen2moe",
        "qwen2_moe",
        (
            *SPARSE,
            UNTIED,
            HeadSize(implied=True),
            Rotary(),
            OneWidth(),
            Keys((SHARED_WIDTH,)),
            EVERY_LAYER,
            Fixed({"norm_topk_prob": False}),
            HasTensor("qkv_bias", ("blk.0.attn_q.bias",)),
        ),
        plain,
    ),
    Architecture(
        "qwen3moe",
        "qwen3_moe",
        (*SPARSE, HeadSize(), Rotary(), OneWidth(), EVERY_LAYER, Fixed({"norm_topk_prob": True, "attention_bias": False})),
        plain,
    ),
    Architecture(
        "glm4moe",
        "glm4_moe",
        (
            Keys((*SIZES, KV, WIDTH, RMS)),
            SILU,
            Tied,
            HeadSize(),
            Rotary(partial=True),
            Routed(SIGMOID, normed=True, groups=False),
            HasTensor("attention_bias", ("blk.0.attn_q.bias",)),
            HasTensor("use_qk_norm", ("blk.0.attn_q_norm.weight",)),
        ),
        with_rules(*POST_NORM),
    ),
)
