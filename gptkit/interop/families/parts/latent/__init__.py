"""Latent attention, as DeepSeek's families name it, and the base of these families."""

from gptkit.interop.families.parts.latent.decoder import LatentDecoder
from gptkit.interop.families.parts.latent.indexer import (
    INDEX_SIZES,
    INDEXER,
    RotatedLast,
    only_indexed,
    read_indexers,
    read_sparse_latent,
    write_indexers,
)
from gptkit.interop.families.parts.latent.layers import latent

__all__ = [
    "INDEXER",
    "INDEX_SIZES",
    "LatentDecoder",
    "RotatedLast",
    "latent",
    "only_indexed",
    "read_indexers",
    "read_sparse_latent",
    "write_indexers",
]
