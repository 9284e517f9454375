"""The GGUF architecture of a family: the names of its keys and tensors in GGUF files.

Only the direction from a file's keys to a family's configuration is binding: a model is exported only where the keys that
are written read back as the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Architecture", "Part", "always"]


class Part(Protocol):
    """Keys of a file and the keys of a family's configuration that correspond to them."""

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        """Return the configuration's keys for those of a file (without the architecture's prefix) and its tensors' names.

        Raises:
            ExternalModelError: a value requires a feature that gptkit does not support.
        """

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        """Return the file's keys for a configuration.

        Raises:
            ExternalModelError: llama.cpp computes such a model differently; gives the reason.
        """


def always(metadata: Mapping[str, Any]) -> bool:
    """Return True: the family reads every file of the architecture."""
    return True


@dataclass(frozen=True)
class Architecture:
    """An architecture of llama.cpp: built in (module `architectures`), or declared by a plugin's family (`FamilySpec.gguf`).

    Attributes:
        name: the value of `general.architecture`.
        model_type: that of the family; a family that inherits the declaration and has another `model_type` has none.
        parts: the keys.
        rules: function that returns the rules of native tensors and those of the file, for a model's spec.
        accepts: whether the family is that of a file, for the file's metadata; for architectures of several families.
        frequencies: whether llama.cpp reads divisors of the rotary frequencies (Llama 3's scaling) in this architecture.
        remark: function that returns what llama.cpp computes differently for a configuration, as a sentence for the user;
            empty for nothing.
    """

    name: str
    model_type: str
    parts: Sequence[Part]
    rules: Callable[[Any], Sequence[Rule]]
    accepts: Callable[[Mapping[str, Any]], bool] = always
    frequencies: bool = False
    remark: Callable[[Mapping[str, Any]], str] = lambda config: ""

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        """Return the family's configuration for the keys of a file; later parts override earlier ones."""
        config: dict[str, Any] = {}
        for part in self.parts:
            config |= part.read(keys, tensors)
        return config

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        """Return the keys for a family's configuration."""
        keys: dict[str, Typed] = {}
        for part in self.parts:
            keys |= part.write(config)
        return keys
