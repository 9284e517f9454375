"""Formats with one error each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gptkit.core.registry import Registry
from gptkit.interop.formats.hugging_face.format import HuggingFaceFormat
from gptkit.kinds.format import Detection, ExternalModel, NativeModel, Tensors
from tests.mutants.mutant import Mutant


class Negated:
    """Tensors with the opposite sign."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self.entries = tensors.entries

    def get(self, name: str) -> Tensor:
        return -self._tensors.get(name)


class WritesTheOtherSign(Mutant, HuggingFaceFormat):
    """Write every weight negated."""

    name: Literal["writes-the-other-sign"] = "writes-the-other-sign"  # type: ignore[assignment]
    caught_by = "written-model-reads-back"
    also = ("stores-half-precision",)

    def write(self, model: NativeModel, path: Path, **options: Any) -> Sequence[str]:
        return super().write(dataclasses.replace(model, tensors=Negated(model.tensors)), path, **options)


class DetectsNothing(Mutant, HuggingFaceFormat):
    """Do not recognize written files."""

    name: Literal["detects-nothing"] = "detects-nothing"  # type: ignore[assignment]
    caught_by = "written-model-reads-back"

    def detect(self, path: Path) -> Detection:
        return Detection(0, "is of another format")


class RoundsToBytes(Mutant, HuggingFaceFormat):
    """Round values in bfloat16."""

    name: Literal["rounds-to-bytes"] = "rounds-to-bytes"  # type: ignore[assignment]
    caught_by = "stores-half-precision"

    class Rounded:
        """Tensors, rounded if they are in bfloat16."""

        def __init__(self, tensors: Tensors) -> None:
            self._tensors = tensors
            self.entries = tensors.entries

        def get(self, name: str) -> Tensor:
            tensor = self._tensors.get(name)
            return tensor.mul(16).round().div(16) if tensor.dtype == torch.bfloat16 else tensor

    def write(self, model: NativeModel, path: Path, **options: Any) -> Sequence[str]:
        return super().write(dataclasses.replace(model, tensors=self.Rounded(model.tensors)), path, **options)


class LosesTheTokenizer(Mutant, HuggingFaceFormat):
    """Omit the tokenizer's file without a remark."""

    name: Literal["loses-the-tokenizer"] = "loses-the-tokenizer"  # type: ignore[assignment]
    caught_by = "keeps-the-tokenizer"

    def write(self, model: NativeModel, path: Path, **options: Any) -> Sequence[str]:
        remarks = super().write(model, path, **options)
        (path / "tokenizer.json").unlink()
        return remarks


class DetectsEverything(Mutant, HuggingFaceFormat):
    """Detect every path."""

    name: Literal["detects-everything"] = "detects-everything"  # type: ignore[assignment]
    caught_by = "detects-only-its-own"

    def detect(self, path: Path) -> Detection:
        return Detection(1, "may be one of mine")


class TrustsItsFiles(Mutant, HuggingFaceFormat):
    """Read the configuration without handling damaged files."""

    name: Literal["trusts-its-files"] = "trusts-its-files"  # type: ignore[assignment]
    caught_by = "refuses-damage"

    def read(self, path: Path, registry: Registry | None = None) -> ExternalModel:
        json.loads((path / "config.json").read_text(encoding="utf-8"))
        return super().read(path, registry)


class OneFamilyOnly(Mutant, HuggingFaceFormat):
    """Ignore the requested family when writing."""

    name: Literal["one-family-only"] = "one-family-only"  # type: ignore[assignment]
    caught_by = "writes-the-chosen-family"

    def write(self, model: NativeModel, path: Path, **options: Any) -> Sequence[str]:
        return super().write(model, path, **{**options, "family": None})


class WritesInSilence(Mutant, HuggingFaceFormat):
    """Do not report progress."""

    name: Literal["writes-in-silence"] = "writes-in-silence"  # type: ignore[assignment]
    caught_by = "reports-progress"

    def write(self, model: NativeModel, path: Path, **options: Any) -> Sequence[str]:
        return super().write(model, path, **{**options, "progress": None})
