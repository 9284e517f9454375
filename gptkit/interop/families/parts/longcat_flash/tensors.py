"""Tensors of LongCat-Flash: those of parts that occur twice in a layer, and of experts, also of those without weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gptkit.interop.layouts import HALVES
from gptkit.kinds.family import Constant, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULES", "constants", "skipped", "twice"]

_EXPERTS = "model.layers.*.mlp"
RULES = (
    Rule("blocks.*.experts.router.scores", f"{_EXPERTS}.router.classifier"),
    Rule("blocks.*.experts.router.selection_bias", f"{_EXPERTS}.router.e_score_correction_bias"),
    Rule("blocks.*.experts.experts.gate_up", f"{_EXPERTS}.experts.#.{{gate,up}}_proj", HALVES),
    Rule("blocks.*.experts.experts.down", f"{_EXPERTS}.experts.#.down_proj"),
)


def twice(rules: Sequence[Rule]) -> Iterator[Rule]:
    """Yield the rules of parts that occur twice in a layer for both, and other rules as they are."""
    layer = "model.layers.*."
    for rule in rules:
        if not rule.native.startswith("blocks.*."):
            yield rule
            continue
        for index in range(2):
            native = re.sub(r"^(blocks\.\*\.\w+)", rf"\1.{index}", rule.native)
            external = re.sub(rf"^({re.escape(layer)}\w+)", rf"\1.{index}", rule.external)
            yield Rule(native, external, rule.layout)


def skipped(model: Any) -> list[str]:
    """Return patterns of the tensors of `constants`."""
    experts = "|".join(map(str, _identities(model)))
    return [rf"model\.layers\.\d+\.mlp\.experts\.({experts})\.(gate|up)_proj\.weight"] if experts else []


def constants(model: Any) -> Mapping[str, Constant]:
    """Return zeros for the projections of experts that return their input: transformers expects them, but reads none."""
    result = {}
    for index, layer in enumerate(model.layer_specs()):
        shape = (layer.block.experts.expert.d_hidden, model.d_model)
        for expert in _identities(model):
            for name in ("gate", "up"):
                key = f"model.layers.{index}.mlp.experts.{expert}.{name}_proj.weight"
                result[key] = Constant(shape, partial(_zeros, shape))
    return result


def _identities(model: Any) -> range:
    experts = model.layer_specs()[0].block.experts
    return range(experts.n_experts, experts.n_experts + experts.identity_experts)


def _zeros(shape: tuple[int, ...]) -> Tensor:
    import torch

    return torch.zeros(shape)
