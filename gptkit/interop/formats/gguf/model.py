"""A GGUF file as its family sees it, and a model's metadata as llama.cpp does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.interop.conversion import families
from gptkit.interop.formats.gguf.architectures import (
    FREQUENCIES,
    Architecture,
    find_architecture,
    read_rope_factors,
    unpermute,
)
from gptkit.interop.formats.gguf.container import AGAIN, GgufFile
from gptkit.interop.formats.gguf.vocabulary import Vocabulary, read_vocabulary
from gptkit.interop.tensor_files import Entry
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec

__all__ = ["GgufModel", "read_config"]

_INERT: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.dimension_sections": (None,),
}


class GgufModel:
    """A file's model, with the names that its family knows; tensors are read one by one.

    Attributes:
        family: the family.
        config: the configuration, as the family's config.json would have it.
        entries: shape and dtype of each tensor; quantised ones are read as float32.

    Raises:
        ExternalModelError: the file is damaged, or of no architecture that is known.
    """

    def __init__(self, path: Path, registry: Registry | None = None) -> None:
        self.file = GgufFile(path)
        metadata, tensors = self.file.metadata, self.file.tensors
        name = metadata.get("general.architecture")
        self._architecture = find_architecture(name, str(path))
        self.family: FamilySpec = families(registry)[self._architecture.family]
        if metadata.get("split.count", 1) != 1:
            hint = "Join the parts with llama-gguf-split --merge."
            raise ExternalModelError(f"{path} is one of several parts", hint=hint)
        if "token_embd.weight" not in tensors or len(tensors["token_embd.weight"].shape) != 2:
            raise ExternalModelError(f"{path} has no embedding of tokens (token_embd.weight)", hint=AGAIN)
        rows = tensors["token_embd.weight"].shape[0]
        factors = self.file.get(FREQUENCIES) if FREQUENCIES in tensors else None
        self.config = read_config(self._architecture, metadata, tensors, rows, str(path), factors)
        self._names: dict[str, str] = {}
        self.entries: dict[str, Entry] = {}
        for there, tensor in tensors.items():
            if there == FREQUENCIES:
                continue
            # What has no name in the family is reported as left over.
            native = self._architecture.renamed(there, back=True) or there
            self._names[native] = there
            shape = tensor.shape[::-1] if self._transposed(there, len(tensor.shape)) else tensor.shape
            self.entries[native] = Entry(shape, tensor.dtype)

    def get(self, name: str) -> Tensor:
        """One tensor, as the family has it."""
        there = self._names[name]
        tensor = self.file.get(there)
        heads = self._architecture.rearranged(there)
        if heads is not None:
            tensor = unpermute(tensor, self.config[heads])
        return tensor.mT if self._transposed(there, tensor.dim()) else tensor

    def vocabulary(self) -> Vocabulary:
        """The file's tokenizer.

        Raises:
            ExternalModelError: it has none, or one that is not read.
        """
        return read_vocabulary(self.file.metadata, str(self.file.path))

    def _transposed(self, there: str, n_dimensions: int) -> bool:
        return n_dimensions == 2 and there.split(".")[-2] in self._architecture.transposed if "." in there else False


def read_config(
    architecture: Architecture,
    metadata: Mapping[str, Any],
    tensors: Any,
    rows: int,
    place: str,
    factors: Tensor | None = None,
) -> dict[str, Any]:
    """The family's configuration.

    Args:
        metadata: the file's.
        tensors: the names of its tensors.
        rows: of the embedding.
        place: for messages.
        factors: of the rotary positions' frequencies, where the file has some.

    Raises:
        ExternalModelError: a key is missing, not understood, or asks for what gptkit does not do.
    """
    prefix = f"{metadata['general.architecture']}."
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    keys = ExternalConfig(own, place, ())
    for key, allowed in _INERT.items():
        keys.only(key, *allowed, why="gptkit does not read that from GGUF")
    if keys.integer("vocab_size", rows) != rows:
        keys.refuse("vocab_size", f"its embedding has {rows} rows")
    config = architecture.read(keys, tensors)
    keys.close()
    if factors is not None:
        config["rope_scaling"] = read_rope_factors(config, factors, place)
    return {"model_type": architecture.family, "vocab_size": rows, **config}
