"""Kind `tokenizer`."""

from __future__ import annotations

import codecs
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gptkit.core.component import Component
from gptkit.core.errors import TokenizerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BytePairs", "StreamDecoder", "Tokenizer", "TokenizerSpec"]


@dataclass(frozen=True)
class BytePairs:
    """A byte-level pair encoding in the form in which file formats store one.

    Tokens are written with one printable character per byte (`gptkit.text.bytes`).

    Attributes:
        vocabulary: printable tokens and their ids, without special tokens and those of `literals`.
        merges: pairs of printable tokens in the order in which they are merged.
        split: how a text is split before pairs are merged: a regular expression whose matches are the pieces, the
            pre-tokenizers of a tokenizer.json, or None if splitting makes no difference.
        whole: whether a piece that is a token is not split, regardless of the merges.
        literals: ids of added tokens that are matched in any text and are not special.
    """

    vocabulary: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    split: str | Sequence[Mapping[str, Any]] | None
    whole: bool = True
    literals: frozenset[int] = frozenset()


class Tokenizer(ABC):
    """Conversion of text to token ids and back.

    Text that looks like a special token is not encoded as one, unless `allowed_special` contains it.
    """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids; every id is in range(vocab_size)."""

    @property
    @abstractmethod
    def special_tokens(self) -> Mapping[str, int]:
        """Special tokens and their ids."""

    def agrees_with(self, other: Tokenizer) -> bool:
        """Return whether every token id has the same bytes in both, and the special tokens are the same."""
        if self.vocab_size != other.vocab_size or dict(self.special_tokens) != dict(other.special_tokens):
            return False
        return all(self.token_bytes(token) == other.token_bytes(token) for token in range(self.vocab_size))

    @property
    def start_id(self) -> int | None:
        """Id of the start token, which is added before a text; None if the tokenizer has none."""
        return None

    @property
    def end_id(self) -> int | None:
        """Id of the end token, which is added after a text; None if the tokenizer has none."""
        return None

    @property
    def lossless(self) -> bool:
        """Whether decode(encode(text)) == text for every text without lone surrogates, which are encoded as U+FFFD."""
        return True

    @property
    def leading(self) -> bytes:
        """Bytes that `decode` removes at the start of a text: the space, in vocabularies that add one before every word."""
        return b""

    @abstractmethod
    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Return the ids of a text, without start and end tokens.

        Args:
            text: the text.
            allowed_special: the special tokens that are recognized in the text; `special_tokens` allows all.

        Raises:
            TokenizerError: a special token does not exist, or the text cannot be encoded.
        """

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode several texts, as `encode` does; some tokenizers use threads."""
        return [self.encode(text) for text in texts]

    def encode_array(self, text: str) -> Sequence[int] | NDArray[np.integer[Any]]:
        """Encode a text as `encode` does, in the form that takes the least time: a list or an array."""
        return self.encode(text)

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token; for a special token, those of its name.

        Empty for an unused id (published vocabularies have gaps).

        Raises:
            TokenizerError: the id is out of range.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids. Bytes that are not valid UTF-8 become U+FFFD.

        Raises:
            TokenizerError: an id out of range.
        """
        data = b"".join(self.token_bytes(token) for token in ids)
        return data.removeprefix(self.leading).decode("utf-8", errors="replace")

    def stream(self) -> StreamDecoder:
        """Return a decoder that receives ids one at a time.

        To continue a prompt, push the prompt's ids first and discard their text, so that the first word keeps its space.
        """
        return StreamDecoder(self.token_bytes, self.leading)

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the files that `TokenizerSpec.load` reads to an existing directory: data only, without references."""

    def to_spec(self, directory: Path) -> Mapping[str, Any] | None:
        """Return the tokenizer's spec as plain data, for a run that is saved from a model; None if it is not known.

        Options that only affect the training of the tokenizer may have their defaults.

        Args:
            directory: the directory that `save` writes to, for specs with a path.
        """
        return None

    @property
    def chat_template(self) -> str | None:
        """Jinja template that renders a conversation; None if the tokenizer has none."""
        return None

    def byte_pairs(self) -> BytePairs:
        """Return the tokenizer as a byte-level pair encoding, for formats that store one (GGUF, tokenizer.json).

        Raises:
            TokenizerError: it has no such form; the message completes "the tokenizer cannot be exported: ".
        """
        raise TokenizerError("it is not a byte-level pair encoding")

    def to_tokenizer_json(self) -> str:
        """Return the tokenizer as the tokenizer.json that the `tokenizers` library, and so transformers, reads.

        Raises:
            TokenizerError: it cannot be expressed; the message completes "the tokenizer cannot be exported: ".
        """
        raise TokenizerError("tokenizer.json cannot express it")


class StreamDecoder:
    """Incremental decoder of ids, which holds back the bytes of incomplete characters.

    The concatenated pieces equal the result of `decode` for all ids.

    Args:
        token_bytes: function that returns the bytes of a token (`Tokenizer.token_bytes`).
        leading: bytes removed from the start of the text, at most one.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], leading: bytes = b"") -> None:
        self._token_bytes = token_bytes
        self._leading = leading
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Add an id and return the text that became certain; empty while a character is incomplete."""
        data = self._token_bytes(token)
        if self._leading and data:
            data, self._leading = data.removeprefix(self._leading), b""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Return the bytes held back, as U+FFFD if they are not a character."""
        return self._decoder.decode(b"", final=True)


class TokenizerSpec(Component):
    """Tokenizer specification.

    `fit` trains a tokenizer on a corpus, or returns a pretrained one. `load` restores a saved one without the corpus.
    """

    kind: ClassVar[str] = "tokenizer"

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        for name in ("fit", "load"):
            method = cls.__dict__.get(name)
            if callable(method) and not getattr(method, "__isabstractmethod__", False):
                setattr(cls, name, _checked(method))

    @property
    def needs_corpus(self) -> bool:
        """Whether `fit` reads the texts."""
        return False

    @property
    def expected_vocab_size(self) -> int | None:
        """Size of the vocabulary if it is known beforehand (an upper bound for trained tokenizers), else None."""
        return None

    def missing(self, base: Path = Path()) -> str | None:
        """Return what `fit` requires and is not available on this machine, with the remedy; None if nothing is missing.

        Called before a training, to report it early; it must not use the network or read large files.

        Args:
            base: the base of relative paths in the spec: the directory of the spec file.
        """
        return None

    @abstractmethod
    def fit(self, texts: Iterator[str], *, base: Path = Path()) -> Tokenizer:
        """Return the tokenizer, trained on the texts if it is trainable.

        Args:
            texts: the training documents.
            base: the base of relative paths in the spec: the directory of the spec file.

        Raises:
            TokenizerError: the tokenizer is unavailable (no file, no package, an empty corpus); includes the remedy.
        """

    @abstractmethod
    def load(self, directory: Path) -> Tokenizer:
        """Return the tokenizer that was saved in a directory.

        Raises:
            TokenizerError: the directory's files are missing or damaged.
        """


def _checked(method: Callable[..., Any]) -> Callable[..., Tokenizer]:
    """Return `fit` or `load` with a check of its result: another one would cause an error later and elsewhere."""

    @functools.wraps(method)
    def checked(self: TokenizerSpec, *arguments: Any, **options: Any) -> Tokenizer:
        result = method(self, *arguments, **options)
        if not isinstance(result, Tokenizer):
            seen = "None" if result is None else f"a {type(result).__name__}"
            raise TokenizerError(
                f"tokenizer {self.name!r}: {method.__module__}.{method.__qualname__} returned {seen}, not a Tokenizer",
                hint="Add the return statement."
                if result is None
                else "Return a subclass of gptkit.kinds.tokenizer.Tokenizer.",
            )
        return result

    return checked
