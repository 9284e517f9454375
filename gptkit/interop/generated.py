"""Family of exports with generated code: the spec is in config.json, and the code is not executed.

The weights are those of the composed model under other names, and some native matrices are several tensors. Which these are
follows from the names in the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gptkit.core.errors import ExternalModelError
from gptkit.ejection.hugging_face.weights import HEAD
from gptkit.ejection.hugging_face.writing import ARCHITECTURE, MODEL_TYPE
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

    from gptkit.kinds.format import ExternalModel

__all__ = ["SPEC_KEY", "GeneratedFamily", "generated_family"]

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
