"""Formats of external models: the files of an export, and what the format can do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from gptkit.core.component import Component
from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.core.registry import Registry
from gptkit.docs.figures.chips import Features
from gptkit.docs.figures.figure import Figure, Panel
from gptkit.docs.figures.files import Files, written_files
from gptkit.docs.figures.subjects import first
from gptkit.interop.conversion import families, read_model
from gptkit.kinds.format import FormatSpec, NativeModel, TensorEntry
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.model.gpt import GPT
from gptkit.model.tree import count
from gptkit.testing.configurations import SMALL, base_config

__all__ = ["draw"]

_VOCAB = 257
_LINES = 3


@dataclass(frozen=True)
class _Weights:
    """The tensors of a model in memory."""

    tensors: Mapping[str, Tensor]

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        return {name: TensorEntry(tuple(tensor.shape), tensor.dtype) for name, tensor in self.tensors.items()}

    def get(self, name: str) -> Tensor:
        return self.tensors[name]


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the files of an export of a small model, and the abilities of the format."""
    spec = cast("FormatSpec", first(cls, registry).spec)
    abilities = [("import", not spec.is_program), ("export", spec.can_write), ("a single file", bool(spec.suffixes))]
    features = Features("what it can do", abilities)
    panels: list[Panel] = []
    caption = "What the format declares."
    if spec.can_write:
        byte = registry.component("tokenizer", "byte").model_validate({"name": "byte"}, context={"registry": registry})
        with tempfile.TemporaryDirectory(prefix="gptkit-docs-") as scratch:
            family, model, path = _written(spec, cast("TokenizerSpec", byte).fit(iter(())), Path(scratch), registry)
            files = written_files(path, _LINES)
        total = sum(file.size for file in files)
        described = f"{len(files)} files of {total:,} bytes: {', '.join(file.name for file in files)}."
        panels.append(Files("files of an export", files, described))
        caption = f"An export of a model of the family {family} with {count(model):,} parameters in fp32, and its tokenizer."
    return Figure([*panels, features], caption)


def _written(spec: FormatSpec, tokenizer: Tokenizer, directory: Path, registry: Registry) -> tuple[str, GPT, Path]:
    """Write the first tiny model that the format can express.

    Raises:
        GptkitError: it can express none.
    """
    for number, (family, model) in enumerate(_models(registry)):
        path = directory / ("model" + (str(number) if number else "") + "".join(spec.suffixes[:1]))
        weights = _Weights({name: tensor.detach() for name, tensor in model.named_parameters()})
        try:
            spec.write(NativeModel("example", model.spec, weights, tokenizer), path, registry=registry)
        except ExternalModelError:
            continue
        return family, model, path
    raise GptkitError(f"format {spec.name!r} can express no tiny model of an installed family")


def _models(registry: Registry) -> Iterator[tuple[str, GPT]]:
    """Yield tiny models of the families, those of a llama and a gpt2 first."""
    known = families(registry)
    ahead = [name for name in ("llama", "gpt2") if name in known]
    for name in (*ahead, *sorted(known.keys() - ahead)):
        try:
            config = base_config(known[name], {**SMALL, "vocab_size": _VOCAB}, known[name].tiny[0], registry)
            yield name, GPT(read_model(known[name], config, registry=registry), _VOCAB, seed=0)
        except GptkitError:
            continue
