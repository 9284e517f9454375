"""Merge of adapters into the weights of a model's projections."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.walk import Path, map_components
from gptkit.kinds.linear import LinearSpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.freezing import adapted_modules, adapter_names

__all__ = ["has_adapters", "merged_model", "merged_spec", "merged_weights"]


def merged_spec(spec: ModelSpec) -> ModelSpec:
    """Return the spec of the model with merged adapters."""

    def change(path: Path, component: Component) -> Component:
        return component.merged() if isinstance(component, LinearSpec) else component

    return map_components(spec, change)


def has_adapters(spec: ModelSpec) -> bool:
    """Return whether a projection of the model has adapters."""
    return any(isinstance(component, LinearSpec) and component.merged() != component for component in spec.components())


@torch.no_grad()
def merged_weights(model: GPT) -> Mapping[str, Tensor]:
    """Return the merged weights of projections with adapters, by their names in the model."""
    return {f"{name}.weight": module.transformed_weight() for name, module in adapted_modules(model)}


@torch.no_grad()
def merged_model(model: GPT) -> GPT:
    """Return the model with its adapters merged into the weights; it computes the same logits.

    Args:
        model: a model with adapters, which is not changed. Other tensors are shared with the result.

    Raises:
        GptkitError: the merged projections have other parameters than the dense ones.
    """
    merged = GPT(merged_spec(model.spec), model.vocab_size, seed=None, device=model.device)
    replaced, adapters = merged_weights(model), adapter_names(model)
    # By identity, so that tied tensors stay tied.
    values: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in adapters:
            value = replaced.get(name, tensor).detach()
            state[name] = values.setdefault(id(tensor), nn.Parameter(value) if isinstance(tensor, nn.Parameter) else value)
    try:
        merged.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise GptkitError(f"the adapters cannot be merged: {error}") from error
    return merged.train(model.training)
