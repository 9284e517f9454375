"""Rotary positions in GGUF files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import HINT
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["LocalRotary", "Rotary"]

_LOCAL_BASE = 10000.0


@dataclass(frozen=True)
class Rotary:
    """Base, part of each head, and scaling.

    Attributes:
        partial: whether a part of each head may be rotated.
        head: the head's size where the file has none; None for the width divided by the number of heads.
        d_rotary: key of the configuration for the number of rotated features, in place of a fraction of the head.
        base, fraction: keys of the configuration for the base and the rotated fraction of each head.
        scalings: the scalings that llama.cpp computes as the family does.
        yarn: keys of the configuration that a YaRN scaling has besides those of the file.
        betas: whether llama.cpp reads the range of YaRN's ramp (`beta_fast`, `beta_slow`) in this architecture.
        explicit: whether the absence of a scaling is written out, for families that have one by default.
    """

    partial: bool = False
    head: int | None = None
    d_rotary: str = ""
    scalings: tuple[str, ...] = ("linear", "yarn")
    yarn: Mapping[str, Any] | None = None
    betas: bool = False
    explicit: bool = False
    base: str = "rope_theta"
    fraction: str = "partial_rotary_factor"

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        config: dict[str, Any] = {self.base: keys.number("rope.freq_base", 10000.0)}
        if self.d_rotary:
            config[self.d_rotary] = keys.integer("rope.dimension_count")
        else:
            config |= self._read_fraction(keys)
        scaling = self._read_scaling(keys)
        if self.explicit and not scaling:
            scaling = {"rope_parameters": {"rope_type": "default", "rope_theta": config[self.base]}}
        return config | scaling

    def _read_fraction(self, keys: ExternalConfig) -> dict[str, Any]:
        n_heads = keys.integer("attention.head_count")
        d_head = keys.integer("attention.key_length", self.head or keys.integer("embedding_length") // max(1, n_heads))
        rotated = keys.integer("rope.dimension_count", d_head)
        if self.partial:
            return {self.fraction: rotated / max(1, d_head)}
        if rotated != d_head:
            keys.refuse("rope.dimension_count", f"positions must rotate whole heads of {d_head} features")
        return {}

    def _read_scaling(self, keys: ExternalConfig) -> dict[str, Any]:
        factor = keys.maybe("rope.scaling.factor") or keys.maybe("rope.scale_linear")
        kind = keys.text("rope.scaling.type", "none" if factor is None else "linear")
        if kind not in ("none", *self.scalings):
            keys.refuse("rope.scaling.type", "gptkit does not read such a scaling from GGUF")
        trained = keys.nullable("rope.scaling.original_context_length", keys.integer("context_length"))
        keys.value("rope.scaling.finetuned")
        if factor is None or kind == "none":
            return {}
        scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            scaling |= {"original_max_position_embeddings": trained, **(self.yarn or {})}
            for key, default in (("beta_fast", 32.0), ("beta_slow", 1.0)):
                scaling[key] = keys.number(f"rope.scaling.yarn_{key}", default)
        return {"rope_scaling": scaling}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        keys = {"rope.freq_base": Typed("f32", config[self.base])}
        if self.d_rotary:
            keys["rope.dimension_count"] = Typed("u32", config[self.d_rotary])
        else:
            share = config.get(self.fraction) or 1.0
            d_head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
            keys["rope.dimension_count"] = Typed("u32", round(share * d_head))
        scaling = config.get("rope_scaling") or {}
        if scaling.get("rope_type") not in self.scalings:
            return keys
        keys["rope.scaling.type"] = Typed("string", scaling["rope_type"])
        keys["rope.scaling.factor"] = Typed("f32", scaling["factor"])
        if scaling["rope_type"] == "yarn":
            keys["rope.scaling.original_context_length"] = Typed("u32", scaling["original_max_position_embeddings"])
            for key, default in (("beta_fast", 32), ("beta_slow", 1)):
                value = scaling.get(key, default)
                if value != default and not self.betas:
                    raise ExternalModelError(
                        f"llama.cpp computes YaRN with {key} = {default} in this architecture, and in this model it is "
                        f"{value:g}",
                        hint=HINT,
                    )
                if value != default:
                    keys[f"rope.scaling.yarn_{key}"] = Typed("f32", value)
        return keys


@dataclass(frozen=True)
class LocalRotary:
    """Rotary positions with a base and scaling for full layers, and another base for sliding ones (Gemma 3, OLMo 3).

    Attributes:
        scalings: those of the full layers that llama.cpp computes as the family does.
        local: the base of sliding layers where the file has none; None if it is always that of the full ones.
    """

    scalings: tuple[str, ...] = ("linear",)
    local: float | None = _LOCAL_BASE

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        full = Rotary(scalings=self.scalings).read(keys, tensors)
        scaling = full.get("rope_scaling") or {"rope_type": "default"}
        base = full["rope_theta"] if self.local is None else keys.number("rope.freq_base_swa", self.local)
        local = {"rope_type": "default", "rope_theta": base}
        both = {"full_attention": {"rope_theta": full["rope_theta"], **scaling}, "sliding_attention": local}
        return {"rope_parameters": both}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        full, local = (config["rope_parameters"][kind] for kind in ("full_attention", "sliding_attention"))
        flat = {**config, "rope_theta": full["rope_theta"], "rope_scaling": full, "partial_rotary_factor": None}
        keys = Rotary(scalings=self.scalings).write(flat)
        if self.local is None and local["rope_theta"] != full["rope_theta"]:
            raise ExternalModelError(
                f"llama.cpp rotates by the base of full layers, {full['rope_theta']:g}, in all layers of this architecture, "
                f"and sliding layers of this model have the base {local['rope_theta']:g}",
                hint=HINT,
            )
        if local["rope_theta"] != (self.local or full["rope_theta"]):
            keys["rope.freq_base_swa"] = Typed("f32", local["rope_theta"])
        return keys
