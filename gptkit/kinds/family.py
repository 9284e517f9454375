"""Kind `family`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gptkit.core.spec import Component
from gptkit.kinds.foreign import ForeignConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FamilySpec", "Layout", "Rule"]


class Layout(ABC):
    """How one tensor of ours is made of tensors of theirs. What `split` takes apart, `join` puts together.

    Both only view, move and copy numbers, and work on tensors without memory, so that shapes are known beforehand.
    `layer` is the spec of the layer that the tensor belongs to (`gptkit.model.spec.LayerSpec`), None outside of layers.
    """

    @abstractmethod
    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        """Ours, from theirs."""

    @abstractmethod
    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        """Theirs, from ours, in the order of the rule's names."""


@dataclass(frozen=True)
class Rule:
    """Where a tensor is found under its other name.

    In names, ``*`` stands for the number of the layer, ``#`` for that of an expert, and ``{q,k,v}`` lists several tensors.
    The endings ``.weight`` and ``.bias`` are left out where they are the same on both sides. Where only our name has a
    ``#``, theirs is a stack of all experts, and the layout is that of one of them.

    Attributes:
        ours: the name here: ``blocks.*.attention.qkv``.
        theirs: the name there: ``model.layers.*.self_attn.{q,k,v}_proj``.
        layout: how the numbers lie; None for as they are.
    """

    ours: str
    theirs: str
    layout: Layout | None = None

    @property
    def stacked(self) -> bool:
        """Whether one tensor of theirs has those of all our experts."""
        return "#" in self.ours and "#" not in self.theirs

    def match(self, name: str) -> tuple[int | None, tuple[str, ...]] | None:
        """For one of our tensors: its layer and the names of theirs; None where the rule is not about it."""
        pattern = re.escape(self.ours).replace(r"\*", r"(?P<layer>\d+)").replace(r"\#", r"(?P<expert>\d+)")
        found = re.fullmatch(pattern + r"(?P<leaf>\.weight|\.bias)?", name)
        if found is None:
            return None
        parts = {"layer": "", "expert": "", "leaf": "", **{k: v for k, v in found.groupdict().items() if v is not None}}
        names = tuple(expand(self.theirs.replace("*", parts["layer"]).replace("#", parts["expert"]) + parts["leaf"]))
        return (int(parts["layer"]) if parts["layer"] else None), names


def expand(name: str) -> Iterator[str]:
    """``a.{b,c}`` stands for ``a.b`` and ``a.c``."""
    before, brace, rest = name.partition("{")
    if not brace:
        yield name
        return
    choices, _, after = rest.partition("}")
    for choice in choices.split(","):
        yield from expand(before + choice + after)


class FamilySpec(Component):
    """A family of models as another library knows it: how its configuration and its tensors' names read here.

    The two directions are held to each other: an export is made only where the configuration that it writes is read back
    as the very model that was to be exported. So `config` may be written plainly; what a family cannot say is found out.

    Class variables:
        model_type: what the family's config.json says there.
        architecture: the class that another library loads such a model with.
        prefix: what the names of a whole model's tensors begin with, and those of a bare body do not.
        rank: families with a lower one are tried first when a model is exported; the best known ones have it.
        harmless: keys of the configuration that change no logit, besides those of every family.
        ignored: patterns (regular expressions) of tensors that hold nothing learned: masks, tables of angles.
    """

    kind: ClassVar[str] = "family"
    model_type: ClassVar[str]
    architecture: ClassVar[str]
    prefix: ClassVar[str] = "model."
    rank: ClassVar[int] = 10
    harmless: ClassVar[frozenset[str]] = frozenset()
    ignored: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def model(self, config: ForeignConfig) -> dict[str, Any]:
        """The model's spec, as plain data, for a configuration.

        Raises:
            ForeignModelError: a value asks for what gptkit does not do.
        """

    @abstractmethod
    def config(self, model: Any) -> dict[str, Any]:
        """The configuration of a model (`gptkit.model.spec.ModelSpec`), without `model_type` and `architectures`.

        May raise LookupError, AttributeError, TypeError or ValueError for a model that is none of the family.
        """

    def skipped(self, model: Any) -> Sequence[str]:
        """Patterns of tensors that such a model leaves unread: `ignored`, and what depends on its sizes."""
        return self.ignored

    @abstractmethod
    def rules(self, model: Any) -> Sequence[Rule]:
        """Where each tensor of such a model is found. A rule without a tensor of ours does nothing."""
