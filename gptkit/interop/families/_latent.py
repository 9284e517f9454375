"""The base of DeepSeek's families: latent attention, dense first layers, then experts and a shared one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from gptkit.interop.families._experts import INERT, dense, expert_rules, first_dense, first_of, sparse, write_experts
from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INDEXER", "INDEX_SIZES", "LatentDecoder", "RotatedLast", "latent"]

INDEX_SIZES = {"top_k": ("index_topk", 2048), "index_heads": ("index_n_heads", 64), "d_index": ("index_head_dim", 128)}
"""Keys of the indexer's sizes and their defaults, by the fields of `sparse-latent`."""
INDEXER = {"query": "wq_b", "key": "wk", "key_norm": "k_norm", "weights": "weights_proj"}
"""External names of the indexer's tensors, by the native ones."""


class RotatedLast(Layout):
    """Features of an indexer whose last ones are rotated; here these are the first ones."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return self._rolled(parts[0], layer, layer.attention.d_rotary)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [self._rolled(tensor, layer, -layer.attention.d_rotary)]

    def _rolled(self, tensor: Tensor, layer: Any, shift: int) -> Tensor:
        heads = tensor.reshape(-1, layer.attention.d_index, *tensor.shape[1:])
        return heads.roll(shift, dims=1).reshape(tensor.shape)


def latent(layers: Sequence[Any]) -> Any:
    """The first layer with latent attention."""
    matching = [layer for layer in layers if layer.attention.name in ("latent", "sparse-latent")]
    return matching[0]  # an IndexError means that the family cannot express the model


class LatentDecoder(Decoder):
    """DeepSeek's architecture; each family defines the router."""

    harmless: ClassVar[frozenset[str]] = (
        Decoder.harmless | INERT | {"head_dim", "num_key_value_heads", "num_nextn_predict_layers", "qk_head_dim"}
    )

    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {
            "num_key_value_heads": 4,
            "moe_intermediate_size": 24,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "num_experts_per_tok": 3,
            "first_k_dense_replace": 1,
            "n_group": 4,
            "topk_group": 2,
            "q_lora_rank": 20,
            "kv_lora_rank": 12,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 10,
            "v_head_dim": 6,
        },
    )

    q_rank: ClassVar[int | None] = 1536
    """`q_lora_rank` where the configuration has none."""
    sizes: ClassVar[Mapping[str, int]] = {}
    """Other defaults of sizes, by their keys."""

    @abstractmethod
    def read_router(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the router, as in a spec file."""

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
            "scale": (nope + rotary) ** -0.5 * self._sharpening(config) ** 2,
        }

    def size(self, config: ExternalConfig, key: str, default: int | None = None) -> int:
        """Return a size, with the family's own default (`sizes`), or else the usual one; required without either."""
        usual = self.sizes.get(key, default)
        return config.integer(key) if usual is None else config.integer(key, usual)

    def read_rope(self, config: ExternalConfig) -> ExternalConfig:
        """Return the mapping of rope parameters."""
        return config.section("rope_parameters" if "rope_parameters" in config else "rope_scaling")

    def _sharpening(self, config: ExternalConfig) -> float:
        """Return the factor by which YaRN multiplies queries and keys."""
        section = self.read_rope(config)
        if section.text("type" if "type" in section and "rope_type" not in section else "rope_type", "default") == "default":
            return 1.0
        factor, weight = section.number("factor", 1.0), section.number("mscale_all_dim", 0.0)
        return 0.1 * weight * math.log(factor) + 1 if weight and factor > 1 else 1.0

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("moe_layer_freq", 1, why="the family has experts in every layer after the first dense ones")
        expert = {**super().read_feedforward(config), "d_hidden": config.integer("moe_intermediate_size")}
        router = {**self.read_router(config), "k": config.integer("num_experts_per_tok")}
        shared = dense(expert, expert["d_hidden"] * self.size(config, "n_shared_experts"))
        return sparse(config.integer("n_routed_experts"), router, expert, shared=shared)

    def read_dense(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the feed-forward of layers without experts."""
        return super().read_feedforward(config)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        return first_dense(config.integer("first_k_dense_replace", 0), n_layers, self.read_dense(config))

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        attention = latent(layers).attention
        return {
            "num_attention_heads": attention.n_heads,
            "num_key_value_heads": attention.n_heads,
            "q_lora_rank": attention.q_rank,
            "kv_lora_rank": attention.kv_rank,
            "qk_nope_head_dim": attention.d_nope,
            "qk_rope_head_dim": attention.d_rotary,
            "v_head_dim": attention.d_value,
            "attention_bias": attention.bias,
        }

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = first_of(layers, "experts"), first_of(layers, "gated")
        n_dense = sum(layer.feedforward.name != "experts" for layer in layers)
        return {
            **write_experts(layers, "n_routed_experts", "moe_intermediate_size"),
            "intermediate_size": result.expert.d_hidden if plain is None else plain.d_hidden,
            "n_shared_experts": result.shared.d_hidden // result.expert.d_hidden,
            "first_k_dense_replace": n_dense,
            "routed_scaling_factor": result.router.scale,
        }

    def config(self, model: Any) -> dict[str, Any]:
        layer, result = latent(model.layer_specs()), super().config(model)
        plain = (layer.attention.d_nope + layer.attention.d_rotary) ** -0.5
        if result.get("rope_scaling") and layer.attention.scale:
            # One number of the configuration determines both: the scale of scores, and the amplitude of sine and cosine.
            sharpening, factor = math.sqrt(layer.attention.scale / plain), layer.position.scaling.factor
            weight = (sharpening - 1) / (0.1 * math.log(factor)) if factor > 1 else 0.0
            if abs(weight) > 1e-9:
                result["rope_scaling"]["mscale_all_dim"] = round(weight, 6)
                if layer.position.scaling.name == "yarn":
                    amplitude = result["rope_scaling"].pop("attention_factor", None) or 0.1 * math.log(factor) + 1
                    result["rope_scaling"]["mscale"] = round((amplitude * sharpening - 1) / (0.1 * math.log(factor)), 6)
        return result

    def skipped(self, model: Any) -> Sequence[str]:
        # The layers for multi-token prediction follow the last one.
        return [*self.ignored, rf"model\.layers\.{model.n_layers}\..*"]

    def rules(self, model: Any) -> list[Rule]:
        attention = "model.layers.*.self_attn"
        names = {"q_down": "q_a_proj", "q_latent_norm": "q_a_layernorm", "kv_down": "kv_a_proj_with_mqa"}
        names |= {"kv_latent_norm": "kv_a_layernorm", "kv_up": "kv_b_proj"}
        direct = latent(model.layer_specs()).attention.q_rank is None
        return [
            Rule("blocks.*.attention.q_up", f"{attention}.q_proj" if direct else f"{attention}.q_b_proj"),
            *(Rule(f"blocks.*.attention.{native}", f"{attention}.{external}") for native, external in names.items()),
            *expert_rules("model.layers.*.mlp", shared="shared_experts"),
            *super().rules(model),
        ]
