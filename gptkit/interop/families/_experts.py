"""Mixtures of experts: what families have in common in how they name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gptkit.interop.families._common import keys, write_activation
from gptkit.interop.layouts import HALVES, Stack
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "INERT",
    "Rows",
    "dense",
    "expert_rules",
    "first_dense",
    "first_of",
    "read_sparse",
    "sparse",
    "write_experts",
    "write_sparse",
]

INERT = keys(
    "aux_loss_alpha ep_size input_jitter_noise output_router_logits pretraining_tp router_aux_loss_coef "
    "router_jitter_noise seq_aux router_z_loss_coef"
)
"""Keys that matter in training only, or for how many machines share the experts."""


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


def dense(expert: dict[str, Any], d_hidden: int) -> dict[str, Any]:
    """A feed-forward like an expert, of another width."""
    return {**expert, "d_hidden": d_hidden}


def sparse(n_experts: int, router: dict[str, Any], expert: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A feed-forward of experts."""
    return {"name": "experts", "n_experts": n_experts, "router": router, "expert": expert, **more}


def first_dense(n_dense: int, n_layers: int, feedforward: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the overrides of layers of which the first `n_dense` have a dense feed-forward."""
    return [{"feedforward": feedforward} if index < n_dense else {} for index in range(n_layers)]


def first_of(layers: Sequence[Any], name: str) -> Any:
    """The first layer's feed-forward with such a name; None where there is none."""
    return next((layer.feedforward for layer in layers if layer.feedforward.name == name), None)


def write_experts(layers: Sequence[Any], n_experts: str, d_hidden: str, activation: str = "hidden_act") -> dict[str, Any]:
    """The keys of every family: how many experts, how many of them a token sees, and how wide they are."""
    result = first_of(layers, "experts")
    return {
        n_experts: result.n_experts,
        "num_experts_per_tok": result.router.k,
        d_hidden: result.expert.d_hidden,
        activation: write_activation(result.expert.activation),
    }


def read_sparse(config: ExternalConfig, n_layers: int, n_dense: int = 0) -> list[bool]:
    """Return whether each layer has experts: `mlp_layer_types`, or all but the first `n_dense`."""
    kinds = config.items("mlp_layer_types", ["dense" if index < n_dense else "sparse" for index in range(n_layers)])
    if len(kinds) != n_layers or not set(kinds) <= {"dense", "sparse"}:
        config.refuse("mlp_layer_types", f"it should name dense or sparse for each of {n_layers} layers")
    return [kind == "sparse" for kind in kinds]


def write_sparse(layers: Sequence[Any]) -> dict[str, Any]:
    """`mlp_layer_types` of a model."""
    return {"mlp_layer_types": ["sparse" if layer.feedforward.name == "experts" else "dense" for layer in layers]}


def expert_rules(block: str, *, router: str = "gate", shared: str = "shared_expert") -> list[Rule]:
    """Where experts are, named as a gated feed-forward each, and what chooses them.

    Args:
        block: the name of the feed-forward: ``model.layers.*.mlp``.
        router: the router's name in it.
        shared: the shared expert's.
    """
    native = "blocks.*.feedforward"
    return [
        Rule(f"{native}.router.scores", f"{block}.{router}"),
        Rule(f"{native}.router.selection_bias", f"{block}.{router}.e_score_correction_bias"),
        Rule(f"{native}.experts.gate_up", f"{block}.experts.#.{{gate,up}}_proj", HALVES),
        Rule(f"{native}.experts.down", f"{block}.experts.#.down_proj"),
        Rule(f"{native}.shared.gate_up", f"{block}.{shared}.{{gate,up}}_proj", HALVES),
        Rule(f"{native}.shared.down", f"{block}.{shared}.down_proj"),
        Rule(f"{native}.shared_gate", f"{block}.{shared}_gate"),
    ]
