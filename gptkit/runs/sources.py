"""Sources of initial weights: a run, a file of a run's weights, or an external model in any installed format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from gptkit.checkpoint.entries import MODEL
from gptkit.checkpoint.safetensors import named_tensors
from gptkit.checkpoint.store import CheckpointStore, read_state
from gptkit.core.errors import CheckpointError
from gptkit.core.registry import Registry
from gptkit.interop.tensor_files import TensorFiles
from gptkit.kinds.format import Tensors
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.model.spec import PARTS
from gptkit.runs.directory import RunDirectory
from gptkit.runs.external import External, read_external
from gptkit.runs.resizing import require_rows
from gptkit.runs.spec import ExperimentSpec
from gptkit.runs.tokenizers import load_tokenizer

__all__ = ["Source", "open_source", "tied_names"]


class Source(ABC):
    """Source of initial weights of a new run.

    Attributes:
        path: the path of the weights.
        spec: the experiment of the weights; None for a file of weights only.
    """

    path: Path
    spec: ExperimentSpec | None = None

    @abstractmethod
    def tensors(self) -> Tensors:
        """Return the weights under their native names.

        Raises:
            GptkitError: a file is missing or damaged.
        """

    def tokenizer(self) -> Tokenizer | None:
        """Return the tokenizer of the weights; None for a file of weights only."""
        return None

    def notes(self) -> dict[str, Any]:
        """Return the provenance entries of the external model of the weights."""
        return {}

    def aliases(self) -> Mapping[str, str]:
        """Return the names of tensors that are tied to a stored one, each with the name of that one."""
        if self.spec is None:
            return {}
        return tied_names(GPT(self.spec.model, self.spec.model.vocab_size or 1, device="meta"))

    def sections(self) -> dict[str, Any]:
        """Return the model, the tokenizer and the sampler as in a spec file; empty for a file of weights.

        Entries of `layers` hold only differences from the model's parts, so that changes of these parts apply to them.
        """
        if self.spec is None:
            return {}
        sections = {name: self.spec.plain()[name] for name in ("model", "tokenizer", "sampler")}
        model = sections["model"]
        if model["layers"] is not None:
            model["layers"] = [
                {key: value for key, value in entry.items() if key not in PARTS or value != model[key]}
                for entry in model["layers"]
            ]
        return sections


def tied_names(model: nn.Module) -> dict[str, str]:
    """Return the names of tied tensors of a model if they were not tied, each with the name of the stored tensor."""
    own = named_tensors(model)
    first = {id(tensor): name for name, tensor in reversed(own.items())}
    tied = {name: first[id(tensor)] for name, tensor in own.items() if first[id(tensor)] != name}
    if isinstance(model, GPT):
        # A tied head refers to the embedding's table and has no tensor of its own.
        tied |= {f"head.{name}": f"embedding.{owner}" for name, owner in model.head.tied_weights.items()}
    return tied


class _Run(Source):
    def __init__(self, path: Path, registry: Registry | None) -> None:
        self.path, self._run = path, RunDirectory(path)
        self.spec = self._run.read_spec(registry)

    def tensors(self) -> Tensors:
        checkpoint = CheckpointStore(self._run.checkpoints).latest()
        if checkpoint is None:
            message = f"training.init_from: {self.path} has no checkpoint yet"
            raise CheckpointError(message, hint="Use a trained run.")
        read_state(checkpoint, verify={MODEL})
        return TensorFiles(checkpoint / MODEL)

    def tokenizer(self) -> Tokenizer:
        assert self.spec is not None
        return load_tokenizer(self.spec, self._run)

    def notes(self) -> dict[str, Any]:
        imported = self._run.read_provenance().get("imported")
        return {"imported": imported} if imported else {}


class _File(Source):
    def __init__(self, path: Path) -> None:
        self.path = path

    def tensors(self) -> Tensors:
        return TensorFiles(self.path)


class _External(Source):
    def __init__(self, external: External) -> None:
        self.path, self._external = external.path, external
        self.spec = external.spec

    def tensors(self) -> Tensors:
        return self._external.tensors()

    def tokenizer(self) -> Tokenizer:
        tokenizer = self._external.tokenizer()
        require_rows(str(self.path), tokenizer.vocab_size, self._external.shell.vocab_size)
        return tokenizer

    def notes(self) -> dict[str, Any]:
        return {"imported": self._external.notes()}


def open_source(path: Path, registry: Registry | None = None) -> Source:
    """Return the source at a path; its weights are read later.

    Args:
        path: a run directory; a safetensors file of a run's weights, or the directory of a checkpoint; or an external
            model: a directory as transformers saves it, or its safetensors file, a GGUF file, or a plugin's format.
        registry: where formats, families and components are looked up; by default what is installed.

    Raises:
        CheckpointError: the path contains no weights.
        ExternalModelError: it is an external model that cannot be read.
    """
    if RunDirectory(path).holds_run:
        return _Run(path, registry)
    if path.suffix == ".safetensors" and path.is_file():
        # Beside a config.json it is the file of an external model, whose tensors have other names.
        if not (path.parent / "config.json").is_file():
            return _File(path)
        path = path.parent
    elif (path / MODEL).is_file() and not (path / "config.json").is_file():
        return _File(path / MODEL)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        what = "does not exist" if not path.exists() else "is empty"
        raise CheckpointError(
            f"training.init_from: {path} contains no weights: it {what}",
            hint="Set a run, a model directory of transformers, a GGUF file, or a safetensors file.",
        )
    return _External(read_external(path, registry=registry))
