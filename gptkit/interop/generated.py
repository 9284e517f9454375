"""Family of exports with generated code: the spec is in config.json, and the code is not executed.

The weights are those of the composed model under other names, and some native matrices are several tensors. Which these are
follows from the names in the files. `code_report` compares these names with the source of the code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gptkit.core.errors import ExternalModelError
from gptkit.ejection.hugging_face.weights import HEAD
from gptkit.ejection.hugging_face.writing import ARCHITECTURE, MODEL_TYPE, MODELING_FILE
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

    from gptkit.kinds.format import ExternalModel

__all__ = ["SPEC_KEY", "GeneratedFamily", "code_report", "compared_code", "generated_family"]

SPEC_KEY = "gptkit_model"
"""The key of config.json with the spec of the model, as plain data."""

_PART = re.compile(r"model\.(?P<stem>blocks\.\d+\..*\b)(?P<name>q|gate)\.(?:weight|bias)")
_PACKED = {"q": ("qkv", ("q", "k", "v", "gate")), "gate": ("gate_up", ("gate", "up"))}


class Rows(Layout):
    """Several matrices or vectors, whose concatenation by rows is the native one."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        import torch

        return torch.cat(list(parts))

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        sizes = self.sizes if sum(self.sizes) == tensor.shape[0] else [tensor.shape[0], *[0] * (len(self.sizes) - 1)]
        import torch

        return list(torch.split(tensor, sizes))


class _Named(Rule):
    """A tensor under its own name in the base model, or under that of the head."""

    def match(self, name: str) -> tuple[int | None, tuple[str, ...]] | None:
        leaf = name.removeprefix("head.")
        return None, (HEAD.get(leaf, f"model.{name}") if leaf != name else f"model.{name}",)


class _Stored(_Named):
    """The same, for a tensor that the files have."""

    def __init__(self, names: Mapping[str, Sequence[int]]) -> None:
        super().__init__("*", "*")
        object.__setattr__(self, "names", names)

    def match(self, name: str) -> tuple[int | None, tuple[str, ...]] | None:
        result = super().match(name)
        names: Mapping[str, Sequence[int]] = self.names  # type: ignore[attr-defined]
        return result if result is not None and result[1][0] in names else None


class GeneratedFamily(FamilySpec):
    """Models exported with code that gptkit generated: any composition.

    Not registered, since models are not exported as this family: they have code where no family expresses them.
    """

    name: Literal["generated-code"] = "generated-code"
    model_type = MODEL_TYPE
    architecture = ARCHITECTURE
    shapes: Mapping[str, tuple[int, ...]] = Field({}, description="Shapes of the tensors in the files, by name.")

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        spec = config.value(SPEC_KEY)
        for key in config.data:  # the code has these as constants, and they follow from the spec
            config.value(key)
        vocab_size = config.integer("vocab_size")  # transformers can change it
        return {**spec, "vocab_size": vocab_size}

    def config(self, model: Any) -> dict[str, Any]:
        raise ValueError("code is generated for it")

    def rules(self, model: Any) -> Sequence[Rule]:
        packed = []
        for name in self.shapes:
            match = _PART.fullmatch(name)
            if match is None:
                continue
            whole, parts = _PACKED[match["name"]]
            leaf = name.rpartition(".")[2]
            stored = [part for part in parts if f"model.{match['stem']}{part}.{leaf}" in self.shapes]
            if len(stored) < len(parts) - (whole == "qkv"):
                continue
            sizes = [self.shapes[f"model.{match['stem']}{part}.{leaf}"][0] for part in stored]
            names = f"model.{match['stem']}{{{','.join(stored)}}}"
            packed.append(Rule(f"{match['stem']}{whole}", names, Rows(sizes)))
        return [_Stored(self.shapes), *packed, _Named("*", "*")]


def generated_family(external: ExternalModel) -> GeneratedFamily | None:
    """Return the family of an export with generated code; None for other models.

    Raises:
        ExternalModelError: it has no spec.
    """
    if external.family is not None or external.config.get("model_type") != MODEL_TYPE:
        return None
    if not isinstance(external.config.get(SPEC_KEY), Mapping):
        raise ExternalModelError(
            f"{external.config_location} has no {SPEC_KEY!r}, the spec of a model whose code gptkit generated",
            hint="Export the run again; gptkit does not execute the code.",
        )
    shapes = {name: entry.shape for name, entry in external.tensors().entries.items() if entry.shape}
    return GeneratedFamily(shapes=shapes)


def compared_code(source: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], place: str) -> str:
    """Compare the tensors that generated code declares with those of files, and return a sentence about it.

    The source is read, and not executed.

    Args:
        source: the code of the model.
        config: the contents of config.json.
        shapes: the shapes of the tensors in the files, by name.
        place: where the code is, for messages.

    Raises:
        ExternalModelError: they differ, so that transformers would not load the weights.
    """
    from gptkit.ejection.declared import UnreadableError, declared_weights, difference

    try:
        declared = declared_weights(source, ARCHITECTURE, **config)
    except UnreadableError as reason:
        return f"not checked: which tensors the code declares, since its source has what gptkit does not read ({reason})"
    problem = difference(declared, shapes)
    if problem:
        raise ExternalModelError(
            f"{place}: the code and the weights do not fit: {problem}",
            hint="transformers would load the model with random weights. Export the run again; report it if that fails.",
        )
    return f"checked: the code declares the {len(declared)} tensors of the files, in their shapes"


def code_report(external: ExternalModel) -> str:
    """Return a sentence about the code in the directory of an export, as `compared_code` does; empty for other models.

    Raises:
        ExternalModelError: the code declares other tensors than the files have.
    """
    if generated_family(external) is None:
        return ""
    file = Path(external.location) / MODELING_FILE
    try:
        source = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return f"not checked: which tensors the code declares, since {file} cannot be read"
    shapes = {name: entry.shape for name, entry in external.tensors().entries.items()}
    return compared_code(source, external.config, shapes, str(file))
