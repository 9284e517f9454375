"""Kimi Linear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.deepseek_v3 import DeepseekV3Family
from gptkit.interop.families.parts import kimi_delta as kda
from gptkit.interop.families.parts.experts import expert_rules, mixtral_rules, read_sparse, write_sparse
from gptkit.interop.families.parts.hybrids import write_linear
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.layouts import Flat
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["KimiLinearFamily"]

SIZES = {"d_key": ("head_dim", "linear_head_dim", 128), "n_heads": ("num_heads", "linear_num_heads", 32)}
SIZES |= {"conv_width": ("short_conv_kernel_size", "linear_conv_kernel_dim", 4)}
LINEAR = {"decay_down": "f_a_proj", "decay": "f_b_proj", "gate_down": "g_a_proj", "gate": "g_b_proj", "output": "o_proj"}
USUAL = {"moe_router_activation_func": "sigmoid", "mla_use_nope": True, "use_grouped_topk": True}
BLOCK = "block_sparse_moe"


class KimiLinearFamily(DeepseekV3Family):
    """Kimi Linear: Kimi Delta Attention in most layers, latent attention without positions in the others, experts."""

    name: Literal["kimi-linear"] = "kimi-linear"  # type: ignore[assignment]
    model_type: ClassVar[str] = "kimi_linear"
    architecture: ClassVar[str] = "KimiLinearForCausalLM"
    harmless: ClassVar[frozenset[str]] = DeepseekV3Family.harmless | keys("rope_parameters rope_scaling rope_theta")
    # transformers saves dense feed-forwards under the name of experts, too; the released files do not.
    prefixes: ClassVar[Mapping[str, str]] = {f"model.layers.{i}.mlp.": f"model.layers.{i}.{BLOCK}." for i in range(100)}
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    q_rank: ClassVar[int | None] = None
    sizes: ClassVar[Mapping[str, int]] = {"n_shared_experts": 1}
    inner: ClassVar[str] = BLOCK
    groups: ClassVar[tuple[int, int]] = (1, 1)
    scale: ClassVar[float] = 2.446
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({**kda.TINY, "linear_head_dim": 8, "linear_num_heads": 3},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.use_names(kda.NAMES)
        for key, value in {**USUAL, "tie_word_embeddings": False}.items():
            config.only(key, value, why="transformers has nothing else in this family")
        return super().model(config)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "none"}

    def sharpening(self, config: ExternalConfig) -> float:
        return 1.0

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        old = config.section("linear_attn_config") if "linear_attn_config" in config else ExternalConfig({})
        sizes = {own: old.integer(first, config.integer(key, usual)) for own, (first, key, usual) in SIZES.items()}
        low = dict.fromkeys(("d_value", "decay_rank", "gate_rank"), sizes["d_key"])
        linear = {"name": "kimi-delta", **sizes, **low, "norm": {"name": "rms", "eps": config.number(*self.eps)}}
        old.value("kda_layers")  # the others
        listed = old.items("full_attn_layers", list(range(5, n_layers + 1, 4)))  # counted from 1
        full = [index + 1 in listed for index in range(n_layers)]
        sparse = read_sparse(config, n_layers, config.integer("first_k_dense_replace", 1))
        return kda.read_hybrid(config, sparse, full, linear, self.read_dense(config))

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        sizes = {key: getattr(kda.kda_of(layers), own) for own, (_, key, _) in SIZES.items()}
        result = {**super().config(model), **sizes, **write_sparse(layers), **write_linear(layers, "kimi-delta")}
        return {kda.NAMES.get(key, key): value for key, value in result.items() if key != "first_k_dense_replace"}

    def rules(self, model: Any) -> list[Rule]:
        block = f"model.layers.*.{BLOCK}"
        return [
            *kda.kda_rules(model, "model.layers.{}.self_attn", LINEAR, Flat(2, 1)),
            *mixtral_rules(block, bias="gate.e_score_correction_bias"),
            *expert_rules(block, shared="shared_experts"),
            *super().rules(model),
        ]
