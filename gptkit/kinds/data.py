"""Kind `data`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from gptkit.core.component import Component
from gptkit.core.errors import DataError

__all__ = ["DataSpec", "Document"]


@dataclass(frozen=True)
class Document:
    """One text of a corpus, or a piece of one that is too long to hold in memory.

    Attributes:
        text: the text.
        source: where it came from, for messages.
        ends: False if the next `Document` continues this one. No end token is added between such pieces and
            they stay on one side of the split. Cut them where a tokenizer would cut too: at the end of a line, say.
        masked: the parts of the text that are read but not learnt, such as prompts: pairs (start, end) of character
            offsets, half-open, sorted and not overlapping. They take no part in the loss. A token is masked if all of its
            bytes are, so the tokens are those of the text without a mask; where a tokenizer is not lossless, masked and
            other parts are encoded separately. Start and end tokens are never masked.

    Raises:
        DataError: `masked` is not of that form.
    """

    text: str
    source: str
    ends: bool = True
    masked: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        before = 0
        for start, end in self.masked:
            if not before <= start < end <= len(self.text):
                raise DataError(
                    f"{self.source}: the masked span ({start}, {end}) is not a part of the text after character {before} "
                    f"and up to its length, {len(self.text)}",
                    hint="Give half-open spans of characters (start, end), sorted and not overlapping.",
                )
            before = end


class DataSpec(Component):
    """Where the text comes from, how it is split, and how windows are cut from it.

    Documents come in the same order every time. Tokens of all documents are concatenated, each document
    opened by the tokenizer's start token and closed by its end token, where it has them (one token between two documents
    where both are the same); a data window is `training.window` tokens of it (the context length by default), its targets
    the same shifted by one.

    Which side of the split a document falls on depends on its text alone, not on its place, and copies of a text fall on
    the same side.
    """

    kind: ClassVar[str] = "data"

    validation: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the corpus kept for validation: whole documents where that comes close to the share, "
        "else the end of the longest.",
    )
    windows: Literal["random", "ordered"] = Field(
        "random",
        description="Training windows: crops at random places, or one after the other, `stride` tokens apart.",
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="Distance between the starts of ordered windows, in tokens; the length of a window by default.",
    )
    shuffle: bool = Field(False, description="Take ordered windows in a new random order each time through the corpus.")
    document_mask: bool = Field(
        False, description="Keep attention and positions within a document, where a window holds several."
    )

    @abstractmethod
    def documents(self, base: Path) -> Iterator[Document]:
        """The texts, streamed. Relative paths count from `base`, the directory of the spec file.

        Raises:
            DataError: nothing there, or not readable; says which file and line.
        """

    @abstractmethod
    def fingerprint(self, base: Path) -> str:
        """A short text that changes when the documents or their masks do: prepared tokens are used again while it stays
        the same.

        It must be much cheaper than reading a large corpus (file sizes and times, say).

        Raises:
            DataError: nothing there.
        """
