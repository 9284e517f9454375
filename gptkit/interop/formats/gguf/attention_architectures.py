"""The architectures with latent or linear attention that the built-in families have: their keys and tensors, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.common_keys import COMMON, RMS, SILU, SIZES, WIDTH
from gptkit.interop.formats.gguf.expert_keys import EVERY_LAYER, SHARED_WIDTH, SIGMOID, SOFTMAX, SPARSE, OneWidth, Routed
from gptkit.interop.formats.gguf.layouts import Tiled
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import HINT, Fixed, HeadSize, Keys, Tied, Untrained
from gptkit.interop.formats.gguf.rotary import Rotary
from gptkit.interop.formats.gguf.rules import QWEN_NEXT, latent, linear
from gptkit.interop.layouts import HALVES
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["LATENT_AND_LINEAR_ARCHITECTURES"]

_LITE = (26, 27)
"""Numbers of layers for which llama.cpp expects no latent of queries."""
_EPS = 1e-6


def _one_epsilon(where: str) -> Untrained:
    """Return the part of an architecture in which llama.cpp has one epsilon, and the family a fixed one at a place."""
    return Untrained(
        lambda config: abs(config["rms_norm_eps"] - _EPS) > 1e-3 * _EPS,
        f"llama.cpp uses the epsilon of norms for {where} too, where it is {_EPS} in this family",
    )


class _Linear:
    """Layers of linear attention, between which each n-th has full attention."""

    def __init__(self, sections: bool) -> None:
        self.sections = sections

    def read(self, keys: ExternalConfig, tensors: Any) -> dict[str, Any]:
        n_layers, n_values = keys.layers("block_count"), keys.integer("ssm.time_step_rank")
        d_key, inner = keys.integer("ssm.state_size"), keys.integer("ssm.inner_size")
        if inner != d_key * n_values:
            keys.refuse("ssm.inner_size", f"{n_values} heads of {d_key} features have {d_key * n_values}")
        interval = keys.integer("full_attention_interval", 4)
        if self.sections:
            # The positions of a text token are equal in all sections.
            keys.value("rope.dimension_sections")
        full = [interval > 0 and (index + 1) % interval == 0 for index in range(n_layers)]
        return {
            "layer_types": ["full_attention" if each else "linear_attention" for each in full],
            "linear_num_key_heads": keys.integer("ssm.group_count"),
            "linear_num_value_heads": n_values,
            "linear_key_head_dim": d_key,
            "linear_value_head_dim": d_key,
            "linear_conv_kernel_dim": keys.integer("ssm.conv_kernel"),
        }

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        types, d_key = config["layer_types"], config["linear_key_head_dim"]
        if "full_attention" not in types:
            # It aborts: its cache of keys and values has no memory.
            raise ExternalModelError("llama.cpp cannot load this architecture without a layer of full attention", hint=HINT)
        interval = types.index("full_attention") + 1
        keys = {
            "ssm.conv_kernel": config["linear_conv_kernel_dim"],
            "ssm.inner_size": config["linear_num_value_heads"] * config["linear_value_head_dim"],
            "ssm.state_size": d_key,
            "ssm.time_step_rank": config["linear_num_value_heads"],
            "ssm.group_count": config["linear_num_key_heads"],
            "full_attention_interval": interval,
        }
        result = {key: Typed("u32", value) for key, value in keys.items()}
        if self.sections:
            share = config.get("partial_rotary_factor") or 1.0
            pairs = round(share * config["head_dim"]) // 2
            # Of three sections in turn, the n-th has every third pair from the n-th; pairs in none are not rotated.
            result["rope.dimension_sections"] = Typed("i32s", [*((pairs + 2 - index) // 3 for index in range(3)), 0])
        return result


class _Latent:
    """DeepSeek's latent attention: llama.cpp computes it with one key/value head that all queries share."""

    def read(self, keys: ExternalConfig, tensors: Any) -> dict[str, Any]:
        keys.only("attention.head_count_kv", 1, why="gptkit reads files with one latent head; convert the model again")
        rank, rotary = keys.integer("attention.kv_lora_rank"), keys.integer("rope.dimension_count")
        for key, expected in (("attention.key_length", rank + rotary), ("attention.value_length", rank)):
            if keys.integer(key, expected) != expected:
                keys.refuse(key, f"the latent head has {expected} features")
        q_rank = keys.integer("attention.q_lora_rank") if "attention.q_lora_rank" in keys else None
        n_heads = keys.integer("attention.head_count")
        return {
            "num_key_value_heads": n_heads,
            "kv_lora_rank": rank,
            "q_lora_rank": q_rank,
            "qk_nope_head_dim": keys.integer("attention.key_length_mla") - rotary,
            "v_head_dim": keys.integer("attention.value_length_mla"),
            "attention_bias": False,
        }

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        rank, rotary = config["kv_lora_rank"], config["qk_rope_head_dim"]
        if (config["q_lora_rank"] is None) != (config["num_hidden_layers"] in _LITE):
            raise ExternalModelError(
                "llama.cpp recognizes DeepSeek's models without a latent of queries (q_lora_rank) by their number of "
                f"layers, {' or '.join(map(str, _LITE))}, and this model has {config['num_hidden_layers']}",
                hint=HINT,
            )
        keys = {
            "attention.head_count_kv": 1,
            "attention.kv_lora_rank": rank,
            "attention.key_length": rank + rotary,
            "attention.value_length": rank,
            "attention.key_length_mla": config["qk_nope_head_dim"] + rotary,
            "attention.value_length_mla": config["v_head_dim"],
        }
        if config["q_lora_rank"] is not None:
            keys["attention.q_lora_rank"] = config["q_lora_rank"]
        return {key: Typed("u32", value) for key, value in keys.items()}


_UNIT_KEYS = _one_epsilon("the unit vectors of linear attention's queries and keys")
_NEXT_35 = (
    *SPARSE,
    HeadSize(256),
    Rotary(partial=True, head=256),
    OneWidth(),
    Keys((SHARED_WIDTH,)),
    Fixed(ignored=("expert_shared_count",)),
    _UNIT_KEYS,
)
_NEXT = (*_NEXT_35, EVERY_LAYER)
_DEEPSEEK = (
    Keys((*SIZES, WIDTH, RMS)),
    SILU,
    Tied,
    Rotary(d_rotary="qk_rope_head_dim", scalings=()),
    _Latent(),
    _one_epsilon("the norms of latents"),
)
_TILED_RATES = Rule("blocks.*.attention.rates", "blk.*.{ssm_beta,ssm_alpha}", Tiled(HALVES, (True, True)))
_NO_BIAS = Fixed({"attention_bias": False})


def _gating(metadata: Mapping[str, Any]) -> int:
    return int(metadata.get("deepseek2.expert_gating_func") or SOFTMAX)


LATENT_AND_LINEAR_ARCHITECTURES = (
    Architecture(
        "qwen3next",
        "qwen3_next",
        (*_NEXT, _Linear(sections=False), Fixed({"norm_topk_prob": True}), _NO_BIAS),
        QWEN_NEXT,
    ),
    Architecture(
        "qwen35",
        "qwen3_5_text",
        (*COMMON, HeadSize(256), Rotary(partial=True, head=256), _Linear(sections=True), _NO_BIAS, _UNIT_KEYS),
        linear(_TILED_RATES, tiled=True),
    ),
    Architecture(
        "qwen35moe",
        "qwen3_5_moe_text",
        (*_NEXT_35, _Linear(sections=True), _NO_BIAS),
        linear(_TILED_RATES, tiled=True),
    ),
    Architecture(
        "deepseek2",
        "deepseek_v2",
        (*_DEEPSEEK, Routed(SOFTMAX, normed=False, groups=False)),
        latent,
        lambda metadata: _gating(metadata) == SOFTMAX,
    ),
    Architecture(
        "deepseek2",
        "deepseek_v3",
        (*_DEEPSEEK, Routed(SIGMOID, normed=True, groups=True)),
        latent,
        lambda metadata: _gating(metadata) == SIGMOID,
    ),
)
