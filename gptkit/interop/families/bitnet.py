"""BitNet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["BitNetFamily"]


class BitNetFamily(Decoder):
    """BitNet b1.58: Llama with squared ReLU and norms before the last projection of each branch; unquantized weights."""

    name: Literal["bitnet"] = "bitnet"
    model_type: ClassVar[str] = "bitnet"
    architecture: ClassVar[str] = "BitNetForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "relu2")
    base: ClassVar[float] = 500000.0

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        n_heads, d_model = config.integer("num_attention_heads", 20), config.integer("hidden_size")
        if config.integer("head_dim", d_model // max(1, n_heads)) * n_heads != d_model:
            config.refuse("head_dim", "the norm of the heads' outputs has hidden_size features in this family")
        return {**super().read_attention(config), "output_norm": self.read_norm(config)}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "hidden_norm": self.read_norm(config)}

    def rules(self, model: Any) -> list[Rule]:
        return [
            *super().rules(model),
            Rule("blocks.*.attention.output_norm", "model.layers.*.self_attn.attn_sub_norm"),
            Rule("blocks.*.feedforward.hidden_norm", "model.layers.*.mlp.ffn_sub_norm"),
        ]
