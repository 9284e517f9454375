"""The layers of a model as its code for transformers has them: their form, their kind of cache, and the sizes of heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gptkit.ejection.hugging_face.batched import batched, mapped
from gptkit.ejection.hugging_face.interface import through_interface, with_separate_gate
from gptkit.kinds.written import NotWrittenError, Setting, Written

__all__ = ["Layers", "layers_of"]


@dataclass(frozen=True)
class Layers:
    """The blocks of a model.

    Attributes:
        blocks: the blocks, as their code is written.
        interface: whether all attentions call transformers' attention functions.
        recurrent: the layers with a recurrent state.
        attentions: the attention of each layer, as it was before the changes.
    """

    blocks: list[Written]
    interface: bool
    recurrent: tuple[bool, ...]
    attentions: list[Written]

    @property
    def counted(self) -> bool:
        """Whether no layer keeps keys, by which transformers counts the tokens in a cache."""
        return all(self.recurrent)

    @property
    def bare(self) -> bool:
        """Whether a layer has a recurrent state without a convolution."""
        return any('cache["state"]' in each.text and "convolved" not in each.parts for each in self.attentions)

    @property
    def windows(self) -> list[int | None]:
        """The attention window of each layer."""
        return [setting(attention, "WINDOW") for attention in self.attentions]

    @property
    def types(self) -> list[str]:
        """The `layer_types` of the configuration, from which transformers makes a cache."""
        if self.interface:
            return ["full_attention" if window is None else "sliding_attention" for window in self.windows]
        types = ["linear_attention" if recurrent else "full_attention" for recurrent in self.recurrent]
        return ["hybrid", *types[1:]] if self.counted else types

    def heads(self, index: int) -> tuple[int, int, int] | None:
        """Return a layer's numbers of heads of queries and of keys, and the features of a head."""
        attention = self.attentions[index]
        n_heads, d_head = setting(attention, "N_HEADS"), setting(attention, "D_HEAD")
        if not isinstance(n_heads, int) or not isinstance(d_head, int):
            return None
        return n_heads, setting(attention, "N_KV_HEADS") or n_heads, d_head


def layers_of(blocks: Sequence[Written]) -> Layers:
    """Return the layers of written blocks.

    Raises:
        NotWrittenError: a layer cannot be written for transformers.
    """
    attentions = [_attention(block) for block in blocks]
    for part in (part for block in blocks for part in walk(block)):
        if "recompute" in part.calls:
            raise NotWrittenError(
                "rotary frequencies that depend on the length of the text cannot be written for transformers, whose cache "
                "keeps keys that were rotated before",
                hint="Choose another scaling, or export a model of a family that has this one.",
            )
        reuses = 'cache["keys"], cache["values"]' in part.text
        if part.shared or reuses or "streams" in part.calls:
            what = "keys and values" if reuses else "modules or residual streams"
            raise NotWrittenError(
                f"{what} that several layers share cannot be written for transformers",
                hint="Export a model that a family expresses, or write a file of plain PyTorch with gptkit eject.",
            )
    windows = {setting(attention, "WINDOW") for attention in attentions} - {None}
    interface = len(windows) <= 1 and all(through_interface(attention) is not None for attention in attentions)

    def change(part: Written) -> Written:
        if interface:
            part = with_separate_gate(through_interface(part) or part)
        return batched(part)

    done: dict[int, Written] = {}
    return Layers(
        [mapped(block, change, done) for block in blocks],
        interface,
        tuple("convolved" in attention.parts or 'cache["state"]' in attention.text for attention in attentions),
        attentions,
    )


def walk(written: Written) -> Iterator[Written]:
    """Yield a component and all its parts."""
    yield written
    for part in written.parts.values():
        yield from walk(part)


def setting(written: Written, name: str) -> Any:
    """Return the value of a setting; None without it."""
    return written.settings.get(name, Setting(None)).value


def _attention(block: Written) -> Written:
    attentions = list(_attentions(block))
    if len(attentions) != 1 or "cache" not in attentions[0].text:
        raise NotWrittenError(
            f"block {block.name} cannot be written for transformers, whose cache requires one attention in each layer",
            hint="Choose a block with attention and feed-forward, or a model that a family expresses.",
        )
    if any('cache["state"]' in part.text for each in attentions[0].parts.values() for part in walk(each)):
        raise NotWrittenError(
            f"{attentions[0].section} {attentions[0].name} cannot be written for transformers, whose cache has keys or a "
            "recurrent state in a layer, not both",
            hint="Choose one attention for each layer, or a model that a family expresses.",
        )
    return attentions[0]


def _attentions(written: Written) -> Iterator[Written]:
    """Yield the attentions in a component; classes that an attention consists of are none."""
    if written.section == "attention" and written.text.startswith("class "):
        yield written
        return
    for part in written.parts.values():
        yield from _attentions(part)
