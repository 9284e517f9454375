"""Adapter of tokenizers for llguidance: the bytes of every token."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from gptkit.kinds.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

__all__ = ["vocabulary"]

_adapters: WeakKeyDictionary[Tokenizer, dict[int, LLTokenizer]] = WeakKeyDictionary()


class _Tokens:
    """Interface of a tokenizer for llguidance.

    Attributes:
        tokens: the bytes of each id, empty for an unused id.
        special_token_ids: ids that are not used to encode text.
    """

    def __init__(self, tokenizer: Tokenizer, end_id: int, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = end_id
        self.bos_token_id = tokenizer.start_id
        known = min(vocab_size, tokenizer.vocab_size)
        self.tokens = [tokenizer.token_bytes(token) for token in range(known)] + [b""] * (vocab_size - known)
        self.special_token_ids = sorted({end_id, *(i for i in tokenizer.special_tokens.values() if i < vocab_size)})

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8"))


def vocabulary(tokenizer: Tokenizer, end_id: int, vocab_size: int) -> LLTokenizer:
    """Return the tokenizer for llguidance; cached, since construction is slow for a large vocabulary."""
    from llguidance import LLTokenizer, TokenizerWrapper

    by_size = _adapters.setdefault(tokenizer, {})
    if vocab_size not in by_size:
        tokens = TokenizerWrapper(_Tokens(tokenizer, end_id, vocab_size))
        by_size[vocab_size] = LLTokenizer(tokens, n_vocab=vocab_size, eos_token=end_id)
    return by_size[vocab_size]
