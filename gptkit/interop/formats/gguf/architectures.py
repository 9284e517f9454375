"""Which architecture of llama.cpp is which family, and what its keys and tensors are called there.

Only the way from a file's keys to a family's configuration is binding: an export is made only where the keys that it
writes are read back as the very model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.suggestions import did_you_mean
from gptkit.interop.formats.gguf.container import Typed
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["ARCHITECTURES", "FREQUENCIES", "Architecture", "find_architecture", "permute", "rope_factors", "unpermute"]

FREQUENCIES = "rope_freqs.weight"
"""What each frequency of the rotary positions is divided by: how llama.cpp has Llama 3's scaling."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_TRAINED = tuple(2**power for power in range(4, 21))
"""Context lengths that a scaled model may have been trained with: the factors are tried with each."""

_DECODER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.*.input_layernorm": "blk.*.attn_norm",
    "model.layers.*.post_attention_layernorm": "blk.*.ffn_norm",
    "model.layers.*.self_attn.q_proj": "blk.*.attn_q",
    "model.layers.*.self_attn.k_proj": "blk.*.attn_k",
    "model.layers.*.self_attn.v_proj": "blk.*.attn_v",
    "model.layers.*.self_attn.o_proj": "blk.*.attn_output",
    "model.layers.*.self_attn.q_norm": "blk.*.attn_q_norm",
    "model.layers.*.self_attn.k_norm": "blk.*.attn_k_norm",
    "model.layers.*.mlp.gate_proj": "blk.*.ffn_gate",
    "model.layers.*.mlp.up_proj": "blk.*.ffn_up",
    "model.layers.*.mlp.down_proj": "blk.*.ffn_down",
}
_GPT2 = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "transformer.h.*.ln_1": "blk.*.attn_norm",
    "transformer.h.*.ln_2": "blk.*.ffn_norm",
    "transformer.h.*.attn.c_attn": "blk.*.attn_qkv",
    "transformer.h.*.attn.c_proj": "blk.*.attn_output",
    "transformer.h.*.mlp.c_fc": "blk.*.ffn_up",
    "transformer.h.*.mlp.c_proj": "blk.*.ffn_down",
}


@dataclass(frozen=True)
class Architecture:
    """An architecture of llama.cpp.

    Attributes:
        family: which family has the same configuration and names of tensors.
        names: the family's names of tensors and those here, ``*`` being the layer's number.
        read: the family's configuration, from the keys (without the architecture's name) and the tensors' names.
        write: the keys of a family's configuration.
        interleaved: whether rotary positions turn neighbours, for which the rows of queries and keys are rearranged.
        transposed: tensors whose rows are the family's columns.
    """

    family: str
    names: Mapping[str, str]
    read: Callable[[ExternalConfig, Collection[str]], dict[str, Any]]
    write: Callable[[Mapping[str, Any]], dict[str, Typed]]
    interleaved: bool = False
    transposed: Collection[str] = field(default=())

    def renamed(self, name: str, *, back: bool = False) -> str | None:
        """The name here of the family's tensor; or, `back`, the family's of a tensor here. None for none."""
        stem, _, leaf = name.rpartition(".")
        number = re.search(r"\.(\d+)\.", stem)
        plain = stem if number is None else f"{stem[: number.start()]}.*.{stem[number.end() :]}"
        table = {there: native for native, there in self.names.items()} if back else self.names
        found = table.get(plain)
        if found is None or leaf not in ("weight", "bias"):
            return None
        return f"{found if number is None else found.replace('*', number[1])}.{leaf}"

    def rearranged(self, name: str) -> str | None:
        """Which count of heads the rows of a tensor here go by, where rows are rearranged."""
        if not self.interleaved:
            return None
        match = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name)
        return None if match is None else {"q": "num_attention_heads", "k": "num_key_value_heads"}[match[1]]


def permute(tensor: Tensor, n_heads: int) -> Tensor:
    """Rows of each head, from halves to neighbours: (H, 2, D/2) to (H, D/2, 2)."""
    return tensor.reshape(n_heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def unpermute(tensor: Tensor, n_heads: int) -> Tensor:
    """What `permute` undoes."""
    return tensor.reshape(n_heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def find_architecture(name: object, place: str) -> Architecture:
    """The architecture that a file says it is of.

    Raises:
        ExternalModelError: none that is known; says which are.
    """
    if not isinstance(name, str):
        raise ExternalModelError(f"{place} has no general.architecture", hint="Give the file of a model.")
    if name not in ARCHITECTURES:
        what = did_you_mean(name, sorted(ARCHITECTURES), label="those that are read are")
        raise ExternalModelError(
            f"{place} has the architecture {name!r}; {what}", hint="Import the model from its safetensors instead."
        )
    return ARCHITECTURES[name]


def _read_decoder(keys: ExternalConfig, tensors: Collection[str], head: int | None = None) -> dict[str, Any]:
    width, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    d_head = keys.integer("attention.key_length", head or width // max(1, n_heads))
    if keys.integer("attention.value_length", d_head) != d_head:
        keys.refuse("attention.value_length", "keys and values are of one size here")
    if keys.integer("rope.dimension_count", d_head) != d_head:
        keys.refuse("rope.dimension_count", f"positions turn whole heads of {d_head} here")
    theta = keys.number("rope.freq_base", 10000.0)
    length = keys.integer("context_length")
    config: dict[str, Any] = {
        "max_position_embeddings": length,
        "hidden_size": width,
        "num_hidden_layers": keys.layers("block_count"),
        "intermediate_size": keys.integer("feed_forward_length"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", n_heads),
        "head_dim": d_head,
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "hidden_act": "silu",
        "rope_theta": theta,
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    factor = keys.maybe("rope.scaling.factor") or keys.maybe("rope.scale_linear")
    kind = keys.text("rope.scaling.type", "none" if factor is None else "linear")
    if kind not in ("none", "linear", "yarn"):
        keys.refuse("rope.scaling.type", "gptkit does not read such a scaling from GGUF")
    trained = keys.nullable("rope.scaling.original_context_length", length)
    keys.value("rope.scaling.finetuned")
    if factor is not None and kind != "none":
        config["rope_scaling"] = {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            config["rope_scaling"] |= {"original_max_position_embeddings": trained}
    return config


def _write_decoder(config: Mapping[str, Any]) -> dict[str, Typed]:
    keys = {
        "context_length": Typed("u32", config["max_position_embeddings"]),
        "embedding_length": Typed("u32", config["hidden_size"]),
        "block_count": Typed("u32", config["num_hidden_layers"]),
        "feed_forward_length": Typed("u32", config["intermediate_size"]),
        "attention.head_count": Typed("u32", config["num_attention_heads"]),
        "attention.head_count_kv": Typed("u32", config["num_key_value_heads"]),
        "attention.key_length": Typed("u32", config["head_dim"]),
        "attention.value_length": Typed("u32", config["head_dim"]),
        "attention.layer_norm_rms_epsilon": Typed("f32", config["rms_norm_eps"]),
        "rope.dimension_count": Typed("u32", config["head_dim"]),
        "rope.freq_base": Typed("f32", config["rope_theta"]),
    }
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") in ("linear", "yarn"):
        keys["rope.scaling.type"] = Typed("string", scaling["rope_type"])
        keys["rope.scaling.factor"] = Typed("f32", scaling["factor"])
    if scaling.get("rope_type") == "yarn":
        keys["rope.scaling.original_context_length"] = Typed("u32", scaling["original_max_position_embeddings"])
    return keys


def _read_llama(keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
    biased = "blk.0.attn_q.bias" in tensors
    return {**_read_decoder(keys, tensors), "attention_bias": biased, "mlp_bias": "blk.0.ffn_up.bias" in tensors}


def _read_qwen3(keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
    return {**_read_decoder(keys, tensors, 128), "attention_bias": False}


def _read_gpt2(keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
    return {
        "n_positions": keys.integer("context_length"),
        "n_embd": keys.integer("embedding_length"),
        "n_layer": keys.layers("block_count"),
        "n_head": keys.integer("attention.head_count"),
        "n_inner": keys.integer("feed_forward_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
        "tie_word_embeddings": "output.weight" not in tensors,
    }


def _write_gpt2(config: Mapping[str, Any]) -> dict[str, Typed]:
    return {
        "context_length": Typed("u32", config["n_positions"]),
        "embedding_length": Typed("u32", config["n_embd"]),
        "block_count": Typed("u32", config["n_layer"]),
        "attention.head_count": Typed("u32", config["n_head"]),
        "feed_forward_length": Typed("u32", config["n_inner"]),
        "attention.layer_norm_epsilon": Typed("f32", config["layer_norm_epsilon"]),
    }


def rope_factors(config: Mapping[str, Any]) -> Tensor | None:
    """`FREQUENCIES` for a configuration with Llama 3's scaling; None without."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") != "llama3":
        return None
    d_head, base, factor = config["head_dim"], config["rope_theta"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    trained = scaling["original_max_position_embeddings"]
    factors = []
    for index in range(0, d_head, 2):
        turns = trained / (2 * math.pi * base ** (index / d_head))
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        factors.append(1 / ((1 - share) / factor + share))
    return torch.tensor(factors, dtype=torch.float32)


def read_rope_factors(config: Mapping[str, Any], found: Tensor, place: str) -> dict[str, Any]:
    """The scaling of rotary positions that gives such factors.

    Raises:
        ExternalModelError: none that is known.
    """
    largest = float(found.max()) if found.numel() else 0.0
    sound = 1 <= largest < 1e6 and config["rope_theta"] > 1 and 2 * found.numel() == config["head_dim"]
    for trained in _TRAINED if sound else ():
        scaling = {
            "rope_type": "llama3",
            "factor": round(largest, 4),
            **_LLAMA3,
            "original_max_position_embeddings": trained,
        }
        expected = rope_factors({**config, "rope_scaling": scaling})
        if expected is not None and torch.allclose(expected, found.float(), rtol=1e-4):
            return scaling
    raise ExternalModelError(f"{place}: {FREQUENCIES} scales rotary positions in a way that is not known here")


ARCHITECTURES = {
    "llama": Architecture("llama", _DECODER, _read_llama, _write_decoder, interleaved=True),
    "qwen2": Architecture("qwen2", _DECODER, _read_decoder, _write_decoder),
    "qwen3": Architecture("qwen3", _DECODER, _read_qwen3, _write_decoder),
    "gpt2": Architecture(
        "gpt2", _GPT2, _read_gpt2, _write_gpt2, transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down")
    ),
}
"""By the name that files give."""
