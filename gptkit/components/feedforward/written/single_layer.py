"""Template of `single-layer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.feedforward.single_layer import SingleLayerSpec

__all__ = ["single_layer"]

_CLASS = '''
class $class_name(nn.Module):
    """One projection, then an activation: y = f(W x)."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.projection = $projection
        #if activation_class
        self.activation = $activation
        #end

    def forward(self, x_BTE: Tensor) -> Tensor:
        """Transform each token, (B, T, E) to (B, T, E)."""
        return $activated
'''


def single_layer(spec: SingleLayerSpec, context: WritingContext) -> Written:
    """Return the feed-forward as a class."""
    activation = written(spec.activation, context)
    parts = {"activation": activation} if activation.text or activation.expression else {}
    text = fill(
        _CLASS,
        projection=linear(context, "D_MODEL", "D_MODEL", bias=spec.bias),
        activation_class="activation" in parts and not activation.is_function,
        activated=activation.call("apply", x="self.projection(x_BTE)"),
    )
    return Written("FeedForward", text, parts=parts, section="feedforward", variant="Single", fields=("activation", "bias"))
