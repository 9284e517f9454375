"""Kind `tokenizer`."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from gptkit.spec import Component

__all__ = ["StreamDecoder", "Tokenizer", "TokenizerSpec"]


class Tokenizer(ABC):
    """Text to token ids and back.

    Text that merely looks like a special token is never encoded as one, unless it is named in `allowed_special`.
    """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids; every id is in range(vocab_size)."""

    @property
    @abstractmethod
    def special_tokens(self) -> Mapping[str, int]:
        """Special tokens and their ids."""

    @property
    def start_id(self) -> int | None:
        """The id put before a text, or None where the tokenizer has none."""
        return None

    @property
    def end_id(self) -> int | None:
        """The id put after a text (end of text), or None where the tokenizer has none."""
        return None

    @property
    def lossless(self) -> bool:
        """Whether decode(encode(text)) == text for every text."""
        return True

    @abstractmethod
    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of a text, without start and end."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, for many texts; faster where the tokenizer has threads."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for (UTF-8); a special token's own spelling.

        Raises:
            TokenizerError: no such id.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. Bytes that are no UTF-8 become U+FFFD.

        Raises:
            TokenizerError: an id out of range.
        """
        return b"".join(self.token_bytes(token) for token in ids).decode("utf-8", errors="replace")

    def stream(self) -> StreamDecoder:
        """A decoder that is fed ids one by one."""
        return StreamDecoder(self.token_bytes)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `TokenizerSpec.load` needs into an existing folder; no corpus, no network, data only."""


class StreamDecoder:
    """Decodes ids one by one, holding back bytes that are not yet a whole character.

    The pieces put together are what `decode` gives for all ids at once.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that is certain now; empty while a character is incomplete."""
        return self._decoder.decode(self._token_bytes(token))

    def finish(self) -> str:
        """What was held back, as U+FFFD where it is no character."""
        return self._decoder.decode(b"", final=True)


class TokenizerSpec(Component):
    """How text becomes token ids.

    A tokenizer that learns from a corpus does so in `fit`; one that is ready made ignores the texts. What `save` wrote,
    `load` brings back without the corpus.
    """

    kind: ClassVar[str] = "tokenizer"

    @property
    def needs_corpus(self) -> bool:
        """Whether `fit` reads the texts."""
        return False

    @property
    def expected_vocab_size(self) -> int | None:
        """The vocabulary's size where it is known beforehand (an upper bound for trained ones), else None."""
        return None

    @abstractmethod
    def fit(self, texts: Iterator[str]) -> Tokenizer:
        """The tokenizer, trained on the texts where it learns.

        Raises:
            TokenizerError: it cannot be had (no file, no package, an empty corpus), and what to do.
        """

    @abstractmethod
    def load(self, folder: Path) -> Tokenizer:
        """The tokenizer that was saved in a folder.

        Raises:
            TokenizerError: the folder's files are missing or damaged.
        """
