"""Inkling, the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import experts
from gptkit.interop.families.parts.inkling import feedforwards
from gptkit.interop.families.parts.inkling.attention import FULL, SLIDING, read_attention, read_conv, read_temperature
from gptkit.interop.families.parts.inkling.keys import INERT, read_scale, read_sizes
from gptkit.interop.families.parts.inkling.layers import read_kinds, write_layers
from gptkit.interop.families.parts.inkling.tensors import inkling_rules
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["InklingTextFamily"]

TINY: dict[str, Any] = {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 12, "head_dim": 12}
TINY |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "sliding_window_size": 6, "rel_extent": 9, "d_rel": 5}
TINY |= {"layer_types": [SLIDING, FULL, SLIDING, FULL], "mlp_layer_types": ["dense", "sparse", "sparse", "dense"]}


class InklingTextFamily(Decoder):
    """Inkling (text): short convolutions, relative terms of scores in place of positions, experts with shared ones."""

    name: Literal["inkling-text"] = "inkling-text"
    model_type: ClassVar[str] = "inkling_text"
    architecture: ClassVar[str] = "InklingForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | experts.INERT | INERT
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"model\.mtp\..*")
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (TINY,)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        sizes = read_sizes(config)
        return {**super().model(config), **sizes}

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "token", "norm": self.read_norm(config)}

    def read_position(self, config: ExternalConfig) -> Any:
        return read_temperature(config)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return read_attention(config, FULL, self.read_norm(config))

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return feedforwards.read_experts(config)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "pre-norm", "output_conv": read_conv(config)}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"scale": read_scale(config)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        sliding = {"attention": read_attention(config, SLIDING, self.read_norm(config)), "position": "none"}
        plain = {"feedforward": feedforwards.read_dense(config)}
        kinds, sparse = read_kinds(config, n_layers), feedforwards.read_sparse(config, n_layers)
        return [
            {**(sliding if kind == SLIDING else {}), **({} if each else plain)}
            for kind, each in zip(kinds, sparse, strict=True)
        ]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return write_layers(layers)

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return feedforwards.write_feedforwards(layers)

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "logits_mup_width_multiplier": 1 / model.head.scale}

    def rules(self, model: Any) -> list[Rule]:
        return [*inkling_rules(model.vocab_size), *super().rules(model)]
