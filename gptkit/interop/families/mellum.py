"""Mellum 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.experts import dense, read_sparse, write_sparse
from gptkit.interop.families.parts.rope import read_rotary, write_two
from gptkit.interop.families.parts.windows import read_windows, write_windows
from gptkit.interop.families.qwen3_moe import Qwen3MoeFamily
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["MellumFamily"]


class MellumFamily(Qwen3MoeFamily):
    """Mellum 2: Qwen 3's experts and attention, with windows and a rotary base of their own in some layers."""

    name: Literal["mellum"] = "mellum"  # type: ignore[assignment]
    model_type: ClassVar[str] = "mellum"
    architecture: ClassVar[str] = "MellumForCausalLM"
    rank: ClassVar[int] = 11
    harmless: ClassVar[frozenset[str]] = Qwen3MoeFamily.harmless | {
        "num_mtp_layers",
        "num_nextn_predict_layers",
        "mtp_layer_types",
        "mtp_mlp_layer_types",
    }
    ignored: ClassVar[tuple[str, ...]] = (*Qwen3MoeFamily.ignored, r"(model\.)?mtp\..*")
    d_head: ClassVar[int | None] = 128
    experts: ClassVar[tuple[int, int, int]] = (64, 8, 896)
    renormalizes: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"layer_types": ["sliding_attention", "full_attention"] * 2},)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return self._of_type(config, "full_attention", 5e5)

    def _of_type(self, config: ExternalConfig, layer_type: str, base: float) -> dict[str, Any]:
        """Return the position of the layers of a type; transformers reads no keys beside `rope_parameters`."""
        section = config.section("rope_parameters").section(layer_type)
        section.only("partial_rotary_factor", 1.0, 1, why="transformers rotates whole heads in this family")
        return {"scaling": None, **read_rotary(section, config, base, beside=False)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        local = self._of_type(config, "sliding_attention", 1e4)
        expert = self.read_feedforward(config)["expert"]
        plain = {"feedforward": dense(expert, config.integer("intermediate_size", 7168))}
        slide = {"attention": {"window": config.integer("sliding_window", 1024)}, "position": local}
        layers = [slide if each else {} for each in read_windows(config, [False] * n_layers)]
        experts = read_sparse(config, n_layers)
        return [layer if each else {**layer, **plain} for layer, each in zip(layers, experts, strict=True)]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = super().write_feedforward(layers)
        del result["mlp_only_layers"]
        return {**result, **write_sparse(layers)}

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), **write_windows(model, 1024), **write_two(model.layer_specs())}
        for key in ("rope_theta", "rope_scaling", "use_sliding_window"):
            result.pop(key, None)
        return result
