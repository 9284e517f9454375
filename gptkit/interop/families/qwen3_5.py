"""Qwen 3.5, the dense language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.gated_delta import DELTA, PATTERN, delta_rules, read_delta, read_delta_types, write_delta
from gptkit.interop.families.parts.hybrids import layers_without
from gptkit.interop.families.qwen3 import Qwen3Family
from gptkit.interop.layouts import GATED_HEADS, GATES_LAST, HALVES
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Qwen35Family"]


class Qwen35Family(Qwen3Family):
    """Qwen 3.5 (text): three layers of linear attention to one of gated full attention."""

    name: Literal["qwen3.5"] = "qwen3.5"  # type: ignore[assignment]
    model_type: ClassVar[str] = "qwen3_5_text"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_5",)
    architecture: ClassVar[str] = "Qwen3_5ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Qwen3Family.harmless | {
        PATTERN,
        "mtp_num_hidden_layers",
        "mtp_use_dedicated_embeddings",
    }
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "attn_output_gate": (True,),
        "mamba_ssm_dtype": ("float32",),
        "mlp_only_layers": ([],),
    }
    prefixes: ClassVar[Mapping[str, str]] = {"model.language_model.": "model."}
    ignored: ClassVar[tuple[str, ...]] = (*Qwen3Family.ignored, r"mtp\..*", r"model\.visual\..*")
    d_head: ClassVar[int | None] = 256
    fraction: ClassVar[float] = 0.25
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"linear_key_head_dim": 8, "linear_value_head_dim": 8},)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        for key in ("mrope_section", "mrope_interleaved"):
            # The three positions of a text token are equal.
            config.section("rope_scaling" if config.value("rope_scaling") else "rope_parameters").value(key)
        return super().read_position(config)

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "offset": 1, "cast": "after"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "output_gate": True}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        linear = read_delta(config, config.number(*self.eps))
        return [linear if each else {} for each in read_delta_types(config, n_layers)]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = super().write_attention(layers_without(layers, DELTA))
        kept = {key: value for key, value in result.items() if "sliding_window" not in key}
        return {**kept, **write_delta(layers)}

    def rules(self, model: Any) -> list[Rule]:
        attention, linear = "blocks.*.attention", "model.layers.*.linear_attn.in_proj_"
        return [
            *delta_rules(model),
            Rule(f"{attention}.qkvz", f"{linear}{{qkv,z}}", GATES_LAST),
            Rule(f"{attention}.rates", f"{linear}{{b,a}}", HALVES),
            Rule(f"{attention}.qkv", "model.layers.*.self_attn.{q,k,v}_proj", GATED_HEADS),
            *super().rules(model),
        ]
