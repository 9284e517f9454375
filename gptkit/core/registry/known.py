"""The plugins of gptkit's repository and their components, which messages name if they are not installed."""

from __future__ import annotations

__all__ = ["COMPONENTS", "distribution_of"]

COMPONENTS = {
    "gptkit-datasets": {"data": "datasets"},
    "gptkit-llamacpp": {"engine": "llama.cpp"},
    "gptkit-mlflow": {"tracker": "mlflow"},
    "gptkit-research": {
        "attention": "forgetting rwkv7 talking-heads value-embedding value-residual",
        "block": "hyper-connections input-residual looped skips token-shift",
        "embedding": "bigram smear",
        "family": "rwkv7",
        "linear": "ternary",
        "norm": "dynamic-tanh",
        "position": "cope fire kerple pope",
    },
    "gptkit-structured": {"sampler": "structured"},
    "gptkit-tensorboard": {"tracker": "tensorboard"},
    "gptkit-vllm": {"engine": "vllm"},
    "gptkit-wandb": {"tracker": "wandb"},
}
"""Names of components by distribution and kind. A list, since a distribution that is not installed cannot be asked."""


def distribution_of(kind: str, name: str) -> str | None:
    """Return the distribution of gptkit's repository that provides a component, or None."""
    return next((dist for dist, kinds in COMPONENTS.items() if name in kinds.get(kind, "").split()), None)
