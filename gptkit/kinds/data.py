"""Kind `data`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from gptkit.core.component import Component
from gptkit.core.errors import DataError
from gptkit.core.spec import fail

__all__ = ["LARGEST_WEIGHT", "DataSpec", "Document"]

LARGEST_WEIGHT = 1e12
"""Largest weight of a source of a mixture: sums of them, and products with numbers of tokens, are finite."""


@dataclass(frozen=True)
class Document:
    """One text of a corpus, or a piece of a text that is too long to hold in memory.

    Attributes:
        text: the text.
        source: its source (file and line, for example), for messages.
        ends: False if the next `Document` continues this one. No end token is added between such pieces, and they belong
            to the same side of the split. Split them where a tokenizer would split too, at the end of a line for example.
        masked: the parts of the text that are excluded from the loss, such as prompts: pairs (start, end) of character
            offsets, half-open, sorted and not overlapping. A token is masked if all of its bytes are, so the tokens are
            those of the text without a mask; if a tokenizer is not lossless, masked and other parts are encoded
            separately. Start and end tokens are never masked.
        messages: a conversation, mappings with `role` and `content`, which the tokenizer's chat template renders; `text` is
            the text of its messages. Only the parts that the assistant generates are included in the loss. The template
            adds its own start and end; no start or end token is added.
        mask_prompt: False includes the whole conversation in the loss.

    Raises:
        DataError: `masked` is not of this form, or given for a conversation.
    """

    text: str
    source: str
    ends: bool = True
    masked: tuple[tuple[int, int], ...] = ()
    messages: tuple[Mapping[str, Any], ...] | None = None
    mask_prompt: bool = True

    def __post_init__(self) -> None:
        if self.messages is not None and (self.masked or not self.ends):
            raise DataError(f"{self.source}: a conversation is a whole document, masked by its chat template")
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
    """Corpus: the source of documents, their split into training and validation, and the sampling of data windows.

    Documents are read in the same order every time. Tokens of all documents are concatenated; each document is preceded by
    the tokenizer's start token and followed by its end token, if it has them (one token between two documents if both are
    the same). A data window is `training.window` of these tokens (by default the context length); its targets are the same
    tokens shifted by one.

    The side of the split depends on a document's text only, not on its location, so copies of a text are on the same side.
    """

    kind: ClassVar[str] = "data"

    validation: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Fraction of the corpus held out for validation: whole documents if these come close to the fraction, "
        "else the end of the longest one.",
    )
    windows: Literal["random", "ordered", "packed"] = Field(
        "random",
        description="Training windows: at random offsets; in order, `stride` tokens apart; or filled with whole documents "
        "by best fit, with `document_mask`.",
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="Distance between the starts of ordered windows, in tokens; the length of a window by default.",
    )
    shuffle: bool = Field(False, description="Shuffle ordered or packed windows in every epoch.")
    document_mask: bool = Field(
        False, description="Restrict attention and positions to a document if a window holds several."
    )

    @model_validator(mode="after")
    def _stride_applies(self) -> DataSpec:
        if self.windows == "packed" and self.stride is not None:
            fail("packed windows have no stride; remove it", ("stride",), self.stride)
        return self

    @property
    def masks_documents(self) -> bool:
        """Whether attention and positions are restricted to one document."""
        return self.document_mask or self.windows == "packed"

    def parts(self) -> Sequence[tuple[str, DataSpec]]:
        """Return the corpora that a mixture consists of, with their names, in the order of documents; empty by default.

        Each is split separately, with the fields that are common to all data of the mixture.
        """
        return ()

    def part_shares(self, tokens: Sequence[int]) -> Sequence[float]:
        """Return the share of training windows of each part, from the number of its training tokens."""
        return ()

    def token_directory(self, base: Path) -> Path | None:
        """Return the directory of the corpus's tokens, if it consists of prepared tokens; None by default."""
        return None

    def cautions(self, base: Path) -> Iterator[str]:
        """Yield a sentence, which begins with a field's path, for each probably unintended choice of files; none by default.

        They are printed before the corpus is read.
        """
        return iter(())

    @abstractmethod
    def documents(self, base: Path) -> Iterator[Document]:
        """Yield the documents. Relative paths are relative to `base`, the directory of the spec file.

        Raises:
            DataError: a file is missing or cannot be read; names the file and the line.
        """

    @abstractmethod
    def fingerprint(self, base: Path) -> str:
        """Return a short text that changes when the documents or their masks change.

        Prepared tokens are reused while it is the same. It must be much cheaper than reading a large corpus: use file sizes
        and modification times, for example.

        Raises:
            DataError: a file is missing.
        """
