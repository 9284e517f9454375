"""Callback `norms`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.callback import Callback, CallbackSpec

__all__ = ["NormsSpec"]


class NormsSpec(CallbackSpec):
    """Records the norms of gradients, weights and activations by layer.

    Formula:
        gradient_norm/m = ‖∇θ‖₂ and weight_norm/m = ‖θ‖₂ over the parameters of module m, before clipping
        activation_rms/m = √(mean x²) of the module's output, the mean over the calls of the step

    Notes:
        The modules are the embedding, each block, the final norm and the head; parameters that layers share are counted as
        the module `shared`. Computed in every `every`-th step, and recorded with the next line of metrics.
    """

    formula: ClassVar[str] = r"\|\nabla\theta\|_2 \qquad \|\theta\|_2 \qquad \sqrt{\operatorname{mean}(y^2)}"

    name: Literal["norms"] = "norms"
    gradients: bool = Field(True, description="Record the norms of gradients.")
    weights: bool = Field(False, description="Record the norms of weights.")
    activations: bool = Field(True, description="Record the root mean square of each module's output.")
    every: int = Field(10, ge=1, description="Steps between two steps that are measured.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"weights": True, "activations": False, "every": 1})

    def build(self) -> Callback:
        from gptkit.components.callback.modules.norms import Norms

        return Norms(self)
