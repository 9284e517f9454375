"""Kind `family`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.external_config import ExternalConfig

if TYPE_CHECKING:
    from torch import Tensor

    from gptkit.interop.formats.gguf.architecture import Architecture

__all__ = ["Constant", "FamilySpec", "Layout", "Rule"]


class Layout(ABC):
    """Layout of a native tensor in external tensors; `join` is the inverse of `split`.

    Both methods only view, permute and copy elements, and support meta tensors, so that shapes can be determined without
    data. `layer` is the spec of the tensor's layer (`gptkit.model.spec.LayerSpec`); None outside of layers.

    Class variables:
        any_rows: only the total number of the external tensors' rows is checked: programs cut them differently.
        more_rows: an external tensor may have more rows than `split` returns; `join` does not read them.
    """

    any_rows: ClassVar[bool] = False
    more_rows: ClassVar[bool] = False

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
    ``.bias`` are omitted if they are the same on both sides. Native experts, and norms of single heads, are stacked in one
    tensor. A ``#`` in the external name stands for the index of an expert or head, each of which has separate external
    tensors; `layout` then applies to each of them.

    Attributes:
        native: the native name: ``blocks.*.attention.qkv``.
        external: the external name: ``model.layers.*.self_attn.{q,k,v}_proj``.
        layout: the arrangement of the elements; None for the same arrangement.
    """

    native: str
    external: str
    layout: Layout | None = None

    @property
    def per_expert(self) -> bool:
        """Whether each expert (or head) has separate external tensors."""
        return "#" in self.external

    def match(self, name: str) -> tuple[int | None, tuple[str, ...]] | None:
        """Return the layer and the external names of a native tensor; None if the rule does not apply to it."""
        pattern = re.escape(self.native).replace(r"\*", r"(?P<layer>\d+)")
        result = re.fullmatch(pattern + r"(?P<leaf>\.weight|\.bias)?", name)
        if result is None:
            return None
        parts = {"layer": "", "leaf": "", **{key: value for key, value in result.groupdict().items() if value is not None}}
        names = tuple(expand(self.external.replace("*", parts["layer"]) + parts["leaf"]))
        layer = parts["layer"] or ((own := re.match(r"blocks\.(\d+)\.", name)) and own[1])
        return (int(layer) if layer else None), names


@dataclass(frozen=True)
class Constant:
    """An external tensor without learned values, in fp32, that follows from the configuration.

    Attributes:
        shape: its shape.
        make: returns it.
    """

    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def expand(name: str) -> Iterator[str]:
    """Yield the names that a name with braces lists: ``a.b`` and ``a.c`` for ``a.{b,c}``."""
    before, brace, rest = name.partition("{")
    if not brace:
        yield name
        return
    choices, _, after = rest.partition("}")
    for choice in choices.split(","):
        yield from expand(before + choice + after)


class FamilySpec(Component):
    """External model family: maps its configuration and tensor names to a native model, and back.

    A model is exported only if reading the written configuration returns the same model, so `config` needs no checks: a
    model that the family cannot express is detected.

    Class variables:
        model_type: the value of this key in config.json.
        model_types: other values of `model_type` that the family reads; exports use `model_type`.
        architecture: the class of transformers that loads such a model.
        prefix: the prefix of tensor names in a model with a head, missing in files of the bare decoder.
        rank: order in which families are tried when a model is exported, the lowest first; common families have a low rank.
        harmless: keys of the configuration that do not affect logits, in addition to those common to all families.
        redundant: keys that the class of transformers does not read, by the values with which a released configuration
            describes what the class computes anyway; other values are refused.
        synonyms: further names of keys in released configurations, which the class does not read, by the names that it
            reads; a value that differs from the one that was read is refused.
        prefixes: prefixes of tensor names in files of larger models, and their replacements. The language model of a
            multimodal model has its configuration in `text_config`, and its tensors under a prefix.
        renames: patterns (regular expressions) of names in released files, and their replacements, applied in order after
            `prefixes`; the rules have the replaced names.
        ignored: patterns (regular expressions) of tensors without learned values: masks, frequency tables.
        commands: commands that use a family, for the documentation; families do not occur in spec files.
        tiny: configurations of tiny models that the conformance kit checks: keys in addition to the common sizes, or in
            place of them.
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
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()
    prefix: ClassVar[str] = "model."
    rank: ClassVar[int] = 10
    harmless: ClassVar[frozenset[str]] = frozenset()
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    synonyms: ClassVar[Mapping[str, str]] = {}
    ignored: ClassVar[tuple[str, ...]] = ()
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    @classmethod
    def other_model_types(cls) -> tuple[str, ...]:
        """Return the class's own `model_types`: a subclass is another family, which does not read those of its base."""
        return tuple(vars(cls).get("model_types", ()))

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
        """Return patterns of external tensors that are not read: `ignored`, and patterns that depend on the model."""
        return self.ignored

    def constants(self, model: Any) -> Mapping[str, Constant]:
        """Return external tensors that exports contain and imports do not read, by name; their names match `ignored`.

        For tables that a class computes from its configuration, and expects in a checkpoint all the same.
        """
        return {}

    def factors(self, model: Any) -> Mapping[str, float]:
        """Return by how much outputs of native parts are larger than those of the reference class, by their names.

        For `gptkit drift`, where a class computes with scaled vectors: ``{"blocks.6.attention": 2.0}``; no name means 1.
        """
        return {}

    def reference(self) -> tuple[Any, Any] | None:
        """Return the classes of configuration and model with which the conformance kit compares the family.

        By default those of transformers for `model_type` (None). Classes of another package must have the same interface
        (`PreTrainedConfig` and `PreTrainedModel`), and be imported in this method: an ImportError skips the checks.
        """
        return None

    def gguf(self) -> Architecture | None:
        """Return the family's architecture in GGUF files; None if llama.cpp or gptkit does not support it."""
        return None

    @abstractmethod
    def rules(self, model: Any) -> Sequence[Rule]:
        """Return the rules of the model's tensors; a rule that matches no native tensor has no effect."""
