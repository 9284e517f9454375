"""Regular expressions that split a text into pieces before byte-pair merging.

Two engines use them, Oniguruma in training and fancy-regex in encoding, so they are restricted to the common syntax (no
possessive ``{1,3}+``, which Oniguruma reads as a repetition).
"""

from __future__ import annotations

__all__ = ["PATTERNS", "compiled_pattern"]

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPACE = r"\s+(?!\S)|\s+"

PATTERNS = {
    "gpt2": rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACE}",
    "gpt4": "|".join(
        (
            _CONTRACTION,
            r"[^\r\n\p{L}\p{N}]?\p{L}+",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*",
            r"\s*[\r\n]+",
            _SPACE,
        )
    ),
    "gpt4o": "|".join(
        (
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}?",
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            _SPACE,
        )
    ),
}
"""Patterns by name; each matches every character of every text."""

_KINDS = " \n\t\r.'_-aZ1é中🙂"
_PROBES = (*map(chr, range(1, 0x250)), *_KINDS, *(left + right for left in _KINDS for right in _KINDS))
_MARK = "\U0010ffff"


def compiled_pattern(pattern: str) -> str:
    """Return the regular expression of a named pattern, or a custom expression extended to match every text.

    Raises:
        ValueError: the expression is invalid, or matches the empty string, which would lose a character.
    """
    if pattern in PATTERNS:
        return PATTERNS[pattern]
    import tiktoken
    from tokenizers import Regex, normalizers

    # Characters that the expression does not match become single pieces; the core would drop them.
    covering = rf"(?:{pattern})|[\s\S]"
    try:
        replace = normalizers.Replace(Regex(covering), _MARK)
        tiktoken.Encoding("probe", pat_str=covering, mergeable_ranks={b"a": 0}, special_tokens={})
    except Exception as error:
        names = ", ".join(PATTERNS)
        raise ValueError(f"not a pattern name ({names}), and not a valid regular expression: {error}") from None
    for probe in _PROBES:
        marks = replace.normalize_str(probe)
        if marks.strip(_MARK) or len(marks) > len(probe):
            raise ValueError("the pattern matches the empty string, which would lose characters; change it")
    return covering
