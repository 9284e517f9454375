"""Kind `format`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from gptkit.core.component import Component
from gptkit.core.errors import ExternalModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gptkit.core.registry import Registry
    from gptkit.kinds.tokenizer import Tokenizer

__all__ = [
    "Detection",
    "ExternalModel",
    "ExternalTokenizer",
    "FormatSpec",
    "NativeModel",
    "Note",
    "Progress",
    "TensorEntry",
    "Tensors",
]

Progress = Callable[[int, int], None]
"""Progress callback: receives the number of bytes written and the total number of bytes."""


class Note(str):
    """A sentence of an export's report, which is not a warning."""

    __slots__ = ()


@dataclass(frozen=True)
class TensorEntry:
    """Shape and dtype of a stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


class Tensors(Protocol):
    """Stored tensors by name; each is read on request."""

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Shape and dtype of every tensor."""

    def get(self, name: str) -> Tensor:
        """Return one tensor."""


@dataclass(frozen=True)
class Detection:
    """Whether a format recognizes a path.

    Attributes:
        score: confidence from 0 (no) to 1 (certain); the format with the highest score reads the path.
        reason: the reason, as a clause that follows the path: ``has no config.json``.
    """

    score: float
    reason: str


@dataclass(frozen=True)
class ExternalTokenizer:
    """The tokenizer of an external model.

    Attributes:
        spec: its spec as plain data: ``{"name": "hugging-face", "path": "…"}``.
        files: contents of the files in the spec's `path`, for a tokenizer that is not stored in separate files; the importer
            writes them and sets `path`.
    """

    spec: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


class ExternalModel(ABC):
    """External model as a format stores it, with its family's configuration keys and tensor names.

    Attributes:
        location: the path, for messages.
        config: the configuration, with the keys of the family's config.json.
        config_location: the configuration's location, for messages.
        family: the name of the family; None for the family of the configuration's `model_type`.
        directory: a directory from which transformers can load the model, if there is one.
    """

    location: str
    config: Mapping[str, Any]
    config_location: str
    family: str | None = None
    directory: Path | None = None

    @abstractmethod
    def tensors(self) -> Tensors:
        """Return the tensors under the family's names, in its layout.

        Raises:
            ExternalModelError: a file is missing or damaged.
        """

    @abstractmethod
    def tokenizer(self) -> ExternalTokenizer:
        """Return the tokenizer.

        Raises:
            ExternalModelError: the model has no tokenizer, or one that cannot be read; includes the remedy.
        """

    def token_settings(self) -> Mapping[str, Any]:
        """Return settings of the tokenizer that gptkit does not use: start token that precedes no text, padding, lengths.

        The keys are those of tokenizer_config.json, and ``bos_token_id``, ``eos_token_id`` and ``pad_token_id`` of
        config.json.
        """
        return {}

    def generation(self) -> Mapping[str, Any]:
        """Return the default options of generation, with the keys of generation_config.json."""
        return {}


@dataclass(frozen=True)
class NativeModel:
    """Model of a run, the input of `FormatSpec.write`.

    Attributes:
        name: the experiment's name.
        spec: the model's spec (`gptkit.model.spec.ModelSpec`), with its vocabulary's size.
        tensors: the weights, under their native names.
        tokenizer: the run's tokenizer.
        family: the name of the family of an imported model; None for others.
        generation: defaults of generation of an imported model.
        token_settings: settings of the tokenizer of an imported model (`ExternalModel.token_settings`).
        checksum: checksum of the file that holds the weights, which identifies them; None if it is unknown.
    """

    name: str
    spec: Any
    tensors: Tensors
    tokenizer: Tokenizer
    family: str | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    token_settings: Mapping[str, Any] = field(default_factory=dict)
    checksum: str | None = None

    @property
    def start_id(self) -> int | None:
        """Id of the start token, also of one that no text begins with (``add_bos_token`` false); None without one."""
        ids = (self.token_settings.get("bos_token_id"), self.tokenizer.start_id, self.generation.get("bos_token_id"))
        return next((each for each in ids if isinstance(each, int)), None)


class FormatSpec(Component):
    """File format of external models, which `gptkit import`, `export` and `drift` select by its name.

    Fields are export options, which `gptkit export --set KEY=VALUE` sets. The conversion between external and native
    tensors is done by the model's family and is the same for all formats (`gptkit.interop`).

    Class variables:
        suffixes: suffixes of the files of this format; none for a format that is a directory. `export` infers the format
            from them.
        is_program: whether a file is a program, which `write` compares with the model, and `read` refuses.
        commands: commands that use a format, for the documentation; formats do not occur in spec files.
    """

    kind: ClassVar[str] = "format"
    suffixes: ClassVar[tuple[str, ...]] = ()
    is_program: ClassVar[bool] = False
    commands: ClassVar[tuple[str, ...]] = ("gptkit import PATH RUN --from {name}", "gptkit export RUN PATH --to {name}")

    @property
    def can_write(self) -> bool:
        """Whether the format implements `write`."""
        return type(self).write is not FormatSpec.write

    @abstractmethod
    def detect(self, path: Path) -> Detection:
        """Return whether the format recognizes an existing file or directory; reads at most the start of a file."""

    @abstractmethod
    def read(self, path: Path, registry: Registry | None = None) -> ExternalModel:
        """Return the model at a path; tensors are read later, one at a time.

        Raises:
            ExternalModelError: a file is missing or damaged, or the model's family is not installed.
        """

    def write(
        self,
        model: NativeModel,
        path: Path,
        *,
        family: str | None = None,
        progress: Progress | None = None,
        registry: Registry | None = None,
    ) -> Sequence[str]:
        """Write a model. The caller moves the result to its final path when it is complete.

        Args:
            model: the model.
            path: the file or directory to write, which does not exist.
            family: the name of the family; by default one that can express the model.
            progress: the progress callback.
            registry: the registry of families and components; by default the installed ones.

        Returns:
            Remarks for the user: a `Note` reports what was written, any other sentence is a warning, such as what the
            format cannot store.

        Raises:
            ExternalModelError: the format cannot express the model; gives the reason.
        """
        raise ExternalModelError(f"format {self.component_name()!r} cannot be written")
