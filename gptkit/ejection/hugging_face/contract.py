"""The contract of vLLM's Transformers backend, and whether a model's code meets it.

The backend calls the base model with the tokens of all texts in one row, replaces the attention function, divides linear
layers as the plan says, and computes logits itself (docs.vllm.ai, "Writing custom models").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gptkit.ejection.hugging_face.head import Head
from gptkit.ejection.hugging_face.layers import Layers
from gptkit.kinds.written import walk

__all__ = ["Contract", "contract_of"]

_LINEAR = "nn.Linear("


@dataclass(frozen=True)
class Contract:
    """Whether a model meets the contract.

    Attributes:
        unmet: the reason why it does not; empty if it does.
        undivided: the reason why it has no plan of tensor parallelism, so that it runs on one device; empty if it has one.
        plan: the plan: how each linear layer of the base model is divided.
    """

    unmet: str = ""
    undivided: str = ""
    plan: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """What the export's report says."""
        name = "the contract of vLLM's Transformers backend"
        if self.unmet:
            return f"the code does not meet {name}: {self.unmet}"
        if self.undivided:
            return f"the code meets {name} on one device, without tensor parallelism: {self.undivided}"
        return f"the code meets {name}, with tensor parallelism"


def contract_of(layers: Layers, head: Head) -> Contract:
    """Return whether a model meets the contract."""
    unmet = _unmet(layers, head)
    if unmet:
        return Contract(unmet)
    copied = [
        part.name
        for block in layers.blocks
        for part in walk(block)
        if part.copied and part.section in ("attention", "feedforward", "block") and part.text.startswith("class ")
    ]
    if copied:
        return Contract(undivided=f"{copied[0]} is a copy of a component's own source")
    plan: dict[str, str] = {}
    for block in layers.blocks:
        for name, part in block.parts.items():
            if part.section not in ("attention", "feedforward"):
                continue
            divided = {
                **dict.fromkeys(("q", "k", "v", "gate", "head_gate", "up"), "colwise"),
                **dict.fromkeys(("output", "down"), "rowwise"),
            }
            plans = {each: how for each, how in divided.items() if f"self.{each} = {_LINEAR}" in part.text}
            if "rowwise" not in plans.values() or "colwise" not in plans.values():
                return Contract(undivided=f"{part.name} has no linear layers that can be divided by rows and columns")
            if "over all heads" in part.text or any("norm_of_a_head" in each.text for each in part.parts.values()):
                return Contract(undivided="the norm of queries and keys has weights for all heads")
            if "self.gate_bias" in part.text:
                return Contract(undivided="the bias of the gates has a number for each head")
            if "self.output_norm" in part.text and part.section == "attention":
                return Contract(undivided="the norm of the heads' outputs needs all of them")
            if "over all hidden features" in part.text:
                return Contract(undivided="the norm of the hidden features needs all of them")
            plan |= {f"blocks.*.{name}.{each}": how for each, how in plans.items()}
    return Contract(plan=plan)


def _unmet(layers: Layers, head: Head) -> str:
    windows = {window for window in layers.windows if window is not None}
    if len(windows) > 1:
        return f"layers have several attention windows ({', '.join(map(str, sorted(windows)))}), and it supports one"
    if layers.counts_entries:
        return "layers have none or several entries in the cache"
    if layers.recurrent:
        return "layers with a recurrent state do not call an attention function"
    if not layers.interface:
        return "scores have terms, bounds or masks that an attention function does not take"
    heads = {layers.heads(index) for index, attention in enumerate(layers.attentions) if attention is not None}
    if len(heads) > 1:
        return "layers have different numbers or sizes of heads"
    if any(".nonzero(" in part.text for block in layers.blocks for part in walk(block)):
        return "each expert receives a number of tokens that depends on the data"
    if layers.reads_ids:
        return "layers read token ids, which it does not pass"
    if head.d_head is not None:
        return "the head projects to the width of the table first"
    if head.bounded and head.softcap is None:
        return "the soft bound of the logits is not softcap · tanh(logits / softcap)"
    if head.scale != 1 and head.softcap is not None:
        return "logits are scaled before their soft bound, and it scales them after it"
    return ""
