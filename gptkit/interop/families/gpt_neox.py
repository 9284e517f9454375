"""GPT-NeoX."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.rope import read_rope
from gptkit.interop.layouts import GROUPED
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GPTNeoXFamily"]


class GPTNeoXFamily(Decoder):
    """GPT-NeoX and Pythia: parallel branches with a norm each, rotary on a quarter of each head, biases everywhere."""

    name: Literal["gpt-neox"] = "gpt-neox"
    model_type: ClassVar[str] = "gpt_neox"
    architecture: ClassVar[str] = "GPTNeoXForCausalLM"
    prefix: ClassVar[str] = "gpt_neox."
    ignored: ClassVar[tuple[str, ...]] = (r".*\.attention\.(masked_)?bias", r".*\.rotary_emb\.inv_freq")
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-5)
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "gelu")
    fraction: ClassVar[float] = 0.25

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        own = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
        usual = {"rope_theta": 10000.0, "partial_rotary_factor": self.fraction}
        values = {key: config.number(name, usual[key]) for key, name in own.items()}
        section = config.section("rope_scaling" if config.value("rope_scaling") else "rope_parameters")
        for key, name in own.items():
            if key in config and config.number(key) != section.number(key, values[key]):
                config.refuse(key, f"transformers reads {name} in this family, which is {values[key]:g}; remove one of them")
        return read_rope(config, base=values["rope_theta"], fraction=values["partial_rotary_factor"])

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        bias = config.flag("attention_bias", True)
        n_heads = config.integer("num_attention_heads")
        return {"name": "multi-head", "n_heads": n_heads, "qkv_bias": bias, "output_bias": bias}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps)}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "name": "mlp", "bias": True}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        parallel = config.flag("use_parallel_residual", True)
        return {"name": "parallel", "norms": 2} if parallel else {"name": "pre-norm"}

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), "use_parallel_residual": model.block.name == "parallel"}
        for key in ("num_key_value_heads", "head_dim"):
            result.pop(key, None)
        return {
            **result,
            "rotary_pct": result.pop("partial_rotary_factor", 1.0),
            "rotary_emb_base": result.pop("rope_theta"),
        }

    def rules(self, model: Any) -> list[Rule]:
        layer = "gpt_neox.layers.*"
        return [
            Rule("embedding.table", "gpt_neox.embed_in"),
            Rule("blocks.*.attention_norm", f"{layer}.input_layernorm"),
            Rule("blocks.*.attention.qkv", f"{layer}.attention.query_key_value", GROUPED),
            Rule("blocks.*.attention.output", f"{layer}.attention.dense"),
            Rule("blocks.*.feedforward_norm", f"{layer}.post_attention_layernorm"),
            Rule("blocks.*.feedforward.up", f"{layer}.mlp.dense_h_to_4h"),
            Rule("blocks.*.feedforward.down", f"{layer}.mlp.dense_4h_to_h"),
            Rule("final_norm", "gpt_neox.final_layer_norm"),
            Rule("head", "embed_out"),
        ]
