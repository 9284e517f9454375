"""GPT-BigCode."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.gpt2 import GPT2Family
from gptkit.interop.layouts import GROUPED
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GPTBigCodeFamily"]


class GPTBigCodeFamily(GPT2Family):
    """StarCoder and SantaCoder: GPT-2 whose heads share one key and value."""

    name: Literal["gpt-bigcode"] = "gpt-bigcode"  # type: ignore[assignment]
    model_type: ClassVar[str] = "gpt_bigcode"
    architecture: ClassVar[str] = "GPTBigCodeForCausalLM"
    rank: ClassVar[int] = 10
    harmless: ClassVar[frozenset[str]] = GPT2Family.harmless | {
        "attention_softmax_in_fp32",
        "scale_attention_softmax_in_fp32",
        "inference_runner",
        "max_batch_size",
        "max_sequence_length",
        "pad_key_length",
        "pre_allocate_kv_cache",
        "validate_runner_input",
        "runner_max_sequence_length",
        "num_key_value_heads",
    }

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("scale_attn_by_inverse_layer_idx", False, why="transformers ignores it in this family")
        result = super().model(config)
        if config.flag("multi_query", True):
            result["attention"] |= {"name": "grouped-query", "n_kv_heads": 1}
        result["feedforward"]["activation"] = result["feedforward"]["activation"]
        return result

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "multi_query": model.attention.kv_heads == 1}

    def rules(self, model: Any) -> list[Rule]:
        plain = [Rule(rule.native, rule.external) for rule in super().rules(model)]
        return [Rule(r.native, r.external, GROUPED) if r.native.endswith(".qkv") else r for r in plain]
