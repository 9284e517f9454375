"""Latent attention, by the keys and names of DeepSeek V2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.latent.layers import latent, latents
from gptkit.interop.families.parts.latent.sharpening import read_sharpening, write_sharpening
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["LatentAttention"]

SIZES = {"q_lora_rank": "q_rank", "kv_lora_rank": "kv_rank", "qk_nope_head_dim": "d_nope", "qk_rope_head_dim": "d_rotary"}
SIZES |= {"v_head_dim": "d_value", "attention_bias": "bias", "num_attention_heads": "n_heads"}
NAMES = {"q_down": "q_a_proj", "q_latent_norm": "q_a_layernorm", "kv_down": "kv_a_proj_with_mqa"}
NAMES |= {"kv_latent_norm": "kv_a_layernorm", "kv_up": "kv_b_proj"}


class LatentAttention(Decoder):
    """A decoder with latent attention."""

    q_rank: ClassVar[int | None] = 1536
    """`q_lora_rank` where the configuration has none."""
    owner: ClassVar[str] = "self_attn"
    """Name of the attention in a layer."""
    sizes: ClassVar[Mapping[str, int]] = {}
    """Other defaults of sizes, by their keys."""

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        nope, rotary = self.size(config, "qk_nope_head_dim", 128), self.size(config, "qk_rope_head_dim", 64)
        return {
            "name": "latent",
            "n_heads": config.integer("num_attention_heads"),
            "q_rank": config.nullable("q_lora_rank", self.q_rank),
            "kv_rank": config.integer("kv_lora_rank", 512),
            "d_nope": nope,
            "d_rotary": rotary,
            "d_value": self.size(config, "v_head_dim", 128),
            "bias": config.flag("attention_bias", False),
            # The latents' norms have a fixed epsilon, independent of the configuration's.
            "norm": {"name": "rms", "eps": 1e-6},
            "scale": (nope + rotary) ** -0.5 * self.sharpening(config) ** 2,
        }

    def size(self, config: ExternalConfig, key: str, default: int | None = None) -> int:
        """Return a size, with the family's own default (`sizes`), or else the usual one; required without either."""
        usual = self.sizes.get(key, default)
        return config.integer(key) if usual is None else config.integer(key, usual)

    def read_rope(self, config: ExternalConfig) -> ExternalConfig:
        """Return the mapping of rope parameters."""
        return config.section("rope_scaling" if config.value("rope_scaling") else "rope_parameters")

    def sharpening(self, config: ExternalConfig) -> float:
        """Return the factor by which YaRN multiplies queries and keys."""
        return read_sharpening(self.read_rope(config))

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        attention = latent(layers).attention
        return {**{key: getattr(attention, own) for key, own in SIZES.items()}, "num_key_value_heads": attention.n_heads}

    def config(self, model: Any) -> dict[str, Any]:
        layer, result = latent(model.layer_specs()), super().config(model)
        if (scaling := result.get("rope_scaling")) and layer.attention.scale:
            result["rope_scaling"] = write_sharpening(scaling, layer.attention, layer.position)
        return result

    def rules(self, model: Any) -> list[Rule]:
        native, external = "blocks.*.attention", f"model.layers.*.{self.owner}"
        # A hybrid may have no layer with latent attention.
        ranks = [layer.attention.q_rank for layer in latents(model.layer_specs())]
        names = {"q_up": "q_proj" if None in ranks else "q_b_proj", **NAMES}
        return [*(Rule(f"{native}.{own}", f"{external}.{name}") for own, name in names.items()), *super().rules(model)]
