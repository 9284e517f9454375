"""Formats with one thing wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mutants.mutant import Mutant
from torch import Tensor

from gptkit.interop.formats.hugging_face.format import HuggingFaceFormat
from gptkit.kinds.format import Detection, NativeModel, Tensors


class Negated:
    """Tensors with the other sign."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self.entries = tensors.entries

    def get(self, name: str) -> Tensor:
        return -self._tensors.get(name)


class WritesTheOtherSign(Mutant, HuggingFaceFormat):
    """Writes every weight negated."""

    name: Literal["writes-the-other-sign"] = "writes-the-other-sign"  # type: ignore[assignment]
    caught_by = "written-model-reads-back"

    def write(self, model: NativeModel, path: Path, **options: Any) -> Sequence[str]:
        return super().write(dataclasses.replace(model, tensors=Negated(model.tensors)), path, **options)


class DetectsNothing(Mutant, HuggingFaceFormat):
    """Does not recognise what it writes."""

    name: Literal["detects-nothing"] = "detects-nothing"  # type: ignore[assignment]
    caught_by = "written-model-reads-back"

    def detect(self, path: Path) -> Detection:
        return Detection(0, "is of another format")
