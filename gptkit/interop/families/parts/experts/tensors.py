"""Tensors of experts: their names, and how they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gptkit.interop.layouts import HALVES, Stack
from gptkit.kinds.family import Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Rows", "expert_rules", "mixtral_rules"]

_NATIVE = "blocks.*.feedforward"


class Rows(Layout):
    """Stacks of all experts, stored as one matrix each with the experts' rows one after the other.

    Each expert's matrix has the layout given.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = Stack(layout)

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return self.layout.join([part.view(layer.feedforward.n_experts, -1, part.shape[-1]) for part in parts], layer)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [part.flatten(0, 1) for part in self.layout.split(tensor, layer)]


def expert_rules(block: str, *, router: str = "gate", shared: str = "shared_expert") -> list[Rule]:
    """Where experts are, named as a gated feed-forward each, and what chooses them.

    Args:
        block: the name of the feed-forward: ``model.layers.*.mlp``.
        router: the router's name in it.
        shared: the shared expert's.
    """
    return [
        Rule(f"{_NATIVE}.router.scores", f"{block}.{router}"),
        Rule(f"{_NATIVE}.router.selection_bias", f"{block}.{router}.e_score_correction_bias"),
        Rule(f"{_NATIVE}.experts.gate_up", f"{block}.experts.#.{{gate,up}}_proj", HALVES),
        Rule(f"{_NATIVE}.experts.down", f"{block}.experts.#.down_proj"),
        Rule(f"{_NATIVE}.shared.gate_up", f"{block}.{shared}.{{gate,up}}_proj", HALVES),
        Rule(f"{_NATIVE}.shared.down", f"{block}.{shared}.down_proj"),
        Rule(f"{_NATIVE}.shared_gate", f"{block}.{shared}_gate"),
    ]


def mixtral_rules(block: str, *, bias: str = "e_score_correction_bias") -> list[Rule]:
    """Where experts are, named as in Mixtral, and what chooses them.

    Args:
        block: the name of the feed-forward: ``model.layers.*.block_sparse_moe``.
        bias: the name in it of the bias that only selects.
    """
    return [
        Rule(f"{_NATIVE}.router.scores", f"{block}.gate"),
        Rule(f"{_NATIVE}.router.selection_bias", f"{block}.{bias}"),
        Rule(f"{_NATIVE}.experts.gate_up", f"{block}.experts.#.{{w1,w3}}", HALVES),
        Rule(f"{_NATIVE}.experts.down", f"{block}.experts.#.w2"),
    ]
