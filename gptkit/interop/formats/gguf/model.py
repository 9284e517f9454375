"""The model in a GGUF file, in the terms of its family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.core.suggestions import did_you_mean
from gptkit.interop.conversion import families
from gptkit.interop.formats.gguf.architecture import FREQUENCIES, Architecture, read_rope_factors, unpermute
from gptkit.interop.formats.gguf.container import AGAIN, GgufFile
from gptkit.interop.formats.gguf.vocabulary import read_vocabulary
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec
from gptkit.kinds.format import ExternalModel, ExternalTokenizer, TensorEntry

__all__ = ["GgufModel", "architectures", "read_config"]

_INERT: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.dimension_sections": (None,),
}


class GgufModel(ExternalModel):
    """The model of a file; tensors are read one by one, quantized ones as float32.

    Raises:
        ExternalModelError: the file is damaged, or no family declares its architecture.
    """

    def __init__(self, path: Path, registry: Registry | None = None) -> None:
        self.file = GgufFile(path)
        metadata, tensors = self.file.metadata, self.file.tensors
        self.location = self.config_location = str(path)
        self._architecture, family = find_architecture(metadata.get("general.architecture"), str(path), registry)
        self.family = family.component_name()
        if metadata.get("split.count", 1) != 1:
            hint = "Join the parts with llama-gguf-split --merge."
            raise ExternalModelError(f"{path} is one of several parts", hint=hint)
        if "token_embd.weight" not in tensors or len(tensors["token_embd.weight"].shape) != 2:
            raise ExternalModelError(f"{path} has no embedding of tokens (token_embd.weight)", hint=AGAIN)
        rows = tensors["token_embd.weight"].shape[0]
        factors = self.file.get(FREQUENCIES) if FREQUENCIES in tensors else None
        self.config = read_config(self._architecture, metadata, tensors, rows, str(path), factors)
        self._names: dict[str, str] = {}
        self.entries: dict[str, TensorEntry] = {}
        for stored, tensor in tensors.items():
            if stored == FREQUENCIES:
                continue
            # A tensor without a name in the family is reported as unexpected.
            name = self._architecture.renamed(stored, back=True) or stored
            self._names[name] = stored
            shape = tensor.shape[::-1] if self._transposed(stored, len(tensor.shape)) else tensor.shape
            self.entries[name] = TensorEntry(shape, tensor.dtype)

    def tensors(self) -> GgufModel:
        return self

    def get(self, name: str) -> Tensor:
        """Return one tensor, as the family stores it."""
        stored = self._names[name]
        tensor = self.file.get(stored)
        heads = self._architecture.rearranged(stored)
        if heads is not None:
            tensor = unpermute(tensor, self.config[heads])
        return tensor.mT if self._transposed(stored, tensor.dim()) else tensor

    def tokenizer(self) -> ExternalTokenizer:
        return read_vocabulary(self.file.metadata, self.location)

    def _transposed(self, stored: str, n_dimensions: int) -> bool:
        return n_dimensions == 2 and stored.split(".")[-2] in self._architecture.transposed if "." in stored else False


def architectures(registry: Registry | None = None) -> dict[str, tuple[Architecture, FamilySpec]]:
    """Return the architectures that families declare, by name; where several declare one, that of the lowest rank."""
    declared: dict[str, tuple[Architecture, FamilySpec]] = {}
    for family in sorted(families(registry).values(), key=lambda each: (each.rank, each.component_name())):
        architecture = family.gguf()
        if architecture is not None and architecture.model_type == family.model_type:
            declared.setdefault(architecture.name, (architecture, family))
    return declared


def find_architecture(name: object, location: str, registry: Registry | None = None) -> tuple[Architecture, FamilySpec]:
    """Return the architecture that a file names, and its family.

    Raises:
        ExternalModelError: no family declares it; names those that are declared.
    """
    if not isinstance(name, str):
        raise ExternalModelError(f"{location} has no general.architecture", hint="Give the file of a model.")
    known = architectures(registry)
    if name not in known:
        what = did_you_mean(name, sorted(known), label="those that are read are")
        raise ExternalModelError(
            f"{location} has the architecture {name!r}; {what}", hint="Import the model from its safetensors instead."
        )
    return known[name]


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
    keys = ExternalConfig(own, location, ())
    for key, allowed in _INERT.items():
        keys.only(key, *allowed, why="gptkit does not read that from GGUF")
    if keys.integer("vocab_size", rows) != rows:
        keys.refuse("vocab_size", f"its embedding has {rows} rows")
    config = architecture.read(keys, tensors)
    keys.close()
    if factors is not None:
        config["rope_scaling"] = read_rope_factors(config, factors, location)
    return {"model_type": architecture.model_type, "vocab_size": rows, **config}
