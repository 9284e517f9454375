"""LongCat-Flash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts import longcat_flash as parts
from gptkit.interop.families.parts.experts import INERT, dense, sparse
from gptkit.interop.families.parts.latent.attention import LatentAttention
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Constant, Rule

__all__ = ["LongcatFlashFamily"]


class LongcatFlashFamily(LatentAttention):
    """LongCat-Flash: layers of two latent attentions with experts beside them, some of which return their input."""

    name: Literal["longcat-flash"] = "longcat-flash"
    model_type: ClassVar[str] = "longcat_flash"
    architecture: ClassVar[str] = "LongcatFlashForCausalLM"
    harmless: ClassVar[frozenset[str]] = LatentAttention.harmless | INERT | {"attention_method", "num_key_value_heads"}
    ignored: ClassVar[tuple[str, ...]] = (*LatentAttention.ignored, r"model\.mtp\..*")
    inner: ClassVar[str] = "mlps"
    base: ClassVar[float] = 10000000.0
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (parts.TINY,)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        parts.check(config)
        config.use_names(parts.NAMES)
        return super().model(config)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_position(config), "layout": "interleaved"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        result = {**super().read_attention(config), "scale_latents": True}
        config.only("qk_head_dim", result["d_nope"] + result["d_rotary"], why="it should be that of queries and keys")
        config.only("head_dim", result["d_rotary"], why="it should be qk_rope_head_dim")
        return result

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        expert = dense(self.read_feedforward(config), config.integer("moe_intermediate_size", 2048))
        router = {"name": "softmax-top-k", "selection_bias": True, "renormalize": False}
        router |= {"k": config.integer("num_experts_per_tok", 12), "scale": config.number("routed_scaling_factor", 6.0)}
        identities = config.integer("zero_expert_num", 256)
        experts = sparse(config.integer("n_routed_experts", 512), router, expert, identity_experts=identities)
        return {"name": "shortcut-experts", "experts": experts}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_feedforward(layers), **parts.write_experts(layers[0].block.experts)}

    def config(self, model: Any) -> dict[str, Any]:
        attention = model.layer_specs()[0].attention
        widths = {"head_dim": attention.d_rotary, "qk_head_dim": attention.d_nope + attention.d_rotary}
        return {**{parts.NAMES.get(key, key): value for key, value in super().config(model).items()}, **widths}

    def skipped(self, model: Any) -> Sequence[str]:
        return [*self.ignored, *parts.skipped(model)]

    def constants(self, model: Any) -> Mapping[str, Constant]:
        return parts.constants(model)

    def rules(self, model: Any) -> list[Rule]:
        return [*parts.RULES, *parts.twice(super().rules(model))]
