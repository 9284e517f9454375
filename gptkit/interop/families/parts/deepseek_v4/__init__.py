"""Parts of DeepSeek V4: attention to compressed blocks, its two rotations, and routers that hash token ids."""

from gptkit.interop.families.parts.deepseek_v4.attention import read_attention, write_attention
from gptkit.interop.families.parts.deepseek_v4.positions import read_position, write_positions
from gptkit.interop.families.parts.deepseek_v4.routers import read_layers, read_router, write_feedforward
from gptkit.interop.families.parts.deepseek_v4.tensors import RENAMES, rules
from gptkit.interop.families.parts.deepseek_v4.tiny import TINY

__all__ = [
    "RENAMES",
    "TINY",
    "read_attention",
    "read_layers",
    "read_position",
    "read_router",
    "rules",
    "write_attention",
    "write_feedforward",
    "write_positions",
]
