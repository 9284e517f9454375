"""The architectures of dense models with layer norms that the built-in families have: their keys and tensors, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.common_keys import (
    ATTENTION_BIAS,
    GELU,
    KV,
    MLP_BIAS,
    SILU,
    SIZES,
    UNTIED,
    WIDTH,
    ignored_window,
    layer_norm,
)
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import DENSE, HINT, TIED, Fixed, HasTensor, HeadSize, Key, Keys, Tied, Windows
from gptkit.interop.formats.gguf.rotary import Rotary
from gptkit.interop.formats.gguf.rules import FUSED, OFFSET_WEIGHTS, TURNED, falcon, plain, with_rules
from gptkit.kinds.family import Rule

__all__ = ["LAYER_NORM_ARCHITECTURES"]


@dataclass(frozen=True)
class _FourTimes:
    """The width of the feed-forward of MPT and BLOOM, which the configuration does not have.

    Attributes:
        width: key of the configuration for the model's width.
    """

    width: str

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        keys.value("attention.head_count_kv")
        keys.value("feed_forward_length")
        return {}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        return {"feed_forward_length": Typed("u32", 4 * config[self.width])}


class _FalconHeads:
    """Falcon's number of key/value heads and of norms, from which its generation follows."""

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        n_heads = keys.integer("attention.head_count")
        n_kv_heads = keys.integer("attention.head_count_kv", n_heads)
        norms = 2 if "blk.0.attn_norm_2.weight" in tensors else 1
        new = norms == 2 or n_kv_heads not in (1, n_heads)
        result = {"num_kv_heads": n_kv_heads, "multi_query": n_kv_heads == 1, "new_decoder_architecture": new}
        return {**result, "num_ln_in_parallel_attn": norms}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        new, shared = config["new_decoder_architecture"], config["multi_query"]
        heads = config["num_kv_heads"] if new else 1 if shared else config["num_attention_heads"]
        return {"attention.head_count_kv": Typed("u32", heads)}


class _LargeNorms:
    """The norms of queries and keys of Command R+, which llama.cpp recognizes by its number of layers."""

    least = 64

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        return {"use_qk_norm": "blk.0.attn_q_norm.weight" in tensors}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        n_layers = config["num_hidden_layers"]
        if config["use_qk_norm"] != (n_layers >= self.least):
            raise ExternalModelError(
                f"llama.cpp expects norms of queries and keys in models with at least {self.least} layers, and in no "
                f"others; this model has {n_layers}",
                hint=HINT,
            )
        return {}


class _SharedKeys:
    """Whether the heads of StarCoder share one key and value."""

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        n_heads = keys.integer("attention.head_count")
        n_kv_heads = keys.integer("attention.head_count_kv", n_heads)
        if n_kv_heads not in (1, n_heads):
            keys.refuse("attention.head_count_kv", f"it should be 1 or {n_heads}")
        return {"multi_query": n_kv_heads == 1}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        return {"attention.head_count_kv": Typed("u32", 1 if config["multi_query"] else config["n_head"])}


def _architectures() -> tuple[Architecture, ...]:
    parallel = (Keys((*SIZES, KV, WIDTH, layer_norm("layer_norm_eps"))), SILU, TIED, DENSE, HeadSize(implied=True))
    gpt2 = (
        Key("context_length", "n_positions"),
        Key("embedding_length", "n_embd"),
        Key("block_count", "n_layer"),
        Key("attention.head_count", "n_head"),
        Key("feed_forward_length", "n_inner"),
        layer_norm("layer_norm_epsilon"),
    )
    mpt = (
        Key("context_length", "max_seq_len"),
        Key("embedding_length", "d_model"),
        Key("block_count", "n_layers"),
        Key("attention.head_count", "n_heads"),
        layer_norm("layer_norm_epsilon"),
        Key("attention.clamp_kqv", "attn_config.clip_qkv", "f32", optional=True),
    )
    bloom = (
        Key("context_length", "seq_length"),
        Key("embedding_length", "hidden_size"),
        Key("block_count", "n_layer"),
        Key("attention.head_count", "n_head"),
        layer_norm("layer_norm_epsilon"),
    )
    sizes = (*SIZES, WIDTH)
    gelu = Fixed({"activation_function": "gelu_new"})
    return (
        Architecture("gpt2", "gpt2", (Keys(gpt2), gelu, Tied), with_rules(*FUSED)),
        Architecture("starcoder", "gpt_bigcode", (Keys(gpt2), gelu, Tied, _SharedKeys()), with_rules(*FUSED)),
        Architecture(
            "gptneox",
            "gpt_neox",
            (
                Keys((*sizes, layer_norm("layer_norm_eps"), Key("use_parallel_residual", "use_parallel_residual", "bool"))),
                Fixed({"hidden_act": "gelu", "attention_bias": True}),
                UNTIED,
                DENSE,
                HeadSize(implied=True),
                Rotary(partial=True, base="rotary_emb_base", fraction="rotary_pct"),
            ),
            with_rules(*FUSED),
            remark=lambda config: GELU,
        ),
        Architecture(
            "phi2",
            "phi",
            (
                Keys((*sizes, KV, layer_norm("layer_norm_eps"))),
                Fixed({"hidden_act": "gelu_new", "qk_layernorm": False}),
                UNTIED,
                DENSE,
                HeadSize(implied=True),
                Rotary(partial=True),
            ),
            plain,
        ),
        Architecture(
            "stablelm",
            "stablelm",
            (
                Keys((*sizes, KV, layer_norm("layer_norm_eps"))),
                # Files of the converter have the key with a default that is not the model's.
                Fixed(ignored=("use_parallel_residual",)),
                SILU,
                UNTIED,
                DENSE,
                HeadSize(implied=True),
                Rotary(partial=True),
                HasTensor("use_parallel_residual", ("blk.0.ffn_norm.weight",), absent=True),
                HasTensor("qk_layernorm", ("blk.0.attn_q_norm.weight",)),
                HasTensor("use_qkv_bias", ("blk.0.attn_q.bias",)),
            ),
            plain,
        ),
        Architecture(
            "olmo",
            "olmo",
            (
                Keys((*sizes, KV, Key("attention.clamp_kqv", "clip_qkv", "f32", optional=True))),
                Fixed(keys={"attention.layer_norm_epsilon": Typed("f32", 1e-5)}),
                Fixed({"attention_bias": False}),
                SILU,
                Tied,
                DENSE,
                HeadSize(implied=True),
                Rotary(),
            ),
            with_rules(*TURNED),
        ),
        Architecture(
            "bloom",
            "bloom",
            (Keys(bloom), _FourTimes("hidden_size"), Tied),
            with_rules(*FUSED, Rule("embedding.norm", "token_embd_norm")),
        ),
        Architecture(
            "nemotron",
            "nemotron",
            (
                Keys((*sizes, KV, layer_norm("norm_eps"))),
                Fixed({"hidden_act": "relu2"}),
                UNTIED,
                DENSE,
                HeadSize(implied=True),
                Rotary(partial=True),
                ATTENTION_BIAS,
                MLP_BIAS,
            ),
            with_rules(*OFFSET_WEIGHTS),
        ),
        Architecture(
            "jais2",
            "jais2",
            (
                Keys((*sizes, KV, layer_norm("layer_norm_eps"))),
                Fixed({"hidden_act": "relu2", "attention_bias": True, "mlp_bias": True}),
                Tied,
                DENSE,
                HeadSize(),
                Rotary(),
            ),
            plain,
        ),
        Architecture(
            "command-r",
            "cohere",
            (
                *parallel,
                Rotary(scalings=()),
                Keys((Key("logit_scale", "logit_scale", "f32", factor=True),)),
                _LargeNorms(),
                Fixed({"attention_bias": False}),
            ),
            plain,
        ),
        Architecture(
            "cohere2",
            "cohere2",
            (*parallel, Rotary(scalings=()), Keys((Key("logit_scale", "logit_scale", "f32", factor=True),)), Windows(4)),
            plain,
        ),
        Architecture(
            "starcoder2",
            "starcoder2",
            (
                Keys((*SIZES, KV, WIDTH, layer_norm("norm_epsilon"))),
                Fixed({"hidden_act": "gelu_pytorch_tanh", "use_bias": True}),
                Tied,
                DENSE,
                HeadSize(implied=True),
                Rotary(),
                ignored_window("StarCoder 2"),
            ),
            plain,
        ),
        Architecture(
            "falcon",
            "falcon",
            (
                Keys((*SIZES, Key("feed_forward_length", "ffn_hidden_size"), layer_norm("layer_norm_epsilon"))),
                Fixed(
                    {"activation": "gelu", "bias": False, "alibi": False, "parallel_attn": True},
                    ignored=("tensor_data_layout",),
                ),
                Tied,
                DENSE,
                HeadSize(implied=True),
                Rotary(scalings=("linear",)),
                _FalconHeads(),
            ),
            falcon,
            remark=lambda config: GELU,
        ),
        Architecture(
            "mpt",
            "mpt",
            (
                Keys(mpt),
                Fixed(keys={"attention.max_alibi_bias": Typed("f32", 8.0)}),
                _FourTimes("d_model"),
                Tied,
            ),
            with_rules(*FUSED),
            remark=lambda config: GELU,
        ),
    )


LAYER_NORM_ARCHITECTURES = _architectures()
