"""Gemma 3n, the text models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.activations import read_activation
from gptkit.interop.families.parts.gemma import GLOBAL, N_IDS, PER_LAYER, GemmaDecoder, read_first_sharing
from gptkit.interop.families.parts.gemma.widths import SPARSITY, read_feedforwards, write_feedforwards
from gptkit.interop.families.parts.rope import read_two
from gptkit.interop.families.parts.windows import all_but_every, read_windows
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Gemma3nFamily"]


class Gemma3nFamily(GemmaDecoder):
    """Gemma 3n (text): alternating updates of streams, LAuReL, sparse gates, shared keys and values, layer embeddings."""

    name: Literal["gemma3n"] = "gemma3n"
    model_type: ClassVar[str] = "gemma3n_text"
    model_types: ClassVar[tuple[str, ...]] = ("gemma3n",)
    architecture: ClassVar[str] = "Gemma3nForCausalLM"
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"head_dim": 16, "sliding_window": 6, N_IDS: 100, PER_LAYER: 8, "laurel_rank": 6}
        | {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2}
        | {SPARSITY: [0.6, 0.0, 0.0, 0.9]},
    )

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return read_two(config, 1e6, 1e4)[0]

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        activation = read_activation(config, *self.activation)
        return {"name": "gated", "activation": activation, **read_feedforwards(config)[0]}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("altup_active_idx", 0, why="gptkit transforms the first stream")
        config.only("altup_correct_scale", True, why="the embedding for each layer has such a scale here")
        return {
            "name": "altup",
            "streams": config.integer("altup_num_inputs", 4),
            "clip": config.number("altup_coef_clip", 120.0),
            "block": {"name": "laurel", "rank": config.integer("laurel_rank", 64)},
            **self.read_layer_embedding(config),
        }

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        slides = read_windows(config, all_but_every(5, n_layers))
        first, window = read_first_sharing(config, slides, 15), config.integer("sliding_window", 512)
        local = {"position": read_two(config, 1e6, 1e4)[1]}
        layers: list[dict[str, Any]] = []
        for index, (each, feedforward) in enumerate(zip(slides, read_feedforwards(config), strict=True)):
            attention = {"window": window if each else None, "reuse_kv": index >= first}
            layers.append({"attention": attention, "feedforward": feedforward, **(local if each else {})})
        return layers

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"softcap": config.number("final_logit_softcapping", 30.0)}

    def config(self, model: Any) -> dict[str, Any]:
        layers, block = model.layer_specs(), model.layer_specs()[0].block
        result = {key: value for key, value in super().config(model).items() if key not in GLOBAL}
        altup = {"altup_num_inputs": block.streams, "altup_coef_clip": block.clip, "laurel_rank": block.block.rank}
        return {**result, **altup, **write_feedforwards(layers)}

    def rules(self, model: Any) -> list[Rule]:
        layer, n_maps = "model.layers.*", model.layer_specs()[0].block.streams - 1
        altup = {"router_norm": "router_norm", "router": "modality_router", "correct_scale": "correct_output_scale"}
        altup |= {"prediction": "prediction_coefs", "correction": "correction_coefs"}
        laurel = {"left": "linear_left", "right": "linear_right", "laurel_norm": "post_laurel_norm"}
        return [
            *(Rule(f"blocks.*.{own}", f"{layer}.altup.{name}") for own, name in altup.items()),
            *(Rule(f"blocks.*.block.{own}", f"{layer}.laurel.{name}") for own, name in laurel.items()),
            *(Rule(f"blocks.*.expand.{i}.weight", f"model.altup_projections.{i}.weight") for i in range(n_maps)),
            *(Rule(f"blocks.*.merge.{i}.weight", f"model.altup_unembed_projections.{i}.weight") for i in range(n_maps)),
            *super().rules(model),
        ]
