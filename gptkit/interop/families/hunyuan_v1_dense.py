"""Hunyuan."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["HunyuanFamily"]


class HunyuanFamily(Decoder):
    """Hunyuan 0.5B to 7B: Llama with norms of queries and keys after the rotation."""

    name: Literal["hunyuan"] = "hunyuan"
    model_type: ClassVar[str] = "hunyuan_v1_dense"
    architecture: ClassVar[str] = "HunYuanDenseV1ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | keys(
        "add_classification_head class_num cla_share_factor dense_list eod_token_id im_end_id im_newline_id im_start_id "
        "image_token_id mask_init_id num_media_embeds org_vocab_size pool_type position_embedding_xdrope text_end_id "
        "text_start_id"
    )
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        usual = {"use_qk_norm": True, "use_rotary_pos_emb": True, "norm_type": "rms", "use_cla": False}
        for key, value in usual.items():
            config.only(key, value, why="transformers has nothing else in this family")
        return super().model(config)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        section = config.section("rope_scaling" if config.value("rope_scaling") else "rope_parameters")
        alpha = section.maybe("alpha")
        if not alpha:
            return super().read_position(config)
        for key in ("type", "rope_type"):
            section.only(key, "dynamic", why="alpha raises the base of dynamic rotary positions only")
        for key in ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"):
            section.value(key)  # not read by transformers beside alpha
        d_head = self.read_attention(config)["d_head"]
        base = section.number("rope_theta", config.number("rope_theta", self.base))
        return {"name": "rotary", "base": base * alpha ** (d_head / max(1, d_head - 2))}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.agree("head_dim", "attention_head_dim")
        return {**super().read_attention(config), "qk_norm": self.read_norm(config), "qk_norm_order": "after"}

    def rules(self, model: Any) -> list[Rule]:
        attention = "model.layers.*.self_attn"
        norms = {"q_norm": "query_layernorm", "k_norm": "key_layernorm"}
        return [*(Rule(f"blocks.*.attention.{n}", f"{attention}.{e}") for n, e in norms.items()), *super().rules(model)]
