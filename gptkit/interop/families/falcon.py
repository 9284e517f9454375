"""Falcon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.layouts import GROUPED
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["FalconFamily"]


class FalconFamily(Decoder):
    """Falcon 7B (one key and value), 40B (groups, two norms) and RW (ALiBi, one branch after the other)."""

    name: Literal["falcon"] = "falcon"
    model_type: ClassVar[str] = "falcon"
    architecture: ClassVar[str] = "FalconForCausalLM"
    prefix: ClassVar[str] = "transformer."
    harmless: ClassVar[frozenset[str]] = frozenset({"apply_residual_connection_post_layernorm", "n_embed"})
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {"ff_factor": (4,)}
    tied: ClassVar[bool] = True
    eps: ClassVar[tuple[str, float]] = ("layer_norm_epsilon", 1e-5)
    activation: ClassVar[tuple[str, str]] = ("activation", "gelu")
    width: ClassVar[str] = "ffn_hidden_size"

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        rotary = super().read_position(config)
        return {"name": "alibi", "rounded": True, "scaled": True} if config.flag("alibi", False) else rotary

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.agree("hidden_size", "n_embed")
        new, bias, n_heads = self._new(config), config.flag("bias", False), config.integer("num_attention_heads")
        n_kv_heads, shared = config.integer("num_kv_heads", n_heads), config.flag("multi_query", True)
        result = {"name": "grouped-query", "n_heads": n_heads, "qkv_bias": bias, "output_bias": bias}
        return {**result, "n_kv_heads": n_kv_heads if new else 1 if shared else n_heads}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps)}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "name": "mlp", "bias": config.flag("bias", False)}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        norms = config.integer("num_ln_in_parallel_attn", 2)
        parallel = config.flag("parallel_attn", True)
        if self._new(config) and not parallel:
            config.refuse("parallel_attn", "transformers computes nothing else with new_decoder_architecture")
        return {"name": "parallel", "norms": norms if self._new(config) else 1} if parallel else {"name": "pre-norm"}

    def _new(self, config: ExternalConfig) -> bool:
        return config.flag("new_decoder_architecture", False)

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        attention, block = layers[0].attention, layers[0].block
        parallel, norms = block.name == "parallel", block.model_dump().get("norms")
        result = {"num_attention_heads": attention.n_heads, "num_kv_heads": attention.kv_heads, "bias": attention.qkv_bias}
        result |= {"multi_query": attention.kv_heads == 1, "alibi": layers[0].position.name == "alibi"}
        new = parallel and (norms == 2 or attention.kv_heads not in (1, attention.n_heads))
        return {**result, "parallel_attn": parallel, "new_decoder_architecture": new, "num_ln_in_parallel_attn": norms}

    def rules(self, model: Any) -> list[Rule]:
        layer, block = "transformer.h.*", model.layer_specs()[0].block.model_dump()
        first, second = ("ln_attn", "ln_mlp") if block.get("norms") == 2 else ("input_layernorm", "post_attention_layernorm")
        names = {"attention_norm": first, "feedforward_norm": second, "attention.output": "self_attention.dense"}
        names |= {"feedforward.up": "mlp.dense_h_to_4h", "feedforward.down": "mlp.dense_4h_to_h"}
        whole = {"embedding.table": "transformer.word_embeddings", "final_norm": "transformer.ln_f", "head": "lm_head"}
        return [
            Rule("blocks.*.attention.qkv", f"{layer}.self_attention.query_key_value", GROUPED),
            *(Rule(f"blocks.*.{native}", f"{layer}.{external}") for native, external in names.items()),
            *(Rule(native, external) for native, external in whole.items()),
        ]
