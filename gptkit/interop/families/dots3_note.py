"""dots3 Note, the language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.deepseek_v3 import DeepseekV3Family
from gptkit.interop.families.deepseek_v32 import DeepseekV32Family
from gptkit.interop.families.parts import dots3_note as kinds
from gptkit.interop.families.parts import experts as moe
from gptkit.interop.families.parts.dots3_note_sizes import read_sizes
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Dots3NoteFamily"]


class Dots3NoteFamily(DeepseekV32Family):
    """dots3 Note (text): DeepSeek V3.2 with gated heads, scaled latents, and latent attention to windows in most layers."""

    name: Literal["dots3-note"] = "dots3-note"  # type: ignore[assignment]
    model_type: ClassVar[str] = "dots3_note_text"
    model_types: ClassVar[tuple[str, ...]] = ("dots3_note",)
    architecture: ClassVar[str] = "Dots3NoteForCausalLM"
    prefixes: ClassVar[Mapping[str, str]] = {"model.language_model.": "model."}
    ignored: ClassVar[tuple[str, ...]] = (*DeepseekV32Family.ignored, r"model\.(mtp|audio_\w+|vision_\w+|visual)\..*")
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    groups: ClassVar[tuple[int, int]] = (1, 1)
    scale: ClassVar[float] = 1.0
    q_rank: ClassVar[int | None] = 1024
    index_layout: ClassVar[str] = "same"
    n_dense: ClassVar[int] = 1
    sizes: ClassVar[Mapping[str, int]] = {"n_shared_experts": 1}
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({**DeepseekV32Family.tiny[0], **kinds.TINY},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        return DeepseekV3Family.model(self, config)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return kinds.read_rotary_of(config, kinds.INDEXED)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        norm = self.read_norm(config)
        own = {"norm": norm, "rotary_norm": norm, "scale": None, "scale_latents": True, "head_gate": True}
        return {**super().read_attention(config), **own}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        width = config.integer("shared_experts_intermediate_size", 1536) * self.size(config, "n_shared_experts")
        result = super().read_feedforward(config)
        return {**result, "shared": moe.dense(result["expert"], width)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        usual = {key: each for key, each in self.read_attention(config).items() if "index" not in key and key != "top_k"}
        result = []
        for index, kind in enumerate(kinds.read_types(config, n_layers)):
            sizes = read_sizes(config, index) if kind == kinds.SLIDING else {}
            latent = {"attention": {**usual, "name": "latent", **sizes}, "position": kinds.read_rotary_of(config, kind)}
            result.append({} if kind == kinds.INDEXED else latent)
        return [{**a, **b} for a, b in zip(super().read_layers(config, n_layers), result, strict=True)]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return super().write_attention([layer for layer in layers if kinds.layer_type(layer) == kinds.INDEXED])

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        result = super().config(model)
        for key in ("partial_rotary_factor", "rope_interleave", "rope_scaling", "rope_theta"):
            result.pop(key, None)
        shared = moe.first_of(layers, "experts").shared.d_hidden
        own = {"n_shared_experts": 1, "shared_experts_intermediate_size": shared}
        return {**result, **own, **kinds.write_types(layers)}

    def rules(self, model: Any) -> list[Rule]:
        attention = "model.layers.*.self_attn"
        gate = Rule("blocks.*.attention.head_gate", f"{attention}.g_proj")
        norm = Rule("blocks.*.attention.rotary_norm", f"{attention}.k_rope_only_layernorm")
        return [gate, norm, *super().rules(model)]
