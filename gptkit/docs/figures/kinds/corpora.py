"""Corpora: their documents on both sides of the split, and the data windows of a training step.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import tempfile
from itertools import groupby, pairwise
from pathlib import Path
from typing import cast

from torch import Tensor

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.data.files import TokenFile
from gptkit.data.mixing import MixedWindows
from gptkit.data.preparation import prepare
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.strips import Run, Strips
from gptkit.kinds.data import DataSpec
from gptkit.kinds.tokenizer import TokenizerSpec
from gptkit.testing import instances
from gptkit.testing.subject import Subject

__all__ = ["draw"]

B, T = 6, 256
_DOCUMENTS, _HELD_OUT = 24, 8
_PER_ROW, _ROWS = 16, 6


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the lengths of the documents, and the data windows of a step: documents in them, or sources of a mixture."""
    byte = registry.component("tokenizer", "byte").model_validate({"name": "byte"}, context={"registry": registry})
    tokenizer_spec = cast("TokenizerSpec", byte)
    tokenizer = tokenizer_spec.fit(iter(()))
    subject = _subject(cls, registry)
    with tempfile.TemporaryDirectory(prefix="gptkit-docs-") as scratch:
        spec = cast("DataSpec", subject.spec)
        if any(info.is_required() and name == "path" for name, info in cls.model_fields.items()):
            # A corpus of prepared tokens is given those of a text.
            text = cast("DataSpec", subject.other("data", "text"))
            directory = Path(scratch, "tokens")
            prepare(text, tokenizer, directory, subject.base, workers=0, store=tokenizer_spec)
            spec = cast("DataSpec", cls.model_validate({"name": cls.component_name(), "path": str(directory)}))
        prepared = prepare(spec, tokenizer, Path(scratch, "own"), subject.base, workers=0)
        masking = spec.replace(document_mask=True)
        windows = prepared.train_windows(masking, T)
        documents = _documents(prepared.train, prepared.validation)
        if isinstance(windows, MixedWindows):
            shown = _sources(windows, [name for name, _ in spec.parts()])
        else:
            batch = windows.batch(0, B, 0)
            assert batch.documents_BT is not None
            shown = _windows(batch.documents_BT)
    corpus = "the corpus" if _is_own(spec) else "a small corpus of the conformance kit"
    return Figure([shown, documents], f"Bytes of {corpus} as tokens: data windows of {T} tokens.")


def _subject(cls: type[Component], registry: Registry) -> Subject:
    specs = instances(cls, registry)
    plain = registry.component("data", "text").model_validate({"name": "text"}, context={"registry": registry})
    return Subject(specs[0] if specs else plain, registry)


def _is_own(spec: DataSpec) -> bool:
    """Return whether a corpus includes its texts."""
    return not {"path", "sources"} & set(type(spec).model_fields)


def _documents(train: TokenFile, validation: TokenFile) -> Plot:
    lengths = [_lengths(train)[:_DOCUMENTS], _lengths(validation)[:_HELD_OUT]]
    first = len(lengths[0])
    series = [Series([*enumerate(lengths[0])], "training", 1, "bars")]
    if lengths[1]:
        series.append(Series([*enumerate(lengths[1], start=first)], "validation", 2, "bars"))
    described = f"{len(train.starts)} documents for training, {len(validation.starts)} for validation."
    return Plot("lengths of documents", "document", "tokens", series, described)


def _lengths(file: TokenFile) -> list[int]:
    return [end - begin for begin, end in pairwise([*file.starts.tolist(), len(file.tokens)])]


def _windows(documents_BT: Tensor) -> Strips:
    rows = []
    for index, documents in enumerate(documents_BT.tolist()):
        runs, at = [], 0
        for document, some in groupby(documents):
            length = len(list(some))
            if document >= 0:  # else padding
                runs.append(Run(at, at + length, document % 4 + 1))
            at += length
        rows.append((f"window {index + 1}", runs))
    most = int(documents_BT.max()) + 1
    described = f"{len(rows)} data windows of {documents_BT.shape[1]} tokens with up to {most} documents in each."
    return Strips("documents in data windows", "token", rows, described)


def _sources(windows: MixedWindows, names: list[str]) -> Strips:
    drawn, _ = windows.draw(0, _PER_ROW * _ROWS, 0)
    rows = []
    for row in range(_ROWS):
        some = drawn[row * _PER_ROW : (row + 1) * _PER_ROW].tolist()
        rows.append((f"{row * _PER_ROW + 1}–", [Run(at, at + 1, source % 4 + 1) for at, source in enumerate(some)]))
    shares = ", ".join(f"{(drawn == number).mean():.0%} {name}" for number, name in enumerate(names))
    legend = {number % 4 + 1: name for number, name in enumerate(names[:4])}
    return Strips("sources of data windows", "data window of a row", rows, f"Of {len(drawn)} data windows {shares}.", legend)
