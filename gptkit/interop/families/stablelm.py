"""StableLM 2 and 3B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["StableLmFamily"]


class StableLmFamily(Decoder):
    """StableLM: layer norms, rotary on a quarter of each head, a gated feed-forward, optional parallel branches."""

    name: Literal["stablelm"] = "stablelm"
    model_type: ClassVar[str] = "stablelm"
    architecture: ClassVar[str] = "StableLmForCausalLM"
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {"rotary_scaling_factor": (1.0, 1)}
    synonyms: ClassVar[Mapping[str, str]] = {"norm_eps": "layer_norm_eps", "num_heads": "num_attention_heads"}
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-5)
    attention_biases: ClassVar[bool] = False
    fraction: ClassVar[float] = 0.25

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps)}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        d_head = config.integer("hidden_size") // max(1, config.integer("num_attention_heads"))
        config.only("head_dim", d_head, why="transformers divides the width by the number of heads")
        norm = {"qk_norm": {**self.read_norm(config), "shift": False}, "qk_norm_width": "each-head"}
        result = {**super().read_attention(config), "qkv_bias": config.flag("use_qkv_bias", False)}
        return {**result, **norm} if config.flag("qk_layernorm", False) else result

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "parallel" if config.flag("use_parallel_residual", False) else "pre-norm"}

    def config(self, model: Any) -> dict[str, Any]:
        layer = model.layer_specs()[0]
        result = {**super().config(model), "use_qkv_bias": layer.attention.qkv_bias}
        del result["head_dim"]
        result["qk_layernorm"] = layer.attention.qk_norm is not None
        return {**result, "use_parallel_residual": layer.block.name == "parallel"}

    def rules(self, model: Any) -> list[Rule]:
        attention = "model.layers.*.self_attn"
        norms = [Rule(f"blocks.*.attention.{part}_norm", f"{attention}.{part}_layernorm.norms.#") for part in "qk"]
        return [*norms, *super().rules(model)]
