"""Kind `data`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from gptkit.spec import Component

__all__ = ["DataSpec", "Document"]


@dataclass(frozen=True)
class Document:
    """One text of a corpus, with where it came from (for messages)."""

    text: str
    source: str


class DataSpec(Component):
    """Where the text comes from, how it is split, and how windows are cut from it.

    Documents come in the same order every time. Tokens of all documents stand one after the other, each document
    closed by the tokenizer's end token; a window is `context_length` tokens of it, its targets the same shifted by one.
    """

    kind: ClassVar[str] = "data"

    validation: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the corpus kept for validation: whole documents if there are several, else the end of the one.",
    )
    windows: Literal["random", "ordered"] = Field(
        "random",
        description="Training windows: crops at random places, or one after the other, `stride` tokens apart.",
    )
    stride: int | None = Field(
        None, ge=1, description="Distance between the starts of ordered windows, in tokens; the context length by default."
    )
    document_mask: bool = Field(
        False, description="Keep attention and positions within a document, where a window holds several."
    )

    @abstractmethod
    def documents(self, base: Path) -> Iterator[Document]:
        """The texts, streamed. Relative paths count from `base`, the folder of the spec file.

        Raises:
            DataError: nothing there, or not readable; says which file and line.
        """

    @abstractmethod
    def fingerprint(self, base: Path) -> str:
        """A short text that changes when the corpus does (paths, sizes and times, say): prepared tokens depend on it."""
