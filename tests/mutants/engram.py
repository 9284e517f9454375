"""Embeddings of n-grams with one error each."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.block.engram import EngramSpec
from gptkit.components.block.modules.engram import Engram, NGramTables
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from tests.mutants.attention import blind
from tests.mutants.mutant import ANYTHING, Mutant, become


class WrongEngram(Mutant, EngramSpec):
    """Base of blocks whose embeddings have the runtime class `engram_class`, or whose tables have `tables_class`."""

    heads: int = Field(2, description="Tables of a length.")
    d_embedding: int | None = Field(12, description="Features of the embeddings.")
    table_rows: int = Field(30, description="Rows of a table.")
    engram_class: ClassVar[type[Engram] | None] = None
    tables_class: ClassVar[type[NGramTables] | None] = None
    twin_class = EngramSpec

    def build(self, context: BuildContext) -> Any:
        made: Any = super().build(context)
        if self.engram_class is not None:
            become(made.engram, self.engram_class)
        if self.tables_class is not None:
            become(made.engram.tables, self.tables_class)
        return made


class NGramsOfPadding(WrongEngram):
    """Look up n-grams that reach into padding."""

    class Tables(NGramTables):
        def forward(self, ids_BT: Tensor, before_BG: Tensor, forward: Forward) -> Tensor:
            return super().forward(ids_BT, before_BG, blind(forward, left_padding_B=None))

    name: Literal["ngrams-of-padding"] = "ngrams-of-padding"  # type: ignore[assignment]
    tables_class = Tables
    caught_by = "padding-is-ignored"
    also = ANYTHING


class NGramsOfTheCall(WrongEngram):
    """Forget the ids of earlier calls."""

    class Tables(NGramTables):
        def forward(self, ids_BT: Tensor, before_BG: Tensor, forward: Forward) -> Tensor:
            return super().forward(ids_BT, torch.zeros_like(before_BG), forward)

    name: Literal["ngrams-of-the-call"] = "ngrams-of-the-call"  # type: ignore[assignment]
    tables_class = Tables
    caught_by = "cached-equals-full"
    also = ANYTHING


class NGramsOfTheFuture(WrongEngram):
    """Look up the n-grams that end with the next token."""

    class Tables(NGramTables):
        def forward(self, ids_BT: Tensor, before_BG: Tensor, forward: Forward) -> Tensor:
            return super().forward(ids_BT, before_BG, forward).roll(-1, dims=1)

    name: Literal["ngrams-of-the-future"] = "ngrams-of-the-future"  # type: ignore[assignment]
    tables_class = Tables
    caught_by = "no-future-leak"
    also = ANYTHING


class NGramsOverDocuments(WrongEngram):
    """Convolve embeddings over the borders of packed documents."""

    class Runtime(Engram):
        def forward(self, streams_BTNE: Tensor, forward: Forward) -> Tensor:
            return super().forward(streams_BTNE, blind(forward, documents_BT=None))

    name: Literal["ngrams-over-documents"] = "ngrams-over-documents"  # type: ignore[assignment]
    engram_class = Runtime
    caught_by = "documents-keep-apart"
    also = ANYTHING
