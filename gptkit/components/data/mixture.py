"""Mixtures of corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from gptkit.core.spec import Spec, fail
from gptkit.kinds.data import LARGEST_WEIGHT, DataSpec, Document

_COMMON = ("validation", "windows", "stride", "shuffle", "document_mask")


class MixtureSource(Spec):
    """One corpus of a mixture."""

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$", description="Name of the source, in metrics.")
    data: DataSpec = Field(description="The corpus.")
    weight: float | None = Field(
        None,
        gt=0,
        le=LARGEST_WEIGHT,
        allow_inf_nan=False,
        description="Share of the training windows, relative to the other sources.",
    )
    epochs: float | None = Field(
        None,
        gt=0,
        le=LARGEST_WEIGHT,
        allow_inf_nan=False,
        description="Number of times that its tokens are seen, relative to other sources; instead of weights. 1 by default.",
    )


class MixtureDataSpec(DataSpec):
    """Corpora that training windows are drawn from in given shares.

    Each window comes from one source. Of every 4,096 windows a source has its share, rounded; their order is random, and a
    function of the seed. A source begins again when its windows are used up. The split is made in each source, and the
    validation loss of each is reported as `validation_loss/NAME`, besides that of all.

    Formula:
        share of a source = weight / sum of the weights, or epochs * tokens / sum of epochs * tokens
    """

    formula: ClassVar[str] = r"\text{share}_i = \frac{w_i}{\sum_j w_j}"

    name: Literal["mixture"] = "mixture"
    sources: tuple[MixtureSource, ...] = Field(min_length=1, description="The corpora, each with a weight or epochs.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {
            "sources": [
                {"name": "prose", "data": {"name": "text"}, "weight": 3},
                {"name": "lines", "data": {"name": "jsonl"}, "weight": 1},
            ]
        },
        {
            "sources": [
                {"name": "prose", "data": {"name": "text"}},
                {"name": "help", "data": {"name": "builtin"}, "epochs": 2},
            ]
        },
    )

    @model_validator(mode="after")
    def _sources_fit(self) -> MixtureDataSpec:
        names = [source.name for source in self.sources]
        weighted = [source.weight is not None for source in self.sources]
        for index, source in enumerate(self.sources):
            if source.name in names[:index]:
                fail("two sources have this name; choose another", ("sources", index, "name"), source.name)
            if source.weight is not None and source.epochs is not None:
                fail("a source has either a weight or epochs; remove one", ("sources", index, "epochs"), source.epochs)
            if weighted[index] != weighted[0]:
                fail("all sources have weights, or none has", ("sources", index, "weight"), source.weight)
            if source.data.name == self.name:
                fail("a mixture cannot be a source; list its sources instead", ("sources", index, "data"), source.data)
            for field in _COMMON:
                value = getattr(source.data, field)
                if value != DataSpec.model_fields[field].default:
                    fail("set it for the mixture instead, whose value applies", ("sources", index, "data", field), value)
        return self

    def parts(self) -> Sequence[tuple[str, DataSpec]]:
        common = {field: getattr(self, field) for field in _COMMON}
        return [(source.name, source.data.replace(**common)) for source in self.sources]

    def part_shares(self, tokens: Sequence[int]) -> Sequence[float]:
        sizes = [
            n * (source.epochs or 1.0) if source.weight is None else source.weight
            for source, n in zip(self.sources, tokens, strict=True)
        ]
        return [size / sum(sizes) for size in sizes]

    def documents(self, base: Path) -> Iterator[Document]:
        for source in self.sources:
            yield from source.data.documents(base)

    def fingerprint(self, base: Path) -> str:
        facts = [source.data.fingerprint(base) for source in self.sources]
        return hashlib.blake2b(repr(("mixture", facts)).encode(), digest_size=16).hexdigest()
