"""What families declare as data, with the values of Llama."""

from __future__ import annotations

from typing import ClassVar

from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.family import FamilySpec

__all__ = ["Settings"]


class Settings(FamilySpec):
    """Keys and defaults in which families differ, as class variables."""

    harmless: ClassVar[frozenset[str]] = keys(
        "activation is_llama_config max_window_layers pretraining_tp rope_interleaved transformers.js_config use_mrope"
    )
    ignored: ClassVar[tuple[str, ...]] = (r".*\.rotary_emb\.inv_freq",)
    tied: ClassVar[bool] = False
    """`tie_word_embeddings` where the configuration has none."""
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-6)
    """Key of the norms' epsilon, and its default."""
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "silu")
    """Key of the activation, and its default."""
    inner: ClassVar[str] = "mlp"
    """Name of the feed-forward in a layer."""
    width: ClassVar[str] = "intermediate_size"
    """Key of the feed-forward's width."""
    base: ClassVar[float] = 10000.0
    """`rope_theta` where the configuration has none."""
    fraction: ClassVar[float] = 1.0
    """`partial_rotary_factor` where the configuration has none."""
    partial: ClassVar[bool] = False
    """Whether `partial_rotary_factor` applies in a family that rotates whole heads by default."""
    d_head: ClassVar[int | None] = None
    """`head_dim` where the configuration has none; None for the width divided by the number of heads."""
    attention_biases: ClassVar[bool] = True
    """Whether `attention_bias` applies to queries, keys and values."""
    output_biases: ClassVar[bool] = True
    """Whether `attention_bias`, where it applies, applies to the output projection too."""
    biased: ClassVar[bool] = False
    """`attention_bias` and `mlp_bias` where the configuration has none."""
    feedforward_biases: ClassVar[bool] = False
    """Whether `mlp_bias` applies to the projections of the feed-forward."""
