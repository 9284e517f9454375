"""Gemma 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.gemma import GemmaFamily
from gptkit.interop.families.parts.windows import all_but_every, read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Gemma2Family"]


class Gemma2Family(GemmaFamily):
    """Gemma 2: norms around each branch, soft caps, sliding windows in every other layer."""

    name: Literal["gemma2"] = "gemma2"  # type: ignore[assignment]
    model_type: ClassVar[str] = "gemma2"
    architecture: ClassVar[str] = "Gemma2ForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset({"cache_implementation", "_sliding_window_pattern"})
    synonyms: ClassVar[Mapping[str, str]] = {"sliding_window_size": "sliding_window"}
    activation: ClassVar[tuple[str, str]] = ("hidden_activation", "gelu_pytorch_tanh")
    caps: ClassVar[tuple[float | None, float | None]] = (50.0, 30.0)
    every: ClassVar[int] = 2

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        features = config.number("query_pre_attn_scalar", 256)
        if features <= 0:
            config.refuse("query_pre_attn_scalar", "scores are divided by its square root")
        return {**super().read_attention(config), "scale": features**-0.5, "softcap": self._cap(config, "attn", 0)}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"softcap": self._cap(config, "final", 1)}

    def _cap(self, config: ExternalConfig, which: str, index: int) -> float | None:
        key = f"{which}_logit_softcapping"
        return config.maybe(key) if key in config.data else self.caps[index]

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "sandwich"}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        window = config.nullable("sliding_window", 4096)
        n = config.integer("sliding_window_pattern", self.every)
        return [
            {"attention": {"window": window}} if each else {} for each in read_windows(config, all_but_every(n, n_layers))
        ]

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        attention = layers[0].attention
        return {
            **super().config(model),
            "query_pre_attn_scalar": round((attention.scale or attention.d_head**-0.5) ** -2),
            "attn_logit_softcapping": attention.softcap,
            "final_logit_softcapping": model.head.softcap,
            **write_windows(model, 4096),
        }

    def rules(self, model: Any) -> list[Rule]:
        before = [
            Rule("blocks.*.attention_output_norm", "model.layers.*.post_attention_layernorm"),
            Rule("blocks.*.feedforward_norm", "model.layers.*.pre_feedforward_layernorm"),
            Rule("blocks.*.feedforward_output_norm", "model.layers.*.post_feedforward_layernorm"),
        ]
        return [*before, *super().rules(model)]
