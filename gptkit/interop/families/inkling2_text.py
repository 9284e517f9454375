"""Inkling 2, the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import experts
from gptkit.interop.families.parts.inkling.attention import FULL, SLIDING
from gptkit.interop.families.parts.inkling2.attention import read_attention, read_position, write_layers
from gptkit.interop.families.parts.inkling2.blocks import read_block, read_experts, read_sizes, write_blocks
from gptkit.interop.families.parts.inkling2.names import RENAMES
from gptkit.interop.families.parts.inkling2.tensors import inkling2_rules
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.layers import every, read_types
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Inkling2TextFamily"]

TINY: dict[str, Any] = {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 12, "head_dim": 12}
TINY |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "sliding_window_size": 6, "rel_extent": 9, "d_rel": 5}
TINY |= {"layer_types": [SLIDING, FULL, SLIDING, FULL], "n_layers_per_attn_res_block": 2, "qk_l2_clip_threshold": 3.0}
TINY |= {"intermediate_size": 20, "moe_intermediate_size": 20}


class Inkling2TextFamily(Decoder):
    """Inkling 2 (text): attention over earlier outputs, bounded queries and keys, sinks of tokens, convolutions, experts."""

    name: Literal["inkling2-text"] = "inkling2-text"
    model_type: ClassVar[str] = "inkling2_text"
    architecture: ClassVar[str] = "Inkling2ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | experts.INERT | keys("number_of_conv_states")
    renames: ClassVar[tuple[tuple[str, str], ...]] = RENAMES
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (TINY,)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        sizes = read_sizes(config)
        return {**super().model(config), **sizes}

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "token", "norm": self.read_norm(config)}

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return read_position(config)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return read_attention(config, SLIDING, self.read_norm(config)["eps"])

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return read_experts(config)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return read_block(config)

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"softcap": config.number("final_logit_softcapping", 30.0)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        full = read_attention(config, FULL, self.read_norm(config)["eps"])
        own: dict[str, dict[str, Any]] = {SLIDING: {"position": "none"}}
        own[FULL] = {"attention": {"window": None, **full}, "block": {"kv_inputs": True}}
        usual = [FULL if each else SLIDING for each in every(6, n_layers)]
        return [own[kind] for kind in read_types(config, n_layers, usual, (FULL, SLIDING))]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return write_layers(layers)

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return write_blocks(layers)

    def config(self, model: Any) -> dict[str, Any]:
        written = {**super().config(model), "final_logit_softcapping": model.head.softcap}
        return {**written, "unpadded_vocab_size": model.vocab_size}

    def rules(self, model: Any) -> list[Rule]:
        return inkling2_rules(model.vocab_size, [layer.block for layer in model.layer_specs()])
