"""Llama 4, the text models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT, expert_rules
from gptkit.interop.families.parts.layers import nth, read_each, read_types
from gptkit.interop.families.parts.llama4 import read_experts, read_plain, write_feedforwards
from gptkit.interop.families.parts.temperature import read_temperature, write_temperature
from gptkit.interop.layouts import TRANSPOSED, Stack
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Llama4Family"]


class Llama4Family(Decoder):
    """Llama 4 (text): chunked attention, every fourth layer whole and without positions, one expert besides a shared."""

    name: Literal["llama4"] = "llama4"
    model_type: ClassVar[str] = "llama4_text"
    model_types: ClassVar[tuple[str, ...]] = ("llama4",)
    architecture: ClassVar[str] = "Llama4ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | {"for_llm_compressor"}
    prefixes: ClassVar[Mapping[str, str]] = {"language_model.": ""}
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"(vision_model|multi_modal_projector)\..*")
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    base: ClassVar[float] = 500000.0
    d_head: ClassVar[int | None] = 128
    inner: ClassVar[str] = "feed_forward"

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_position(config), "layout": "interleaved"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        norm = {**self.read_norm(config), "scale": False} if config.flag("use_qk_norm", True) else None
        return {**super().read_attention(config), "qk_norm": norm, "qk_norm_order": "after"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return read_experts(config, super().read_feedforward(config))

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        turned = [int(not each) for each in nth(config, "no_rope_layer_interval", 4, n_layers)]
        turned = read_each(config, "no_rope_layers", turned) if config.value("no_rope_layers") else turned
        kinds = ("chunked_attention", "full_attention")
        types = read_types(config, n_layers, [kinds[0] if each else kinds[1] for each in turned], kinds)
        usual = [index for index, each in enumerate(nth(config, "interleave_moe_layer_step", 1, n_layers)) if each]
        experts, chunk = config.items("moe_layers", usual), config.nullable("attention_chunk_size", 8192)
        plain = read_plain(config, super().read_feedforward(config))
        alone = read_temperature(config)
        layers: list[dict[str, Any]] = []
        for index, (rotary, kind) in enumerate(zip(turned, types, strict=True)):
            attention = {"chunk": chunk} if kind == "chunked_attention" else {}
            layer = {"attention": attention} if rotary else {"position": alone, "attention": {**attention, "qk_norm": None}}
            layers.append(layer if index in experts else {**layer, "feedforward": plain})
        return layers

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return write_feedforwards(layers)

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()  # the class needs a size of chunks even where no layer has any
        return super().config(model) | {
            **write_temperature(layers),
            "use_qk_norm": any(layer.attention.qk_norm is not None for layer in layers),
            "no_rope_layers": [int(layer.position.name == "rotary") for layer in layers],
            "layer_types": ["chunked_attention" if layer.attention.chunk else "full_attention" for layer in layers],
            "attention_chunk_size": next((layer.attention.chunk for layer in layers if layer.attention.chunk), 8192),
        }

    def rules(self, model: Any) -> list[Rule]:
        block, native = "model.layers.*.feed_forward", "blocks.*.feedforward.experts"
        stacked = [Rule(f"{native}.{n}.weight", f"{block}.experts.{n}_proj", Stack(TRANSPOSED)) for n in ("gate_up", "down")]
        return [*stacked, *expert_rules(block, router="router"), *super().rules(model)]
