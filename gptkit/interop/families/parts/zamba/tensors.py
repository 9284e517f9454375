"""Tensors of Zamba and Zamba2: the branch of each group, adapters of each layer, and the layers' own parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gptkit.interop.families.parts.zamba.layers import branches, firsts
from gptkit.interop.layouts import HEADS, THIRDS
from gptkit.kinds.family import Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["adapter_rules", "layer_rules", "shared_rules"]


class OfBranch(Layout):
    """Queries, keys and values of the branch's attention."""

    def __init__(self, block: Any) -> None:
        self.layer = SimpleNamespace(attention=block.attention)

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return HEADS.join(parts, self.layer)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return HEADS.split(tensor, self.layer)


def shared_rules(model: Any, name: str, feedforward: Mapping[str, tuple[str, Layout | None]]) -> list[Rule]:
    """Return the rules of the branch of each group.

    Args:
        model: the model's spec.
        name: the name of its module in a layer; the first layer of a group has its weights.
        feedforward: external names and layouts of the feed-forward's projections, by the native names.
    """
    rules: list[Rule] = []
    for number, index in enumerate(sorted(firsts(model).values())):
        own, other = f"shared.shared-branch{f'-{number + 1}' if number else ''}", f"model.layers.{index}.{name}"
        rules += [
            Rule(f"{own}.attention_norm", f"{other}.input_layernorm"),
            Rule(f"{own}.attention.qkv", f"{other}.self_attn.{{q,k,v}}_proj", OfBranch(branches(model)[index])),
            Rule(f"{own}.attention.output", f"{other}.self_attn.o_proj"),
            Rule(f"{own}.feedforward_norm", f"{other}.pre_ff_layernorm"),
        ]
        for native, (external, layout) in feedforward.items():
            rules.append(Rule(f"{own}.feedforward.{native}", f"{other}.feed_forward.{external}", layout))
    return rules


def adapter_rules(model: Any, name: str) -> list[Rule]:
    """Return the rules of the adapters, which transformers has in the branch of each group, with the number of their use."""
    rules: list[Rule] = []
    first = firsts(model)
    for number, (index, block) in enumerate(branches(model).items()):
        own, other = f"blocks.{index}", f"model.layers.{first[block.group]}.{name}"
        attention = f"{other}.self_attn.linear_{{}}_adapter_list.{number}"
        fed = f"{other}.feed_forward.gate_up_proj_adapter_list.{number}"
        rules += [
            Rule(f"{own}.attention_adapter.down", attention.format("{q,k,v}") + ".0", THIRDS),
            *(Rule(f"{own}.attention_adapter.up.{at}", attention.format(each) + ".1") for at, each in enumerate("qkv")),
            Rule(f"{own}.feedforward_adapter.down", f"{fed}.0"),
            Rule(f"{own}.feedforward_adapter.up.0", f"{fed}.1"),
        ]
    return rules


def layer_rules(model: Any, tensors: Mapping[str, str], layouts: Mapping[str, Layout]) -> list[Rule]:
    """Return the rules of the layers' own parts, and of embedding and head, for names and layouts of the recurrence."""
    rules: list[Rule] = []
    for index in range(model.n_layers):
        own, layer = f"blocks.{index}", f"model.layers.{index}"
        inner = f"{layer}.mamba_decoder" if index in branches(model) else layer
        rules += [Rule(f"{own}.output", f"{layer}.linear"), Rule(f"{own}.attention_norm", f"{inner}.input_layernorm")]
        rules += [Rule(f"{own}.attention.{key}", f"{inner}.mamba.{name}", layouts.get(key)) for key, name in tensors.items()]
    named = {"embedding.table": "model.embed_tokens", "final_norm": "model.final_layernorm", "head": "lm_head"}
    return [*rules, *(Rule(own, name) for own, name in named.items())]
