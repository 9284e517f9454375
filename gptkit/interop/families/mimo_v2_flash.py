"""MiMo-V2-Flash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import experts as moe
from gptkit.interop.families.parts.mimo_v2_flash import check_released
from gptkit.interop.families.parts.rope import by_type, read_rotary
from gptkit.interop.families.parts.windows import read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["MiMoV2FlashFamily"]


class MiMoV2FlashFamily(Decoder):
    """MiMo-V2-Flash: windows with sinks and twice the key/value heads in most layers, small values, experts."""

    name: Literal["mimo-v2-flash"] = "mimo-v2-flash"
    model_type: ClassVar[str] = "mimo_v2_flash"
    architecture: ClassVar[str] = "MiMoV2FlashForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | moe.INERT | {"attention_chunk_size", "hybrid_block_size"}
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"model\.mtp\..*")
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    d_head: ClassVar[int | None] = 192
    output_biases: ClassVar[bool] = False
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"head_dim": 12, "v_head_dim": 10, "n_shared_experts": None},)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return self._rotary(config, "full_attention", 5000000.0)

    def _rotary(self, config: ExternalConfig, kind: str, base: float) -> dict[str, Any]:
        section = config.section("rope_parameters").section(kind)
        # transformers' defaults, of unscaled positions and of the others
        fraction = 0.334 if section.text("rope_type", "default") == "default" else 1.0
        return read_rotary(section, config, base, fraction, beside=False)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        unscaled = "attention_value_scale" in config.data and config.value("attention_value_scale") is None
        scale = 1.0 if unscaled else config.number("attention_value_scale", 0.707)
        return {**super().read_attention(config), "d_value": config.integer("v_head_dim", 128), "value_scale": scale}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        expert = moe.dense(super().read_feedforward(config), config.integer("moe_intermediate_size", 2048))
        k = config.integer("num_experts_per_tok", 8)
        router = {"name": "sigmoid", "selection_bias": True, "k": k, **moe.read_groups(config)}
        return moe.sparse(config.integer("n_routed_experts", 256), router, expert)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        window = config.integer("sliding_window_size", config.integer("sliding_window", 129) - 1) + 1
        slides = read_windows(config, [index > 0 and (index + 1) % 6 > 0 for index in range(n_layers)])
        sparse, plain = moe.read_sparse(config, n_layers, 1), {"feedforward": super().read_feedforward(config)}
        local = {"scaling": None, "fraction": 1.0, **self._rotary(config, "sliding_attention", 10000.0)}
        n_kv_heads = 2 * self.read_attention(config)["n_kv_heads"]
        sliding = {"attention": {"window": window, "n_kv_heads": n_kv_heads, "sinks": True}, "position": local}
        layers = [{**(sliding if a else {}), **({} if b else plain)} for a, b in zip(slides, sparse, strict=True)]
        check_released(config, self.read_attention(config), self.read_position(config), layers)
        return layers

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        result = by_type({**super().config(model), **write_windows(model), **moe.write_sparse(layers)}, layers)
        for each in result["rope_parameters"].values():
            each.setdefault("partial_rotary_factor", 1.0)
        attention = layers[0].attention
        n_kv_heads = attention.kv_heads // (2 if attention.window else 1)
        own = {"num_key_value_heads": n_kv_heads, "v_head_dim": attention.d_value or attention.d_head}
        return {**result, **own, "attention_value_scale": attention.value_scale}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        experts, plain = (moe.first_of(layers, each) for each in ("experts", "gated"))
        sizes = moe.write_experts(layers, "n_routed_experts", "moe_intermediate_size")
        return {**sizes, **moe.write_groups(experts.router), "intermediate_size": (plain or experts.expert).d_hidden}

    def rules(self, model: Any) -> list[Rule]:
        sinks = Rule("blocks.*.attention.sinks", "model.layers.*.self_attn.attention_sink_bias")
        return [sinks, *moe.expert_rules("model.layers.*.mlp"), *super().rules(model)]
