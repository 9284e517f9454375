"""StableLM 2 and 3B."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.families._decoder import Decoder
from gptkit.kinds.foreign import ForeignConfig

__all__ = ["StableLmFamily"]


class StableLmFamily(Decoder):
    """StableLM: layer norms, rotary on a quarter of each head, a gated feed-forward, parallel branches if asked for."""

    name: Literal["stablelm"] = "stablelm"
    model_type: ClassVar[str] = "stablelm"
    architecture: ClassVar[str] = "StableLmForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-5)
    attention_biases: ClassVar[bool] = False
    fraction: ClassVar[float] = 0.25

    def read_norm(self, config: ForeignConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps)}

    def read_attention(self, config: ForeignConfig) -> dict[str, Any]:
        config.only("qk_layernorm", False, why="gptkit has no norm of queries and keys with a module for each head")
        return {**super().read_attention(config), "qkv_bias": config.flag("use_qkv_bias", False)}

    def read_block(self, config: ForeignConfig) -> dict[str, Any]:
        return {"name": "parallel" if config.flag("use_parallel_residual", False) else "pre-norm"}

    def config(self, model: Any) -> dict[str, Any]:
        layer = model.layer_specs()[0]
        found = {**super().config(model), "use_qkv_bias": layer.attention.qkv_bias}
        del found["head_dim"]
        return {**found, "use_parallel_residual": layer.block.name == "parallel"}
