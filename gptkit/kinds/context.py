"""Build context: what a component of a model receives when it is resolved, checked and built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

    from gptkit.core.registry import Registry
    from gptkit.kinds.attention import AttentionSpec
    from gptkit.kinds.attention_backend import AttentionBackendSpec
    from gptkit.kinds.feedforward import FeedForwardSpec
    from gptkit.kinds.linear import LinearSpec
    from gptkit.kinds.norm import NormSpec
    from gptkit.kinds.position import PositionSpec

__all__ = ["BuildContext", "LayerParts", "ParameterInfo"]

T = TypeVar("T")


@dataclass(frozen=True)
class LayerParts:
    """Components of one layer: the specs that its block assembles."""

    index: int
    position: PositionSpec
    attention: AttentionSpec
    norm: NormSpec
    feedforward: FeedForwardSpec
    linear: LinearSpec | None = None
    attention_backend: AttentionBackendSpec | None = None
    """Implementation of the softmax attention of the layer; None for that of the model."""


@dataclass(frozen=True)
class ParameterInfo:
    """Description of a parameter that is being initialized.

    Attributes:
        name: its full name in the model, ``blocks.3.attention.qkv.weight``.
        layer: the index of its block; None outside of the blocks.
        projections: the rows of the projections that it holds, by their names (``value``), where its module declares them.
    """

    name: str
    layer: int | None = None
    projections: Mapping[str, tuple[slice, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildContext:
    """Settings of the model and the layer for which a component is built.

    Attributes:
        d_model: width of the residual stream.
        context_length: the maximum sequence length in tokens.
        n_layers: number of blocks.
        vocab_size: number of token ids; 0 while it is not known (before a tokenizer is trained).
        position: the model's own position, whose `embed` part the embedding applies.
        attention_backend: computes the softmax attention of layers without their own backend; None for `auto`.
        layer: the layer being built; for the head the model's own parts, with the index after the last layer; None for the
            embedding and the final norm.
        parameter: the parameter that is being initialized; None at any other time.
        shared: modules that several layers share; use `share`.
        registry: the registry of the model's components; None for the installed ones.
        d_output: width of an attention's output; None for d_model. Only for an attention that declares `sets_output_width`.
        kv_inputs: keys and values of an attention have inputs of their own, which the block passes. Only for an attention
            that declares `takes_kv_inputs`.
    """

    d_model: int
    context_length: int
    n_layers: int
    vocab_size: int = 0
    position: PositionSpec | None = None
    attention_backend: AttentionBackendSpec | None = None
    layer: LayerParts | None = None
    parameter: ParameterInfo | None = None
    shared: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)
    registry: Registry | None = field(default=None, repr=False, compare=False)
    d_output: int | None = None
    kv_inputs: bool = False

    def replace(self, **changes: Any) -> BuildContext:
        """Return a copy with some attributes changed; `shared` remains the same mapping."""
        return dataclasses.replace(self, **changes)

    def share(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the object stored under `key`, created on first request: for tables that layers share."""
        if key not in self.shared:
            self.shared[key] = make()
        value: T = self.shared[key]
        return value

    def linear(self, d_in: int, d_out: int, *, bias: bool = True) -> nn.Linear:
        """Return a linear projection of the layer's kind, dense outside of layers. Use it instead of `nn.Linear`.

        A precision for inference replaces such projections, and no others: their matrix is only multiplied.
        """
        if self.layer is None or self.layer.linear is None:
            from torch import nn

            made = nn.Linear(d_in, d_out, bias=bias)
        else:
            made = self.layer.linear.build(self, d_in=d_in, d_out=d_out, bias=bias)
        made.is_projection = True  # type: ignore[assignment]
        return made

    @property
    def stacks_linears(self) -> bool:
        """Whether a mixture of experts may hold its experts' projections as one tensor."""
        return self.layer is None or self.layer.linear is None or self.layer.linear.stacks

    @property
    def backend(self) -> AttentionBackendSpec | None:
        """The attention backend of the layer being built, or of the model; None for `auto`."""
        own = None if self.layer is None else self.layer.attention_backend
        return self.attention_backend if own is None else own

    @property
    def parts(self) -> LayerParts:
        """Components of the layer that is being built.

        Raises:
            ValueError: the component is built outside of a layer.
        """
        if self.layer is None:
            raise ValueError("this component must be built inside a layer, but context.layer is None")
        return self.layer
