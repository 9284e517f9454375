"""The tokenizer.json of tokenizers with whole words or characters, and bytes or one id for all others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from gptkit.core.errors import TokenizerError

__all__ = ["CHARACTERS", "byte_fallback_json", "space_joined", "whitespace", "word_level_json"]

CHARACTERS = r"[\s\S]"
"""Regular expression of any character."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""Name of a byte in tokenizer.json."""


@cache
def whitespace() -> str:
    r"""Return a character class of what `\s` matches in Python; the `tokenizers` library's has fewer characters."""
    return "".join(rf"\x{{{code:04X}}}" for code in range(0x3001) if re.match(r"\s", chr(code)))


def word_level_json(
    tokens: Mapping[str, int],
    special_tokens: Mapping[str, int],
    *,
    unknown: str,
    splits: Sequence[tuple[str, str]],
    decoder: Any = None,
    lowercase: bool = False,
) -> str:
    """Return the tokenizer.json of a tokenizer that has an id for each piece of a text.

    Args:
        tokens: the pieces with their ids, without special tokens.
        special_tokens: special tokens and their ids.
        unknown: the special token of all other pieces; one that does not exist makes them errors.
        splits: regular expressions that split the text, and what becomes of their matches (``isolated``, ``removed``).
        decoder: a decoder of the `tokenizers` library; by default the pieces are joined without spaces.
        lowercase: lower-case the text first.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokenizer = Tokenizer(models.WordLevel(vocab={**tokens, **special_tokens}, unk_token=unknown))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.decoder = decoder or decoders.Fuse()
    return _finished(tokenizer, splits, special_tokens)


def byte_fallback_json(
    tokens: Mapping[str, int], special_tokens: Mapping[str, int], *, splits: Sequence[tuple[str, str]]
) -> str:
    """Return the tokenizer.json of a tokenizer that writes other pieces as characters, and other characters as bytes.

    Args:
        tokens: the pieces and characters with their ids; the ids of bytes are their values.
        special_tokens, splits: as for `word_level_json`.

    Raises:
        TokenizerError: a piece contains the name of a byte.
    """
    from tokenizers import Tokenizer, decoders, models

    for token in tokens:
        if _BYTE.search(token):
            raise TokenizerError(f"its vocabulary contains {token!r}, and {_BYTE.pattern} names bytes in tokenizer.json")
    vocabulary = {f"<0x{value:02X}>": value for value in range(256)}
    model = models.BPE(vocab={**vocabulary, **tokens, **special_tokens}, merges=[], byte_fallback=True, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    # The name of a byte in a text is cut, so that it is not taken for the byte.
    return _finished(tokenizer, [*splits, (f"<(?={_BYTE.pattern[1:]})", "isolated")], special_tokens)


def space_joined(clinging: Sequence[str]) -> Any:
    """Return a decoder that joins pieces by spaces, without one before some of them."""
    from tokenizers import decoders

    # The prefix marks pieces that continue a word, and none has it.
    joined = decoders.WordPiece(prefix="\0", cleanup=False)
    return decoders.Sequence([joined, *(decoders.Replace(f" {piece}", piece) for piece in clinging)])


def _finished(tokenizer: Any, splits: Sequence[tuple[str, str]], special_tokens: Mapping[str, int]) -> str:
    from tokenizers import AddedToken, Regex, pre_tokenizers

    stages = [pre_tokenizers.Split(Regex(pattern), behavior) for pattern, behavior in splits]
    tokenizer.pre_tokenizer = stages[0] if len(stages) == 1 else pre_tokenizers.Sequence(stages)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special_tokens])
    text: str = tokenizer.to_str(pretty=True)
    return text
