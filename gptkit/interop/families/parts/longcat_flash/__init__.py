"""Layers of LongCat-Flash: two attentions with feed-forwards, and experts beside them."""

from gptkit.interop.families.parts.longcat_flash.keys import NAMES, TINY, check, write_experts
from gptkit.interop.families.parts.longcat_flash.tensors import RULES, constants, skipped, twice

__all__ = ["NAMES", "RULES", "TINY", "check", "constants", "skipped", "twice", "write_experts"]
