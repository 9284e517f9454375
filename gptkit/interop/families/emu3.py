"""Emu3, the language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.keys import keys

__all__ = ["Emu3Family"]


class Emu3Family(Decoder):
    """Emu3 (text): Llama, whose vocabulary includes the codes of images."""

    name: Literal["emu3"] = "emu3"
    model_type: ClassVar[str] = "emu3_text_model"
    model_types: ClassVar[tuple[str, ...]] = ("emu3",)
    architecture: ClassVar[str] = "Emu3ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | keys("vocabulary_map vq_config")
    prefixes: ClassVar[Mapping[str, str]] = {
        "model.text_model.": "model.",
        "text_model.model.": "model.",
        "text_model.lm_head.": "lm_head.",
    }
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"(model\.)?vqmodel\..*")
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    base: ClassVar[float] = 1000000.0
    rank: ClassVar[int] = 11
    feedforward_biases: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},)

    def config(self, model: Any) -> dict[str, Any]:
        # The class does not accept null.
        return {**super().config(model), "bos_token_id": 0, "pad_token_id": 0}

    def reference(self) -> tuple[Any, Any] | None:
        import transformers  # which lists only the multimodal model of the type

        return transformers.Emu3TextConfig, transformers.Emu3ForCausalLM
