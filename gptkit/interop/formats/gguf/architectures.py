"""The architectures of llama.cpp that the built-in families have."""

from __future__ import annotations

from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.attention_architectures import LATENT_AND_LINEAR_ARCHITECTURES
from gptkit.interop.formats.gguf.convolution_architectures import CONVOLUTION_ARCHITECTURES
from gptkit.interop.formats.gguf.dense_architectures import DENSE_ARCHITECTURES
from gptkit.interop.formats.gguf.expert_architectures import EXPERT_ARCHITECTURES
from gptkit.interop.formats.gguf.layer_norm_architectures import LAYER_NORM_ARCHITECTURES
from gptkit.interop.formats.gguf.recurrent_architectures import RECURRENT_ARCHITECTURES

__all__ = ["built_in"]


def built_in() -> tuple[Architecture, ...]:
    """Return the architectures, in the order in which the families of one architecture are tried."""
    return (
        *DENSE_ARCHITECTURES,
        *LAYER_NORM_ARCHITECTURES,
        *EXPERT_ARCHITECTURES,
        *LATENT_AND_LINEAR_ARCHITECTURES,
        *CONVOLUTION_ARCHITECTURES,
        *RECURRENT_ARCHITECTURES,
    )
