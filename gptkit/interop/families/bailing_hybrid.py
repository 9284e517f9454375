"""Ling 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.deepseek_v3 import DeepseekV3Family
from gptkit.interop.families.parts import kimi_delta as kda
from gptkit.interop.families.parts.experts import read_sparse, write_sparse
from gptkit.interop.families.parts.hybrids import write_linear
from gptkit.interop.families.parts.layers import nth
from gptkit.interop.families.parts.rope import as_parameters
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["BailingHybridFamily"]

LINEAR = {"decay": "f_proj", "gate": "g_proj", "output": "dense"}


class BailingHybridFamily(DeepseekV3Family):
    """Ling 3: Kimi Delta Attention with bounded decays in most layers, latent attention with a gate per head in some."""

    name: Literal["bailing-hybrid"] = "bailing-hybrid"  # type: ignore[assignment]
    model_type: ClassVar[str] = "bailing_hybrid"
    architecture: ClassVar[str] = "BailingHybridForCausalLM"
    harmless: ClassVar[frozenset[str]] = DeepseekV3Family.harmless | {"mtp_loss_scaling_factor"}
    q_rank: ClassVar[int | None] = None
    sizes: ClassVar[Mapping[str, int]] = {"n_shared_experts": 1}
    owner: ClassVar[str] = "attention"
    base: ClassVar[float] = 6000000.0
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({**kda.TINY, "head_dim": 8},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.use_names(kda.NAMES)
        config.only("rope_interleave", True, why="transformers rotates pairs in this family")
        config.only("tie_word_embeddings", False, why="transformers does not tie them in this family")
        config.only("q_lora_rank", None, why="transformers projects queries directly in this family")
        return super().model(config)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "head_gate": True}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        # transformers saves the head size of full attention as `head_dim`, and that of the other layers under another name.
        d_head = config.integer("linear_head_dim", config.integer("head_dim", 128))
        floor = config.number("kda_lower_bound", -5.0)
        linear = {
            "name": "kimi-delta",
            "n_heads": config.integer("linear_num_heads", config.integer("num_attention_heads")),
            **dict.fromkeys(("d_key", "d_value"), d_head),
            "conv_width": config.integer("linear_conv_kernel_dim", config.integer("short_conv_kernel_size", 4)),
            "decay_floor": floor if config.flag("kda_safe_gate", True) else None,
            "norm": {"name": "rms", "eps": config.number(*self.eps)},
        }
        full = nth(config, "layer_group_size", 6, n_layers)
        sparse = read_sparse(config, n_layers, config.integer("first_k_dense_replace", 2))
        return kda.read_hybrid(config, sparse, full, linear, self.read_dense(config))

    def config(self, model: Any) -> dict[str, Any]:
        layers, linear = model.layer_specs(), kda.kda_of(model.layer_specs())
        floor = {} if linear.decay_floor is None else {"kda_lower_bound": linear.decay_floor}
        own = {"linear_num_heads": linear.n_heads, "kda_safe_gate": bool(floor), **floor}
        own |= dict.fromkeys(("head_dim", "linear_head_dim"), linear.d_key)
        own |= dict.fromkeys(("short_conv_kernel_size", "linear_conv_kernel_dim"), linear.conv_width)
        own |= {**write_sparse(layers), **write_linear(layers, "kimi-delta")}
        result = {**as_parameters(super().config(model)), **own}
        del result["rope_interleave"], result["q_lora_rank"]
        return {kda.NAMES.get(key, key): value for key, value in result.items()}

    def rules(self, model: Any) -> list[Rule]:
        names = {"head_gate": "g_proj", "output": "dense"}
        return [
            *kda.kda_rules(model, "model.layers.{}.attention", LINEAR),
            *(Rule(f"blocks.*.attention.{own}", f"model.layers.*.{self.owner}.{name}") for own, name in names.items()),
            Rule("blocks.*.feedforward.router.selection_bias", "model.layers.*.mlp.gate.expert_bias"),
            Rule("embedding.table", "model.word_embeddings"),
            *super().rules(model),
        ]
