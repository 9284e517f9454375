"""Byte tokenizers with one error each."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.byte import ByteSpec, ByteTokenizer
from gptkit.components.tokenizer.char import CharSpec
from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import StreamDecoder, Tokenizer
from gptkit.testing.texts import CORPUS
from tests.mutants.mutant import ANYTHING, Mutant, become


class Wrong(Mutant, ByteSpec):
    """Base of the tokenizers below."""

    runtime: ClassVar[type[ByteTokenizer]] = ByteTokenizer
    twin_class = ByteSpec

    def fit(self, texts: Iterator[str]) -> Tokenizer:
        made: Tokenizer = become(super().fit(texts), self.runtime)
        return made

    def load(self, directory: Path) -> Tokenizer:
        made: Tokenizer = become(ByteSpec(name="byte").load(directory), self.runtime)
        return made


class LosesCapitals(Wrong):
    """Lower-case texts and declare the tokenizer lossless."""

    class Runtime(ByteTokenizer):
        def encode_ordinary(self, text: str) -> list[int]:
            return super().encode_ordinary(text.lower())

    name: Literal["loses-capitals"] = "loses-capitals"
    runtime = Runtime
    caught_by = "text-comes-back"
    also = ("exports-its-ids",)


class LosesWhatIsRare(Wrong):
    """Omit characters beyond the first plane and declare the tokenizer lossless."""

    class Runtime(ByteTokenizer):
        def encode_ordinary(self, text: str) -> list[int]:
            return super().encode_ordinary("".join(char for char in text if ord(char) < 0x10000))

    name: Literal["loses-what-is-rare"] = "loses-what-is-rare"
    runtime = Runtime
    caught_by = "text-comes-back"
    also = ("exports-its-ids",)


class Injectable(Wrong):
    """Recognize special tokens in every text."""

    class Runtime(ByteTokenizer):
        def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
            return super().encode(text, allowed_special=allowed_special or list(self.special_tokens))

    name: Literal["injectable"] = "injectable"
    runtime = Runtime
    caught_by = "specials-cannot-be-injected"


class InjectableInBatches(Wrong):
    """Recognize special tokens in every text of a batch."""

    class Runtime(ByteTokenizer):
        def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
            return [self.encode(text, allowed_special=list(self.special_tokens)) for text in texts]

    name: Literal["injectable-in-batches"] = "injectable-in-batches"
    runtime = Runtime
    caught_by = "specials-cannot-be-injected"


class OneIdTooMany(Wrong):
    """End token whose id equals the vocabulary's size."""

    class Runtime(ByteTokenizer):
        @property
        def vocab_size(self) -> int:
            return super().vocab_size - 1

    name: Literal["one-id-too-many"] = "one-id-too-many"
    runtime = Runtime
    caught_by = "ids-in-range"
    also = ("every-id-decodes",)


class DecodesAnything(Wrong):
    """Decode ids that do not exist."""

    class Runtime(ByteTokenizer):
        def decode(self, ids: Any) -> str:
            return super().decode([token % self.vocab_size for token in ids])

    name: Literal["decodes-anything"] = "decodes-anything"
    runtime = Runtime
    caught_by = "every-id-decodes"


class StripsInBatches(Wrong):
    """Strip trailing spaces of texts in a batch."""

    class Runtime(ByteTokenizer):
        def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
            return [self.encode(text.strip()) for text in texts]

    name: Literal["strips-in-batches"] = "strips-in-batches"
    runtime = Runtime
    caught_by = "batch-equals-single"


class DependsOnThread(Wrong):
    """Encode in the main thread only."""

    class Runtime(ByteTokenizer):
        def encode_ordinary(self, text: str) -> list[int]:
            ids = super().encode_ordinary(text)
            return ids if threading.current_thread() is threading.main_thread() else ids[::-1]

    name: Literal["depends-on-thread"] = "depends-on-thread"
    runtime = Runtime
    caught_by = "threads"


class StreamsBytes(Wrong):
    """Emit every byte immediately, including incomplete characters."""

    class Stream(StreamDecoder):
        def push(self, token: int) -> str:
            return self._token_bytes(token).decode("utf-8", errors="replace")

    class Runtime(ByteTokenizer):
        def stream(self) -> StreamDecoder:
            return StreamsBytes.Stream(self.token_bytes)

    name: Literal["streams-bytes"] = "streams-bytes"
    runtime = Runtime
    caught_by = "streaming-equals-whole"


class ForgetsItsEnd(Wrong):
    """Lose the end token when loaded."""

    name: Literal["forgets-its-end"] = "forgets-its-end"
    caught_by = "saved-and-loaded"

    def load(self, directory: Path) -> Tokenizer:
        super().load(directory)
        return ByteSpec(name="byte", end_token=None).fit(iter(()))


class FitsByTurns(Wrong):
    """Shift the ids every second time that it is fitted."""

    turns: ClassVar[list[int]] = []

    class Runtime(ByteTokenizer):
        shift = 0

        def encode_ordinary(self, text: str) -> list[int]:
            return [(token + self.shift) % 256 for token in super().encode_ordinary(text)]

        def token_bytes(self, token: int) -> bytes:
            return super().token_bytes((token - self.shift) % 256 if 0 <= token < 256 else token)

        def decode(self, ids: Any) -> str:
            return Tokenizer.decode(self, ids)

    name: Literal["fits-by-turns"] = "fits-by-turns"
    runtime = Runtime
    caught_by = "fits"
    also = ("exports-its-ids",)

    def fit(self, texts: Iterator[str]) -> Tokenizer:
        made: Any = super().fit(texts)
        self.turns.append(1)
        made.shift = len(self.turns) % 2
        self.runtime.shift = made.shift  # type: ignore[attr-defined]
        return made  # type: ignore[no-any-return]


class BreaksOnHalves(Wrong):
    """Raise a UnicodeError for lone surrogates."""

    class Runtime(ByteTokenizer):
        def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
            text.encode("utf-8")
            return super().encode(text, allowed_special=allowed_special)

    name: Literal["breaks-on-halves"] = "breaks-on-halves"
    runtime = Runtime
    caught_by = "lone-surrogates"


class NeedsNoCorpus(Mutant, BpeSpec):
    """Declare that no corpus is needed, though the merges are trained."""

    name: Literal["needs-no-corpus"] = "needs-no-corpus"
    caught_by = "fits"

    @property
    def needs_corpus(self) -> bool:
        return False


class StartsOutside(Wrong):
    """Start token outside the vocabulary."""

    class Runtime(ByteTokenizer):
        @property
        def start_id(self) -> int:
            return 9999

    name: Literal["starts-outside"] = "starts-outside"
    runtime = Runtime
    caught_by = "ids-in-range"


class StripsBeforeSpecials(Wrong):
    """Remove blanks before a special token."""

    class Runtime(ByteTokenizer):
        def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
            for token in allowed_special:
                text = text.replace(f" {token}", token)
            return super().encode(text, allowed_special=allowed_special)

    name: Literal["strips-before-specials"] = "strips-before-specials"
    runtime = Runtime
    caught_by = "keeps-text-around-specials"


class EndsAtASpecial(Wrong):
    """Discard the text after the first special token."""

    class Runtime(ByteTokenizer):
        def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
            for token in set(allowed_special) & set(self.special_tokens):
                text = text[: text.index(token) + len(token)] if token in text else text
            return super().encode(text, allowed_special=allowed_special)

    name: Literal["ends-at-a-special"] = "ends-at-a-special"
    runtime = Runtime
    caught_by = "keeps-text-around-specials"


class WrapsItsArrays(Wrong):
    """Return arrays of a type that is too small for the ids."""

    class Runtime(ByteTokenizer):
        def encode_array(self, text: str) -> NDArray[np.int8]:
            return np.array(self.encode(text)).astype(np.int8)

    name: Literal["wraps-its-arrays"] = "wraps-its-arrays"
    runtime = Runtime
    caught_by = "batch-equals-single"


class OneStream(Wrong):
    """Return the same decoder for every text."""

    class Runtime(ByteTokenizer):
        def stream(self) -> StreamDecoder:
            stream: StreamDecoder = self.__dict__.setdefault("only", super().stream())
            return stream

    name: Literal["one-stream"] = "one-stream"
    runtime = Runtime
    caught_by = "streaming-equals-whole"


class SavesAReference(Wrong):
    """Save the path of its files instead of their contents."""

    class Runtime(ByteTokenizer):
        def save(self, directory: Path) -> None:
            super().save(directory)
            (directory / "origin").write_text(str(directory), encoding="utf-8")

    name: Literal["saves-a-reference"] = "saves-a-reference"
    runtime = Runtime
    caught_by = "saved-and-loaded"

    def load(self, directory: Path) -> Tokenizer:
        origin = directory / "origin"
        if origin.exists() and not Path(origin.read_text(encoding="utf-8")).exists():
            raise TokenizerError(f"{origin} names a directory that does not exist")
        return super().load(directory)


class ExportsOtherIds(Wrong):
    """Export the vocabulary of another tokenizer."""

    class Runtime(ByteTokenizer):
        def to_tokenizer_json(self) -> str:
            return CharSpec().fit(iter(CORPUS)).to_tokenizer_json()

    name: Literal["exports-other-ids"] = "exports-other-ids"
    runtime = Runtime
    caught_by = "exports-its-ids"


class ReturnsFractions(Wrong):
    """Return ids that are not integers."""

    class Runtime(ByteTokenizer):
        def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
            return [float(token) for token in super().encode(text, allowed_special=allowed_special)]  # type: ignore[misc]

        def token_bytes(self, token: int) -> bytes:
            return super().token_bytes(int(token))

    name: Literal["returns-fractions"] = "returns-fractions"
    runtime = Runtime
    caught_by = "ids-in-range"
    also = ANYTHING
