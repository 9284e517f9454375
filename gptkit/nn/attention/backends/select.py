"""The choice of a layer's backend, made once, when the layer is assembled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.kinds.attention_backend import AttentionBackendSpec, ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.backends.base import AttentionBackend

__all__ = ["Selected", "select_backend"]


@dataclass(frozen=True)
class Selected:
    """The backend of a layer, its name, and why it was chosen, as a clause."""

    backend: AttentionBackend
    name: str
    reason: str


def select_backend(context: BuildContext, features: ScoreFeatures) -> Selected:
    """The backend of the layer that is being built.

    Raises:
        GptkitError: the backend that the spec selects cannot compute the layer.
    """
    spec = context.backend
    if spec is None:
        registry = context.registry or default_registry()
        spec = cast("AttentionBackendSpec", registry.component("attention-backend", "auto")(name="auto"))
    chosen, reason = spec.choice(features)
    limitation = chosen.limitation(features)
    if limitation is not None:
        raise GptkitError(
            f"attention backend {chosen.name!r} cannot compute {limitation}, which layer {context.parts.index} has",
            hint="Set attention_backend of the layer to auto, or choose another attention or position for it.",
        )
    backend = context.share(("attention-backend", chosen), chosen.build)
    return Selected(backend, chosen.name, reason)
