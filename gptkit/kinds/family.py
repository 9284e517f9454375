"""Kind `family`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.external_config import ExternalConfig

if TYPE_CHECKING:
    from torch import Tensor

    from gptkit.interop.formats.gguf.architecture import Architecture

__all__ = ["FamilySpec", "Layout", "Rule"]


class Layout(ABC):
    """Layout of a native tensor in external tensors; `join` is the inverse of `split`.

    Both methods only view, permute and copy elements, and work on meta tensors, so that shapes are known beforehand.
    `layer` is the spec of the layer that the tensor belongs to (`gptkit.model.spec.LayerSpec`), None outside of layers.
    """

    @abstractmethod
    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        """Return the native tensor for the external ones."""

    @abstractmethod
    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        """Return the external tensors for a native one, in the order of the rule's names."""


@dataclass(frozen=True)
class Rule:
    """Correspondence of a native tensor to external tensors.

    In names, ``*`` stands for the index of the layer, and ``{q,k,v}`` lists several tensors. The suffixes ``.weight`` and
    ``.bias`` are omitted where they are the same on both sides. Native experts, and norms of single heads, are stacked in
    one tensor. A ``#`` in the external name stands for the index of an expert or head: there each has tensors of its own,
    with the layout given.

    Attributes:
        native: the native name: ``blocks.*.attention.qkv``.
        external: the external name: ``model.layers.*.self_attn.{q,k,v}_proj``.
        layout: the arrangement of the elements; None if both are the same.
    """

    native: str
    external: str
    layout: Layout | None = None

    @property
    def per_expert(self) -> bool:
        """Whether each expert (or head) has external tensors of its own."""
        return "#" in self.external

    def match(self, name: str) -> tuple[int | None, tuple[str, ...]] | None:
        """Return the layer and the external names of a native tensor; None where the rule does not apply to it."""
        pattern = re.escape(self.native).replace(r"\*", r"(?P<layer>\d+)")
        result = re.fullmatch(pattern + r"(?P<leaf>\.weight|\.bias)?", name)
        if result is None:
            return None
        parts = {"layer": "", "leaf": "", **{key: value for key, value in result.groupdict().items() if value is not None}}
        names = tuple(expand(self.external.replace("*", parts["layer"]) + parts["leaf"]))
        return (int(parts["layer"]) if parts["layer"] else None), names


def expand(name: str) -> Iterator[str]:
    """Yield the alternatives of a name in braces: ``a.b`` and ``a.c`` for ``a.{b,c}``."""
    before, brace, rest = name.partition("{")
    if not brace:
        yield name
        return
    choices, _, after = rest.partition("}")
    for choice in choices.split(","):
        yield from expand(before + choice + after)


class FamilySpec(Component):
    """External model family: maps its configuration and tensor names to a native model, and back.

    A model is exported only if reading the written configuration returns the same model. Therefore `config` needs no checks:
    a model that the family cannot express is detected.

    Class variables:
        model_type: the value of this key in config.json.
        model_types: other values of `model_type` that the family reads; exports use `model_type`.
        architecture: the class of transformers that loads such a model.
        prefix: the prefix of tensor names in a model with a head, missing in files of the bare decoder.
        rank: families of a lower rank are tried first when a model is exported; the most common ones have it.
        harmless: keys of the configuration that do not affect logits, besides those of every family.
        prefixes: prefixes of tensor names in files of larger models, and those that replace them. A multimodal model has the
            configuration of its language model below `text_config`, which alone is read, and its tensors under a prefix.
        ignored: patterns (regular expressions) of tensors without learned values: masks, frequency tables.
        commands: commands that use a family, for the documentation; spec files contain none.
        tiny: configurations of tiny models that the conformance kit checks: keys that replace or join the common sizes.
    """

    kind: ClassVar[str] = "family"
    model_type: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]] = ()
    architecture: ClassVar[str]
    commands: ClassVar[tuple[str, ...]] = (
        "gptkit import DIRECTORY RUN",
        "gptkit export RUN DIRECTORY --family {name}",
    )
    prefixes: ClassVar[Mapping[str, str]] = {}
    prefix: ClassVar[str] = "model."
    rank: ClassVar[int] = 10
    harmless: ClassVar[frozenset[str]] = frozenset()
    ignored: ClassVar[tuple[str, ...]] = ()
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    @abstractmethod
    def model(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the model's spec, as plain data, for a configuration.

        Raises:
            ExternalModelError: a value requires a feature that gptkit does not support.
        """

    @abstractmethod
    def config(self, model: Any) -> dict[str, Any]:
        """Return the configuration of a model (`gptkit.model.spec.ModelSpec`), without `model_type` and `architectures`.

        May raise LookupError, AttributeError, TypeError or ValueError for a model that the family cannot express.
        """

    def skipped(self, model: Any) -> Sequence[str]:
        """Return patterns of external tensors that are not read: `ignored`, and those that depend on the model's sizes."""
        return self.ignored

    def reference(self) -> tuple[Any, Any] | None:
        """Return the classes of the configuration and of the model by which the conformance kit judges the family.

        None stands for those that transformers has for `model_type`. Classes of another package have the same interface
        (`PreTrainedConfig` and `PreTrainedModel`), and are imported here: an ImportError skips the checks.
        """
        return None

    def gguf(self) -> Architecture | None:
        """Return the family's architecture in GGUF files; None where llama.cpp has none, or it is not described."""
        return None

    @abstractmethod
    def rules(self, model: Any) -> Sequence[Rule]:
        """Return the rules of the model's tensors; a rule that matches no native tensor has no effect."""
