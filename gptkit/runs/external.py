"""External models as runs: spec, tokenizer, and weights under their native names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from gptkit.core.atomic import write_bytes
from gptkit.core.errors import ExternalModelError, SpecError, TokenizerError
from gptkit.core.paths import real
from gptkit.core.registry import Registry
from gptkit.files import validate_data
from gptkit.interop.checking import check_tensors, check_ties
from gptkit.interop.conversion import Move, family_of, pair, read_model
from gptkit.interop.sampling import sampler_of
from gptkit.interop.selection import detect_format
from gptkit.interop.wrappers import is_wrapper
from gptkit.kinds.family import FamilySpec
from gptkit.kinds.format import ExternalModel, ExternalTokenizer, FormatSpec, TensorEntry, Tensors
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.runs.spec import ExperimentSpec

__all__ = ["External", "NativeTensors", "read_external"]

_log = logging.getLogger("gptkit")


@dataclass(frozen=True)
class External:
    """External model in the form of a run.

    Attributes:
        path: its file or directory.
        format: its format.
        family: its family.
        model: the model as the format stores it.
        stored: its tokenizer, as data.
        spec: the experiment of its model, tokenizer and sampler.
        replaced: whether its tokenizer was replaced.
        registry: where components are looked up.
    """

    path: Path
    format: FormatSpec
    family: FamilySpec
    model: ExternalModel
    stored: ExternalTokenizer
    spec: ExperimentSpec
    replaced: bool = False
    registry: Registry | None = field(default=None, repr=False)

    @cached_property
    def shell(self) -> GPT:
        """Return its model on the meta device."""
        try:
            return GPT(self.spec.model, device="meta")
        except (RuntimeError, OverflowError) as error:
            place = self.model.config_location
            raise ExternalModelError(f"{place} describes a model that cannot be built: {error}") from None

    def tensors(self) -> NativeTensors:
        """Return its weights under their native names.

        Raises:
            ExternalModelError: tensors are missing, unexpected, damaged or of another shape.
        """
        moves, stored = pair(self.family, self.shell), self.model.tensors()
        names = check_tensors(self.family, self.shell, moves, stored.entries, self.model.location)
        check_ties(self.family, self.shell, moves, stored, names, self.model.location)
        return NativeTensors(moves, stored, names)

    def tokenizer(self) -> Tokenizer:
        """Return its tokenizer; data that the format does not store as files is written to a temporary directory.

        Raises:
            ExternalModelError: it cannot be read.
        """
        if not self.stored.files:
            return self.spec.tokenizer.fit(iter(()))
        with TemporaryDirectory() as temporary:
            for name, data in self.stored.files.items():
                write_bytes(Path(temporary) / name, data)
            try:
                return self.spec.tokenizer.model_copy(update={"path": temporary}).fit(iter(()))
            except TokenizerError as error:
                # Remove the temporary path, which is meaningless to the user.
                what = error.message.partition(temporary)[2].partition(": ")[2] or error.message
                raise ExternalModelError(f"{self.model.location}: its tokenizer {what}", hint=error.hint) from None

    def notes(self) -> dict[str, Any]:
        """Return the entries of a run's provenance for later exports."""
        notes = {"family": self.family.component_name(), "format": self.format.component_name(), "from": self.path.name}
        generation, settings = dict(self.model.generation()), dict(self.model.token_settings())
        if self.replaced and self.stored.spec.get("name") != "hugging-face":
            # The ids belong to the other tokenizer.
            generation = {key: value for key, value in generation.items() if "token_id" not in key}
        if is_wrapper(self.model.config):
            notes["language_model_of"] = str(self.model.config["model_type"])
        return {
            **notes,
            **({"generation": generation} if generation else {}),
            **({"token_settings": settings} if settings and not self.replaced else {}),
        }


class NativeTensors:
    """Weights of an external model under their native names; each is read and converted on request."""

    def __init__(self, moves: list[Move], stored: Tensors, names: Mapping[str, str]) -> None:
        self._stored, self._names = stored, names
        self._moves = {move.native: move for move in moves}
        self.entries = {
            move.native: TensorEntry(
                tuple(move.like.shape), _common([stored.entries[each].dtype for each in self._of(move)])
            )
            for move in moves
        }

    def get(self, name: str) -> Tensor:
        """Return one tensor."""
        move, dtype = self._moves[name], self.entries[name].dtype
        return move.join([self._stored.get(each).to(dtype) for each in self._of(move)])

    def _of(self, move: Move) -> list[str]:
        return [self._names[name] for name in move.external]


def read_external(
    path: Path,
    *,
    format: str | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    tokenizer_path: Path | None = None,
    name: str | None = None,
    training: Callable[[ModelSpec], Mapping[str, Any]] | None = None,
    registry: Registry | None = None,
) -> External:
    """Read an external model; its tensors are read later, one by one.

    Args:
        path: its file or directory.
        format: the name of the format; detected by default.
        tokenizer: replacement of its tokenizer, as in a spec file.
        tokenizer_path: the `path` of a tokenizer that the format does not store as files; that of the model by default.
        name: the experiment's name; that of the path by default.
        training: returns the section `training` of the spec; that of a training from scratch by default.
        registry: where formats, families and components are looked up; by default what is installed.

    Raises:
        ExternalModelError: a key is unknown, or a file is missing or damaged.
    """
    chosen = detect_format(path, format, registry)
    external = chosen.read(path, registry)
    family, config = family_of(external, registry)
    model = read_model(family, config, external.config_location, registry)
    stored = external.tokenizer() if tokenizer is None else ExternalTokenizer(tokenizer)
    own = {"path": str(tokenizer_path or real(path))} if stored.files else {}
    data: dict[str, Any] = {
        "name": (name or (path.stem if path.is_file() else real(path).name) or "imported")[:200],
        "tokenizer": {**stored.spec, **own},
        "model": model.model_dump(mode="json"),
        **({} if training is None else {"training": training(model)}),
    }
    spec = _validated(data, sampler_of(dict(external.generation())), registry)
    return External(path, chosen, family, external, stored, spec, tokenizer is not None, registry)


def _validated(data: Mapping[str, Any], sampler: list[dict[str, Any]] | None, registry: Registry | None) -> ExperimentSpec:
    if sampler is not None:
        try:
            return validate_data({**data, "sampler": sampler}, ExperimentSpec, registry)
        except SpecError as error:
            if not all(problem.path[:1] == ("sampler",) for problem in error.problems):
                raise
            _log.warning("the model's default options of generation are invalid; the default sampler is used: %s", error)
    return validate_data(data, ExperimentSpec, registry)


def _common(dtypes: list[torch.dtype]) -> torch.dtype:
    widest = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest
