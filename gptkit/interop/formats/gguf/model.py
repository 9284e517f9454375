"""The model in a GGUF file, in the terms of its family."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.core.suggestions import did_you_mean
from gptkit.interop.checking import expected_tensors, require_names, require_shape, tied_names
from gptkit.interop.conversion import Move, families, pair, pair_by, read_model
from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.architectures import built_in
from gptkit.interop.formats.gguf.container import AGAIN, GgufFile
from gptkit.interop.formats.gguf.frequencies import FREQUENCIES, read_rope_factors
from gptkit.interop.formats.gguf.vocabulary import read_vocabulary
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec
from gptkit.kinds.format import ExternalModel, ExternalTokenizer, TensorEntry
from gptkit.model.gpt import GPT

__all__ = ["GgufModel", "GgufTensors", "architectures", "find_architecture", "read_config"]

_INERT: Mapping[str, tuple[Any, ...]] = {"attention.causal": (True,), "rope.dimension_sections": (None,)}
_EXTRA_LAYERS = "nextn_predict_layers"
"""Key of the number of layers for multi-token prediction, which follow the last one and are not imported."""

Declared = tuple[Architecture, FamilySpec]


class GgufModel(ExternalModel):
    """The model of a file; tensors are read one by one, quantized ones as float32.

    Raises:
        ExternalModelError: the file is damaged, or no family declares its architecture.
    """

    def __init__(self, path: Path, registry: Registry | None = None) -> None:
        self.file = GgufFile(path)
        metadata, tensors = self.file.metadata, self.file.tensors
        self.location = self.config_location = str(path)
        self._registry = registry
        self._architecture, self._family = find_architecture(metadata, str(path), registry)
        self.family = self._family.component_name()
        if metadata.get("split.count", 1) != 1:
            hint = "Join the parts with llama-gguf-split --merge."
            raise ExternalModelError(f"{path} is one of several parts", hint=hint)
        if "token_embd.weight" not in tensors or len(tensors["token_embd.weight"].shape) != 2:
            raise ExternalModelError(f"{path} has no embedding of tokens (token_embd.weight)", hint=AGAIN)
        rows = tensors["token_embd.weight"].shape[0]
        scaled = self._architecture.frequencies and FREQUENCIES in tensors
        factors = self.file.get(FREQUENCIES) if scaled else None
        self.config = read_config(self._architecture, metadata, tensors, rows, str(path), factors)

    def tensors(self) -> GgufTensors:
        spec = read_model(self._family, self.config, self.config_location, self._registry)
        try:
            model = GPT(spec, device="meta")
        except (RuntimeError, OverflowError) as error:
            raise ExternalModelError(f"{self.location} describes a model that cannot be built: {error}") from None
        return GgufTensors(self.file, self._architecture, self._family, model)

    def tokenizer(self) -> ExternalTokenizer:
        return read_vocabulary(self.file.metadata, self.location)


class GgufTensors:
    """The tensors of a file under the names of the family, in its layout; each is read and converted on request.

    Args:
        file: the file.
        architecture: the architecture, whose rules map native tensors to those of the file.
        family: the family, whose rules map them to the external ones.
        model: the native model on the meta device.

    Raises:
        ExternalModelError: tensors are missing, unexpected or of another shape; names them.
    """

    def __init__(self, file: GgufFile, architecture: Architecture, family: FamilySpec, model: GPT) -> None:
        self._file = file
        rules = architecture.rules(model.spec)
        moves = pair_by(rules, model, f"GGUF's architecture {architecture.name!r}")
        self._check(architecture, moves, [*tied_names(rules, model), *_extra_layers(architecture, file, model)])
        self._stored = {move.native: move for move in moves}
        self._external: dict[str, tuple[Move, int]] = {}
        self.entries: dict[str, TensorEntry] = {}
        for move in pair(family, model):
            stored = self._stored[move.native].external
            dtype = reduce(torch.promote_types, (file.tensors[name].dtype for name in stored))
            for index, (name, part) in enumerate(zip(move.external, move.split(move.like), strict=True)):
                self._external[name] = (move, index)
                self.entries[name] = TensorEntry(tuple(part.shape), dtype)
        # The parts of the last native tensor, most of which are read one after the other.
        self._last: tuple[str, list[Tensor]] = ("", [])

    def get(self, name: str) -> Tensor:
        """Return one tensor, as the family stores it."""
        move, index = self._external[name]
        if self._last[0] != move.native:
            stored, dtype = self._stored[move.native], self.entries[name].dtype
            native = stored.join([self._file.get(each).to(dtype) for each in stored.external])
            self._last = (move.native, move.split(native))
        return self._last[1][index]

    def _check(self, architecture: Architecture, moves: Sequence[Move], ignored: Sequence[str]) -> None:
        tensors, place = self._file.tensors, str(self._file.path)
        expected = expected_tensors(moves)
        own = [re.escape(FREQUENCIES)] if architecture.frequencies else []
        require_names(expected, tensors, [*ignored, *own], place)
        for name, part in expected.items():
            require_shape(name, TensorEntry(tensors[name].shape, tensors[name].dtype), tuple(part.shape), place)


def _extra_layers(architecture: Architecture, file: GgufFile, model: GPT) -> list[str]:
    """Return patterns of the tensors of layers for multi-token prediction."""
    n_extra = file.metadata.get(f"{architecture.name}.{_EXTRA_LAYERS}", 0)
    return [rf"blk\.{model.spec.n_layers + index}\..*" for index in range(n_extra if isinstance(n_extra, int) else 0)]


def architectures(registry: Registry | None = None) -> dict[str, list[Declared]]:
    """Return the architectures with their families, by name; of several families, those of a plugin come first."""
    known = families(registry)
    by_type = {family.model_type: family for family in known.values()}
    declared: dict[str, list[Declared]] = {}
    for family in sorted(known.values(), key=lambda each: (each.rank, each.component_name())):
        architecture = family.gguf()
        if architecture is not None and architecture.model_type == family.model_type:
            declared.setdefault(architecture.name, []).append((architecture, family))
    for architecture in built_in():
        if architecture.model_type in by_type:
            declared.setdefault(architecture.name, []).append((architecture, by_type[architecture.model_type]))
    return declared


def find_architecture(metadata: Mapping[str, Any], location: str, registry: Registry | None = None) -> Declared:
    """Return the architecture that a file's metadata names, and its family.

    Raises:
        ExternalModelError: no family declares it; names those that are declared.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise ExternalModelError(f"{location} has no general.architecture", hint="Give the file of a model.")
    known = architectures(registry)
    hint = "Import the model from its safetensors instead."
    if name not in known:
        what = did_you_mean(name, sorted(known), label="those that are read are")
        raise ExternalModelError(f"{location} has the architecture {name!r}; {what}", hint=hint)
    result = next((each for each in known[name] if each[0].accepts(metadata)), None)
    if result is None:
        raise ExternalModelError(f"{location}: no installed family is that of its variant of {name!r}", hint=hint)
    return result


def read_config(
    architecture: Architecture,
    metadata: Mapping[str, Any],
    tensors: Any,
    rows: int,
    location: str,
    factors: Tensor | None = None,
) -> dict[str, Any]:
    """Return the family's configuration for a file's metadata.

    Args:
        metadata: the file's.
        tensors: the names of its tensors.
        rows: the number of rows of the embedding.
        location: the file, for messages.
        factors: the divisors of the rotary frequencies, where the file has them.

    Raises:
        ExternalModelError: a key is missing or unknown, or requires a feature that gptkit does not support.
    """
    prefix = f"{metadata['general.architecture']}."
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    own = _without_extra_layers(own, location)
    keys = ExternalConfig(own, location, ())
    if keys.integer("vocab_size", rows) != rows:
        keys.refuse("vocab_size", f"its embedding has {rows} rows")
    config = architecture.read(keys, tensors)
    for key, allowed in _INERT.items():
        if not keys.was_read(key):
            keys.only(key, *allowed, why="gptkit does not read that from GGUF")
    keys.close()
    if factors is not None:
        config["rope_scaling"] = read_rope_factors(config, factors, location)
    return {"model_type": architecture.model_type, "vocab_size": rows, **config}


def _without_extra_layers(own: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Return the keys with the number of layers that compute the next token."""
    result = dict(own)
    n_extra = result.pop(_EXTRA_LAYERS, 0)
    if not isinstance(n_extra, int) or n_extra == 0:
        return result
    n_layers = result.get("block_count")
    if not isinstance(n_layers, int) or not 0 < n_extra < n_layers:
        raise ExternalModelError(f"{location}: {_EXTRA_LAYERS} is {n_extra!r}, and block_count {n_layers!r}")
    return {**result, "block_count": n_layers - n_extra}
