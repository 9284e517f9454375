"""Kind `attention`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.core.errors import Problem
from gptkit.core.failing import INTENTIONAL, failure
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.attention.base import Attention

__all__ = ["AttentionSpec", "head_problems"]


class AttentionSpec(Component):
    """Attention: the part of a block that combines information of several tokens.

    Requirements, for every position that it accepts:
        causality: the output at a position depends on its own and earlier tokens of the same row and document only;
        batch independence: a row's output does not depend on the other rows, nor on padding;
        cache equivalence: prefill and single steps with a state give the result of one full call;
        attention windows are counted in tokens, the current one included.

    It builds the layer's relative position (``context.parts.position``) for the head size that it rotates.

    Declared capabilities:
        accepts: the hooks of a position that it applies, of `rotate`, `rotated_width`, `bias`, `content_bias`, `value_bias`.
        depends_on_position: a property, bool: with `position: none`, the output still depends on the tokens' positions.
        mixed_tokens: a property, int: how many earlier tokens the keys and values of a token depend on (convolutions); the
            output depends on as many tokens before the attention window.
        kv_source_field: name of the field by which it has a `kv_source`, for messages; None without one.
        sets_output_width: its output has `context.d_output` features where that is set.
        takes_addition: its module adds a tensor to its projection of the input (`gptkit.nn.addition.TakesAddition`).
        takes_kv_inputs: a property, bool: where `context.kv_inputs` is set, its module computes keys and values from inputs
            of their own, which its `forward` has as the keyword `kv_BTE`, a pair.
    """

    kind: ClassVar[str] = "attention"
    runtime: ClassVar[str] = "gptkit.nn.attention.base:Attention"
    builds_module: ClassVar[bool] = True
    accepts: ClassVar[frozenset[str]] = frozenset()
    kv_source_field: ClassVar[str | None] = None
    sets_output_width: ClassVar[bool] = False
    takes_addition: ClassVar[bool] = False

    @property
    def depends_on_position(self) -> bool:
        """Whether the output for a token depends on its position even without a position component (chunks)."""
        return False

    @property
    def mixed_tokens(self) -> int:
        """How many earlier tokens the keys and values of a token depend on."""
        return 0

    @property
    def takes_kv_inputs(self) -> bool:
        """Whether keys and values may have inputs of their own."""
        return False

    def score_features(self, context: BuildContext) -> ScoreFeatures | None:
        """Return what the attention requires of a backend; None without a softmax, or if it is known only when built."""
        return None

    def kv_source(self, index: int, layers: Sequence[LayerParts]) -> int | None:
        """Return the index of the layer whose keys and values a layer attends to; None if it computes its own.

        Args:
            index: the index of the layer with this attention.
            layers: the layers with attention, this one among them.
        """
        return None

    def layer_problems(self, index: int, layers: Sequence[LayerParts]) -> Iterator[Problem]:
        """Yield the errors that depend on the layers before this one, located below the attention.

        Args:
            index: the index of the layer with this attention.
            layers: the model's attentions in their order, nested ones too, each with its number in this order as the index.
        """
        return iter(())

    @abstractmethod
    def build(self, context: BuildContext) -> Attention:
        """Return the module, for context.d_model features."""

    def written(self, context: WritingContext) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its parameters must have the names of the built module's.
        Its `forward` has the arguments x_BTE, positions_T and cache, a dictionary of this layer's tensors.
        """
        return None


def head_problems(context: BuildContext, heads: HeadShape) -> Iterator[Problem]:
    """Yield the reasons why the layer's position does not support these heads, as problems of the attention."""
    position = context.parts.position
    try:
        messages = list(position.head_problems(heads))
    except INTENTIONAL:
        raise
    except Exception as error:
        yield Problem((), failure(position, "head_problems", error, context.registry))
        return
    for message in messages:
        yield Problem((), f"position {position.name!r} cannot use these heads: {message}")
