"""Tensors of Qwen 4 Exp."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gptkit.kinds.family import Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["rules", "within_engrams"]

_GATES = {"down": "input_mix_weight_down", "up": "input_mix_weight_up", "write": "block_inject_weight"}
_INDEXER = {"qk": "index_qk_proj", "query_norm": "q_layernorm", "key_norm": "k_layernorm"}
_ENGRAM = {"key": "key_proj", "value": "value_proj", "conv": "conv1d", "tables.table": "ple_embedding.ngram_embedding"}
_BUFFERS = {"multipliers": "layer_multipliers", "sizes": "ngram_heads_vocab_sizes", "offsets": "ngram_heads_offsets"}
_NORMS = {"key_norm": "norm_key", "query_norm": "norm_query", "value_norm": "norm_conv"}


class OneVector(Layout):
    """Weights of a norm of each residual stream, stored one after another."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        block = layer.block.block if layer.block.name == "engram" else layer.block
        return parts[0].reshape(block.streams, -1)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor.flatten()]


def rules(model: Any) -> Iterator[Rule]:
    """Yield the rules of the streams, the indexer, and the embeddings of n-grams."""
    flat, layer = OneVector(), "model.layers.*"
    last = model.n_layers - 1
    gates = [(f"blocks.*.{part}_gates", f"{layer}.{name}_hyper_connection") for part, name in _BRANCHES.items()]
    gates.append((f"blocks.{last}.collapse", "model.hyper_connection_mixer"))
    for own, external in gates:
        yield Rule(f"{own}.norm", f"{external}.hc_norm", flat)
        yield from (Rule(f"{own}.{part}", f"{external}.{name}") for part, name in _GATES.items())
    for part, name in _INDEXER.items():
        yield Rule(f"blocks.*.attention.indexer.{part}", f"{layer}.self_attn.indexer.{name}")
    for part, name in {**_ENGRAM, **{f"tables.{own}": f"ple_embedding.{each}" for own, each in _BUFFERS.items()}}.items():
        yield Rule(f"blocks.*.engram.{part}", f"{layer}.ple.{name}")
    for part, name in _NORMS.items():
        yield Rule(f"blocks.*.engram.{part}", f"{layer}.ple.{name}", flat)


_BRANCHES = {"attention": "attn", "feedforward": "mlp"}


def within_engrams(rules: Sequence[Rule]) -> list[Rule]:
    """Return rules, and the same ones of layers in which the block is within another one."""
    inner = [
        Rule(re.sub(r"^blocks\.([*\d]+)\.", r"blocks.\1.block.", rule.native), rule.external, rule.layout)
        for rule in rules
        if rule.native.startswith("blocks.")
    ]
    return [*rules, *inner]
