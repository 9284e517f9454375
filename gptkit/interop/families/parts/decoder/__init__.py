"""Parts of `Decoder`, the base of most families: what families declare, attention, feed-forward, norms, tensors."""

from gptkit.interop.families.parts.decoder.attention import AttentionKeys
from gptkit.interop.families.parts.decoder.feedforward import FeedForwardKeys
from gptkit.interop.families.parts.decoder.norm import NormKeys
from gptkit.interop.families.parts.decoder.settings import Settings
from gptkit.interop.families.parts.decoder.tensors import llama_rules

__all__ = ["AttentionKeys", "FeedForwardKeys", "NormKeys", "Settings", "llama_rules"]
