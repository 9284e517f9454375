"""Kind `tokenizer`."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gptkit.core.component import Component
from gptkit.core.errors import TokenizerError

__all__ = ["BytePairs", "StreamDecoder", "Tokenizer", "TokenizerSpec"]


@dataclass(frozen=True)
class BytePairs:
    """A byte-level pair encoding in the form in which file formats store one.

    Tokens are spelled with one printable character per byte (`gptkit.text.bytes`).

    Attributes:
        vocabulary: spelled tokens and their ids, without special tokens and those of `literals`.
        merges: pairs of spelled tokens in the order in which they are merged.
        split: how a text is split before pairs are merged: a regular expression whose matches are the pieces, the
            pre-tokenizers of a tokenizer.json, or None where splitting makes no difference.
        whole: whether a piece that is a token is not split further, whatever the merges are.
        literals: ids of added tokens that are matched in any text and are not special.
    """

    vocabulary: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    split: str | Sequence[Mapping[str, Any]] | None
    whole: bool = True
    literals: frozenset[int] = frozenset()


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
        """Whether decode(encode(text)) == text for every text (of Unicode characters: a lone surrogate is none, and
        every tokenizer reads it as U+FFFD)."""
        return True

    @property
    def leading(self) -> bytes:
        """Bytes that `decode` removes from the start of a text: the space, in vocabularies that add one before every
        word."""
        return b""

    @abstractmethod
    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of a text, without start and end.

        Args:
            allowed_special: the special tokens that the text may contain as such; `special_tokens` itself allows all.

        Raises:
            TokenizerError: the tokenizer has no such special token, or cannot spell the text.
        """

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, for many texts; faster where the tokenizer has threads."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for (UTF-8); a special token's own spelling.

        Empty for an id in range that means nothing (published vocabularies have such gaps).

        Raises:
            TokenizerError: an id out of range.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids. Bytes that are not valid UTF-8 become U+FFFD.

        Raises:
            TokenizerError: an id out of range.
        """
        data = b"".join(self.token_bytes(token) for token in ids)
        return data.removeprefix(self.leading).decode("utf-8", errors="replace")

    def stream(self) -> StreamDecoder:
        """A decoder that is fed ids one by one.

        To continue a prompt, push the prompt's ids first and drop what comes: the first word keeps its space then.
        """
        return StreamDecoder(self.token_bytes, self.leading)

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write what `TokenizerSpec.load` needs into an existing directory; no corpus, no network, data only."""

    def to_spec(self, directory: Path) -> Mapping[str, Any] | None:
        """Return the tokenizer's spec as plain data, for a run that is written from a model; None where it is not known.

        Options that only matter to the training of the tokenizer may be left at their defaults.

        Args:
            directory: where `save` writes the tokenizer, for specs that name a path.
        """
        return None

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that renders a conversation; None where the tokenizer has none."""
        return None

    def byte_pairs(self) -> BytePairs:
        """Return the tokenizer as a byte-level pair encoding, for formats that store one (GGUF, tokenizer.json).

        Raises:
            TokenizerError: the tokenizer is not one; the message completes "the tokenizer cannot be exported: ".
        """
        raise TokenizerError("its tokens are not made by merging bytes")

    def to_tokenizer_json(self) -> str:
        """Return the tokenizer as the tokenizer.json that the `tokenizers` library, and so transformers, reads.

        Raises:
            TokenizerError: it cannot be expressed; the message completes "the tokenizer cannot be exported: ".
        """
        raise TokenizerError("tokenizer.json cannot express it")


class StreamDecoder:
    """Decodes ids one by one, holding back bytes that are not yet a whole character.

    The pieces put together are what `decode` gives for all ids at once.

    Args:
        token_bytes: as `Tokenizer.token_bytes`.
        leading: bytes removed from the start of the text, at most one.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], leading: bytes = b"") -> None:
        self._token_bytes = token_bytes
        self._leading = leading
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that is certain now; empty while a character is incomplete."""
        data = self._token_bytes(token)
        if self._leading and data:
            data, self._leading = data.removeprefix(self._leading), b""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Return the bytes held back, as U+FFFD if they are not a character."""
        return self._decoder.decode(b"", final=True)


class TokenizerSpec(Component):
    """How text becomes token ids.

    A tokenizer that learns from a corpus does so in `fit`; one that is ready made ignores the texts. What `save` wrote,
    `load` restores without the corpus.
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
    def fit(self, texts: Iterator[str], *, base: Path = Path()) -> Tokenizer:
        """The tokenizer, trained on the texts where it learns.

        Args:
            texts: the training documents.
            base: the directory that relative paths in the spec count from: that of the spec file.

        Raises:
            TokenizerError: the tokenizer is unavailable (no file, no package, an empty corpus); includes the remedy.
        """

    @abstractmethod
    def load(self, directory: Path) -> Tokenizer:
        """The tokenizer that was saved in a directory.

        Raises:
            TokenizerError: the directory's files are missing or damaged.
        """
