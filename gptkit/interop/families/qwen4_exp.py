"""Qwen 4 Exp, the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts import qwen4_exp as own
from gptkit.interop.families.parts.experts import first_of
from gptkit.interop.families.parts.gated_delta import read_delta
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.qwen3_5_moe import Qwen35MoeFamily
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Qwen4ExpFamily"]


class Qwen4ExpFamily(Qwen35MoeFamily):
    """Qwen 4 Exp (text): residual streams with gates, an indexer of blocks of keys, n-grams of ids in some layers."""

    name: Literal["qwen4-exp"] = "qwen4-exp"  # type: ignore[assignment]
    model_type: ClassVar[str] = "qwen4_exp_text"
    model_types: ClassVar[tuple[str, ...]] = ("qwen4_exp",)
    architecture: ClassVar[str] = "Qwen4ExpForCausalLM"
    # The parts of a table of n-grams are joined when files are read.
    harmless: ClassVar[frozenset[str]] = Qwen35MoeFamily.harmless | keys("split_ngram_parts number_of_conv_states")
    fraction: ClassVar[float] = 1.0
    partial: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (own.TINY,)

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().read_feedforward(config)
        router = {"k": config.integer("num_experts_per_tok", 10), "renormalize": config.flag("norm_topk_prob", True)}
        n_experts = config.integer("num_experts", 512)
        return {**result, "n_experts": n_experts, "router": {**result["router"], **router}}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        config.only("output_gate_type", None, "silu", why="linear attention has its gate's activation fixed here")
        linear = own.read_types_of(config, n_layers)
        delta, blocks = read_delta(config, config.number(*self.eps)), own.read_blocks(config, linear)
        indexed: dict[str, Any] = {}
        if all(linear):
            own.skip_indexer(config)
        else:
            indexed = {"attention": own.read_indexed(config, self.read_attention(config))}
        return [{**(delta if each else indexed), "block": block} for each, block in zip(linear, blocks, strict=True)]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_attention(layers), **own.write_indexed(layers)}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        router = first_of(layers, "experts").router
        return {**super().write_feedforward(layers), "norm_topk_prob": router.renormalize}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), **own.write_blocks(model.layer_specs())}

    def rules(self, model: Any) -> list[Rule]:
        return own.within_engrams([*own.rules(model), *super().rules(model)])
