"""Token ids of documents, and which of those tokens are masked in the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.core.errors import TokenizerError
from gptkit.kinds.data import Document
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.base import well_formed
from gptkit.text.chat import Part, chat_ids, conversation

__all__ = ["Encoder"]


class Encoder:
    """Encodes documents and maps their masked characters to tokens.

    A conversation is rendered by the tokenizer's chat template, which says what of it the assistant generates.

    A document with a mask has the same tokens as without one, where their bytes are those of its text. A token is masked
    if all of its bytes are; a token that straddles a border is not. Where the tokens do not spell the text (a tokenizer
    that drops white space, lowercases, or has an unknown token), masked and other parts are encoded separately.

    Args:
        tokenizer: encodes the texts.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._token_bytes = cache(tokenizer.token_bytes)

    def __call__(self, documents: Sequence[Document]) -> Iterator[tuple[list[int], NDArray[np.bool_] | None]]:
        """Yield the ids of each document, and for each id whether it is masked; None for a document without a mask.

        Raises:
            TokenizerError: the tokenizer rejects a text; the message names its source.
        """
        plain = iter(self._encode([document for document in documents if document.messages is None]))
        for document in documents:
            if document.messages is not None:
                yield self._conversation(document, document.messages)
                continue
            ids = next(plain)
            if not document.masked:
                yield ids, None
                continue
            masked_N = self._masked_tokens(document.text, document.masked, ids)
            yield (ids, masked_N) if masked_N is not None else self._in_parts(document)

    def _conversation(
        self, document: Document, messages: Sequence[Mapping[str, Any]]
    ) -> tuple[list[int], NDArray[np.bool_] | None]:
        """The ids of a conversation, and for each whether the assistant does not generate it."""
        try:
            if not document.mask_prompt:
                return chat_ids(self._tokenizer, messages, reply=False), None
            rendered = conversation(self._tokenizer, messages)
            ids = [token for part in rendered.parts for token in part.encode(self._tokenizer)]
            masked = tuple(_complement(rendered.generated, len(rendered.text)))
            masked_N = self._masked_tokens(rendered.text, masked, ids)
            if masked_N is not None:
                return ids, masked_N
            pieces = [(part.encode(self._tokenizer), is_masked) for part, is_masked in _cut(rendered.parts, masked)]
        except TokenizerError as error:
            raise TokenizerError(f"{document.source}: {error.message}", hint=error.hint) from None
        ids = [token for piece, _ in pieces for token in piece]
        return ids, np.array([is_masked for piece, is_masked in pieces for _ in piece], np.bool_)

    def _encode(self, documents: Sequence[Document]) -> list[list[int]]:
        try:
            return self._tokenizer.encode_batch([document.text for document in documents])
        except TokenizerError:
            for document in documents:  # encode_batch does not report which text failed
                self._encode_named(document.text, document.source)
            raise

    def _encode_named(self, text: str, source: str) -> list[int]:
        try:
            return self._tokenizer.encode(text)
        except TokenizerError as error:
            raise TokenizerError(f"{source}: {error.message}", hint=error.hint) from None

    def _masked_tokens(
        self, original: str, spans: Sequence[tuple[int, int]], ids: Sequence[int]
    ) -> NDArray[np.bool_] | None:
        """Whether each token is masked; None where the tokens do not spell the text."""
        text = well_formed(original)
        data = text.encode()
        pieces = [self._token_bytes(token) for token in ids]
        spelled = b"".join(pieces)
        if len(text) != len(original) or spelled not in (data, self._tokenizer.leading + data):
            return None
        masked = np.zeros(len(data), np.bool_)
        character = byte = 0
        for start, end in spans:
            first = byte + len(text[character:start].encode())
            character, byte = end, first + len(text[start:end].encode())
            masked[first:byte] = True
        # Offsets in the text's bytes, which begin after the leading space that some vocabularies add.
        ends_N = np.cumsum([len(piece) for piece in pieces], dtype=np.int64) - (len(spelled) - len(data))
        starts_N = np.concatenate(([0], ends_N[:-1]))
        # A token without a byte of the text is treated as the byte that follows it.
        starts_N = starts_N.clip(0, len(data) - 1)
        ends_N = np.maximum(ends_N, starts_N + 1)
        trained_before = np.concatenate(([0], np.cumsum(~masked)))
        result: NDArray[np.bool_] = trained_before[ends_N] == trained_before[starts_N]
        return result

    def _in_parts(self, document: Document) -> tuple[list[int], NDArray[np.bool_]]:
        ids: list[int] = []
        masked: list[bool] = []
        for text, is_masked in _pieces(document.text, document.masked):
            part = self._encode_named(text, document.source)
            ids += part
            masked += [is_masked] * len(part)
        return ids, np.array(masked, np.bool_)


def _pieces(text: str, masked: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a text between the borders of its mask, and whether each is masked."""
    at = 0
    for start, end in masked:
        if at < start:
            yield text[at:start], False
        yield text[start:end], True
        at = end
    if at < len(text):
        yield text[at:], False


def _complement(spans: Sequence[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    """Yield the spans between others."""
    at = 0
    for start, end in (*spans, (length, length)):
        if at < start:
            yield at, start
        at = end


def _cut(parts: Sequence[Part], masked: Sequence[tuple[int, int]]) -> Iterator[tuple[Part, bool]]:
    """Yield the parts of a conversation, cut at the borders of the mask, and whether each is masked."""
    at = 0
    for part in parts:
        end = at + len(part.text)
        inside = [(max(first, at) - at, min(last, end) - at) for first, last in masked if first < end and last > at]
        for text, is_masked in _pieces(part.text, inside):
            yield Part(text, part.literal), is_masked
        at = end
