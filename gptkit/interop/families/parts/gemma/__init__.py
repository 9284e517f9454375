"""What Gemma 3n and Gemma 4 have in common: keys and values shared by the last layers, and embeddings for each layer."""

from gptkit.interop.families.parts.gemma.decoder import GemmaDecoder, nested
from gptkit.interop.families.parts.gemma.embeddings import N_IDS, PER_LAYER
from gptkit.interop.families.parts.gemma.heads import GLOBAL, read_first_sharing, read_full_heads

__all__ = ["GLOBAL", "N_IDS", "PER_LAYER", "GemmaDecoder", "nested", "read_first_sharing", "read_full_heads"]
