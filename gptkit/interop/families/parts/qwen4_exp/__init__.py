"""Parts of Qwen 4 Exp: the indexer, residual streams, embeddings of n-grams, and their tensors."""

from gptkit.interop.families.parts.qwen4_exp.attention import read_indexed, read_types_of, skip_indexer, write_indexed
from gptkit.interop.families.parts.qwen4_exp.blocks import read_blocks, write_blocks
from gptkit.interop.families.parts.qwen4_exp.tensors import rules, within_engrams
from gptkit.interop.families.parts.qwen4_exp.tiny import TINY

__all__ = [
    "TINY",
    "read_blocks",
    "read_indexed",
    "read_types_of",
    "rules",
    "skip_indexer",
    "within_engrams",
    "write_blocks",
    "write_indexed",
]
