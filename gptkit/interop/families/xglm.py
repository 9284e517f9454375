"""XGLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.biogpt import BioGptFamily
from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["XGLMFamily"]

NAMES = {"num_attention_heads": "attention_heads", "hidden_size": "d_model", "num_hidden_layers": "num_layers"}
OFFSET = 2
"""Number of rows of the table of positions that no token reads."""


class XGLMFamily(BioGptFamily):
    """XGLM: sinusoidal positions from 2 on, embeddings multiplied by √d_model, biases everywhere."""

    name: Literal["xglm"] = "xglm"  # type: ignore[assignment]
    model_type: ClassVar[str] = "xglm"
    architecture: ClassVar[str] = "XGLMForCausalLM"
    prefix: ClassVar[str] = "model."
    harmless: ClassVar[frozenset[str]] = keys("activation_dropout init_std layerdrop")
    ignored: ClassVar[tuple[str, ...]] = (r"model\.embed_positions\.weights",)
    sizes: ClassVar[Mapping[str, int]] = {"max_position_embeddings": 2048, "vocab_size": 256008}
    width: ClassVar[str] = "ffn_dim"
    activation: ClassVar[str] = "activation_function"
    output: ClassVar[str] = "lm_head"

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.use_names(NAMES)
        config.value("decoder_start_token_id")  # for generation only
        return super().model(config)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        # The class writes zeros over the row of this number in the table of positions.
        if (padding := config.value("pad_token_id", 1)) >= OFFSET:
            config.refuse("pad_token_id", f"transformers removes the position of token {padding - OFFSET}; set it to 1")
        return {"name": "sinusoidal", "layout": "half", "offset": OFFSET, "endpoint": True}

    def config(self, model: Any) -> dict[str, Any]:
        return {**{NAMES.get(key, key): value for key, value in super().config(model).items()}, "pad_token_id": 1}
