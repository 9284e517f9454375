"""The architectures with layers of short convolutions that the built-in families have: their keys and tensors, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.common_keys import EXPERTS, SIZES, WIDTH
from gptkit.interop.formats.gguf.expert_keys import SIGMOID
from gptkit.interop.formats.gguf.layouts import SQUEEZED
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import DENSE, Fixed, HeadSize, Key, Keys, Tied, Untrained
from gptkit.interop.formats.gguf.rotary import Rotary
from gptkit.interop.formats.gguf.rules import plain
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["CONVOLUTION_ARCHITECTURES"]


class _Convolutions:
    """The layers with convolutions in place of attention, which have no key/value heads."""

    def read(self, keys: ExternalConfig, tensors: Any) -> dict[str, Any]:
        n_layers, heads = keys.layers("block_count"), keys.value("attention.head_count_kv")
        if not isinstance(heads, list) or len(heads) != n_layers or not all(isinstance(each, int) for each in heads):
            keys.refuse("attention.head_count_kv", f"it should be a list of {n_layers} whole numbers, one of each layer")
        numbers = {each for each in heads if each}
        if len(numbers) != 1:
            keys.refuse("attention.head_count_kv", "all layers with attention should have the same number")
        return {
            "num_key_value_heads": numbers.pop(),
            "layer_types": ["full_attention" if each else "conv" for each in heads],
            "conv_L_cache": keys.integer("shortconv.l_cache"),
            "conv_bias": False,
        }

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        heads = [config["num_key_value_heads"] if each == "full_attention" else 0 for each in config["layer_types"]]
        return {
            "attention.head_count_kv": Typed("i32s", heads),
            "shortconv.l_cache": Typed("u32", config.get("conv_L_cache", 3)),
        }


def _rules(model: Any) -> Sequence[Rule]:
    convolutions = [index for index, layer in enumerate(model.layer_specs()) if layer.attention.name == "short-conv"]
    return (
        Rule("final_norm", "token_embd_norm"),
        Rule("blocks.*.attention.input", "blk.*.shortconv.in_proj"),
        Rule("blocks.*.attention.conv", "blk.*.shortconv.conv", SQUEEZED),
        *(Rule(f"blocks.{index}.attention.output", f"blk.{index}.shortconv.out_proj") for index in convolutions),
        *plain(model),
    )


_PARTS = (
    Keys((*SIZES, WIDTH, Key("attention.layer_norm_rms_epsilon", "norm_eps", "f32"))),
    Tied,
    HeadSize(implied=True),
    Rotary(),
    _Convolutions(),
    Untrained(
        lambda config: "full_attention" not in config["layer_types"],
        "llama.cpp cannot load this architecture without a layer of full attention",
    ),
    Untrained(
        lambda config: "conv" not in config["layer_types"],
        "llama.cpp cannot load this architecture without a layer of convolutions",
    ),
    Untrained(
        lambda config: config.get("conv_L_cache", 3) < 2,
        "llama.cpp cannot load this architecture with convolutions of one token",
    ),
    Untrained(
        lambda config: bool(config.get("conv_bias")) and "conv" in config["layer_types"],
        "llama.cpp has no biases in the convolutions of LFM2",
    ),
)

CONVOLUTION_ARCHITECTURES = (
    Architecture("lfm2", "lfm2", (*_PARTS, DENSE, Fixed({"block_auto_adjust_ff_dim": False})), _rules),
    Architecture(
        "lfm2moe",
        "lfm2_moe",
        (
            *_PARTS,
            Keys((*EXPERTS, Key("expert_feed_forward_length", "moe_intermediate_size"))),
            Keys((Key("leading_dense_block_count", "num_dense_layers", default=0),)),
            Fixed(
                {"use_expert_bias": True, "norm_topk_prob": True, "routed_scaling_factor": 1.0},
                keys={"expert_gating_func": Typed("u32", SIGMOID)},
            ),
        ),
        _rules,
    ),
)
