"""Models in which a component is inside another one, whose form of weights may depend on it: `experts`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gptkit.core.component import Component
from gptkit.model.gpt import GPT
from gptkit.testing.check import ContractError
from gptkit.testing.subject import D_MODEL, Subject, stirred

__all__ = ["composites"]

_COMPONENT = "the component"
_EXPERTS: Mapping[str, tuple[Any, ...]] = {
    "activation": (
        {"name": "mlp", "d_hidden": 8, "activation": _COMPONENT},
        {"name": "gated", "d_hidden": 8, "activation": _COMPONENT, "bias": True},
        {"name": "experts", "n_experts": 2, "expert": {"name": "mlp", "d_hidden": 8, "activation": _COMPONENT}},
    ),
    "norm": (
        {"name": "gated", "d_hidden": 8, "hidden_norm": _COMPONENT},
        {
            "name": "experts",
            "n_experts": 2,
            "expert": {"name": "mlp", "d_hidden": 8},
            "router": {"name": "softmax-top-k", "norm": _COMPONENT},
            "output_norm": _COMPONENT,
            "branch_norm": _COMPONENT,
        },
    ),
    "feedforward": (_COMPONENT,),
}
"""The experts that a component of each kind is placed in, or is."""


def composites(subject: Subject) -> Iterator[tuple[str, GPT]]:
    """Yield models with the component inside `experts`, of the model's width and of a narrower one, each with its name.

    The models have random weights, in fp64 and evaluation mode.
    """
    for expert in _EXPERTS.get(subject.kind, ()):
        name = subject.spec.name if expert is _COMPONENT else expert["name"]
        for latent in (None, 3 * D_MODEL // 4):
            mixture = {"name": "experts", "n_experts": 3, "expert": _placed(expert, subject.spec), "latent": latent}
            if subject.kind == "feedforward" and not _fits(subject, mixture):
                continue
            width = "" if latent is None else f" of width {latent}"
            yield f"in experts {name!r}{width}", stirred(subject.make(feedforward=mixture, n_layers=1)).double().eval()


def _fits(subject: Subject, feedforward: Mapping[str, Any]) -> bool:
    """Return whether a model with this feed-forward can be built: one of a fixed width cannot be a narrower expert."""
    try:
        subject.make(feedforward=feedforward, n_layers=1, device="meta")
    except ContractError:
        return False
    return True


def _placed(expert: Any, spec: Component) -> Any:
    """Return the spec of an expert with the component in its place."""
    if isinstance(expert, Mapping):
        return {name: _placed(value, spec) for name, value in expert.items()}
    return spec if expert is _COMPONENT else expert
