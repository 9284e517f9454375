"""How llama.cpp splits texts into pieces before byte-pair merging: a fixed set of methods, each with a name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import BytePairs
from gptkit.text.patterns import PATTERNS
from gptkit.text.published import recipe

__all__ = ["CUTS", "Cut", "cut_of"]

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_BYTES = {**_GPT2, "use_regex": False}
_DIGITS = {"type": "Digits", "individual_digits": True}
_QWEN2 = PATTERNS["gpt4"].replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True)
class Cut:
    """A method of splitting texts.

    Attributes:
        stages: the equivalent pre-tokenizers of a tokenizer.json.
        whole: whether a piece that is a token is not split further, whatever the merges are.
    """

    stages: tuple[Mapping[str, Any], ...]
    whole: bool = False


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


_BY_GPT2, _BY_DIGIT = Cut((_GPT2,)), Cut((_DIGITS, _GPT2))
_BY_GPT4 = Cut((_split(PATTERNS["gpt4"]), _BYTES))
_BY_LLAMA3 = Cut(_BY_GPT4.stages, whole=True)
_BY_QWEN2 = Cut((_split(_QWEN2), _BYTES))
_BY_GPT4O = Cut((_split(PATTERNS["gpt4o"]), _BYTES))

CUTS: Mapping[str, Cut] = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo"), _BY_GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact"), _BY_DIGIT),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), _BY_LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _BY_GPT4),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2"), _BY_QWEN2),
    "gpt-4o": _BY_GPT4O,
}
"""By the name in `tokenizer.ggml.pre`."""


def cut_of(pairs: BytePairs) -> str | None:
    """Return the name in `tokenizer.ggml.pre` of how an encoding splits texts; None where llama.cpp has none."""
    if pairs.split is None:
        return "gpt-2"
    if isinstance(pairs.split, str):
        return _by_pattern().get(pairs.split)
    stages = [_essence(stage) for stage in pairs.split]
    same = [name for name, cut in CUTS.items() if [_essence(stage) for stage in cut.stages] == stages]
    # With merges for every token both give the same ids; the name with the same `whole` is preferred.
    return next((name for name in same if CUTS[name].whole == pairs.whole), same[0] if same else None)


def _essence(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stage.items() if key not in ("trim_offsets", "invert")}


@functools.cache
def _by_pattern() -> Mapping[str, str]:
    """Names by the regular expressions of the `bpe` and `tiktoken` tokenizers."""
    # Both keep a piece that is a token whole, as `llama-bpe` does.
    named = {PATTERNS["gpt2"]: "gpt-2", PATTERNS["gpt4"]: "llama-bpe", PATTERNS["gpt4o"]: "gpt-4o"}
    for encoding, name in (("gpt2", "gpt-2"), ("cl100k_base", "llama-bpe"), ("o200k_base", "gpt-4o")):
        try:
            named[recipe(encoding).pattern] = name
        except TokenizerError:
            continue
    return named
