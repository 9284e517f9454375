"""Fixtures: a byte tokenizer with start and end tokens, and a corpus given as a list."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch

from gptkit.core.errors import TokenizerError
from gptkit.kinds.data import DataSpec, Document
from gptkit.kinds.tokenizer import Tokenizer

torch.set_num_threads(1)


class Bytes(Tokenizer):
    """Ids 0-255 are bytes; `start` and `end` may be more."""

    def __init__(self, start: int | None = None, end: int | None = 256, vocab_size: int = 258, refuses: str = "") -> None:
        self.start, self.end, self.size, self.refuses = start, end, vocab_size, refuses
        self.batches = 0

    vocab_size = property(lambda self: self.size)  # type: ignore[assignment]
    start_id = property(lambda self: self.start)  # type: ignore[assignment]
    end_id = property(lambda self: self.end)  # type: ignore[assignment]

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return {} if self.end is None else {"<|end|>": self.end}

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        if self.refuses and self.refuses in text:
            raise TokenizerError(f"no token for {self.refuses!r}", hint="Take another.")
        if "<|end|>" in allowed_special and "<|end|>" in text:
            first, second = text.split("<|end|>", 1)
            return [*first.encode(), self.special_tokens["<|end|>"], *second.encode()]
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        self.batches += 1
        return super().encode_batch(texts)

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b"<|end|>"

    def save(self, directory: Path) -> None:
        (directory / "bytes.json").write_text(f"[{self.size}]")


class Listed(DataSpec):
    """Corpus with the texts of the spec. A text that ends in a backslash is continued by the next."""

    name: Literal["listed"] = "listed"
    texts: tuple[str, ...] = ()
    opened: ClassVar[list[int]] = []

    def documents(self, base: Path) -> Iterator[Document]:
        self.opened.append(1)
        for number, text in enumerate(self.texts):
            yield Document(text.removesuffix("\\"), f"text {number}", not text.endswith("\\"))

    def fingerprint(self, base: Path) -> str:
        return hashlib.sha256(repr(self.texts).encode()).hexdigest()


@pytest.fixture(scope="session")
def make_bytes() -> type[Bytes]:
    return Bytes


@pytest.fixture(scope="session")
def listed() -> type[Listed]:
    return Listed


@pytest.fixture(scope="session")
def shared_data() -> Path:
    directory = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    if not directory.is_dir():
        pytest.skip("needs the public-domain texts, which are not part of the repository")
    return directory
