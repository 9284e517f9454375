"""The layers of a model as its code for transformers has them: their form, their kind of cache, and the sizes of heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gptkit.ejection.hugging_face.batched import batched, mapped
from gptkit.ejection.hugging_face.interface import through_interface, with_separate_gate
from gptkit.kinds.written import NotWrittenError, Setting, Written, walk

__all__ = ["Layers", "layers_of"]


@dataclass(frozen=True)
class Layers:
    """The blocks of a model.

    Attributes:
        blocks: the blocks, as their code is written.
        interface: whether all attentions call transformers' attention functions.
        entries: the entries of the cache, in the order of their use: whether each is a recurrent state, and its window.
        attentions: the attention of each layer, as it was before the changes; None for a layer without one.
    """

    blocks: list[Written]
    interface: bool
    entries: tuple[tuple[bool, int | None], ...]
    attentions: list[Written | None]

    @property
    def recurrent(self) -> list[bool]:
        """Whether each entry of the cache is a recurrent state."""
        return [recurrent for recurrent, _ in self.entries]

    @property
    def attending(self) -> list[Written]:
        """The attentions, without the layers that have none."""
        return [attention for attention in self.attentions if attention is not None]

    @property
    def counts_entries(self) -> bool:
        """Whether a layer has another number of entries in the cache than one."""
        return self.has_parts or len(self.recurrent) != len(self.attentions) or None in self.attentions

    @property
    def has_parts(self) -> bool:
        """Whether a layer calls attention several times, or in one of several branches."""
        parts = (part for block in self.blocks for part in walk(block) if part.name != "Context")
        return any(".part(" in part.text for part in parts)

    @property
    def reads_ids(self) -> bool:
        """Whether a copied module of a layer reads the ids of tokens."""
        parts = (part for block in self.blocks for part in walk(block))
        return any(".ids_BT" in part.text for part in parts if part.copied and part.name != "Context")

    @property
    def counted(self) -> bool:
        """Whether no layer keeps keys, by which transformers counts the tokens in a cache."""
        return all(self.recurrent)

    @property
    def bare(self) -> bool:
        """Whether a layer has a recurrent state without a convolution."""
        return any('cache["state"]' in each.text and "convolved" not in each.parts for each in self.attending)

    @property
    def windows(self) -> list[int | None]:
        """The attention window of each layer with attention."""
        return [setting(attention, "WINDOW") for attention in self.attending]

    @property
    def types(self) -> list[str]:
        """The `layer_types` of the configuration, from which transformers makes a cache."""
        if self.interface:
            return ["full_attention" if window is None else "sliding_attention" for _, window in self.entries]
        types = ["linear_attention" if recurrent else "full_attention" for recurrent in self.recurrent]
        return ["hybrid", *types[1:]] if self.counted else types

    def heads(self, index: int) -> tuple[int, int, int] | None:
        """Return a layer's numbers of heads of queries and of keys, and the features of a head."""
        attention = self.attentions[index]
        if attention is None:
            return None
        n_heads, d_head = setting(attention, "N_HEADS"), setting(attention, "D_HEAD")
        if not isinstance(n_heads, int) or not isinstance(d_head, int):
            return None
        return n_heads, setting(attention, "N_KV_HEADS") or n_heads, d_head


def layers_of(blocks: Sequence[Written], *, packed: bool = False) -> Layers:
    """Return the layers of written blocks.

    Args:
        packed: whether projections have to remain packed.

    Raises:
        NotWrittenError: a layer cannot be written for transformers.
    """
    attentions = [_attention(block) for block in blocks]
    attending = [attention for attention in attentions if attention is not None]
    if not attending:
        raise NotWrittenError(
            "a model without attention cannot be written for transformers, whose cache counts tokens by their keys",
            hint="Add a layer with attention.",
        )
    for part in (part for block in blocks for part in walk(block)):
        if "state" in part.calls:
            raise NotWrittenError(
                f"{part.section} {part.name} cannot be written for transformers: it keeps a state of its own; the caches "
                "of transformers keep keys and values, or the states of the recurrences that have a template",
                hint="Choose another component, or define a template (docs/generated-code.md).",
            )
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
    windows = {setting(attention, "WINDOW") for attention in attending} - {None}
    interface = len(windows) <= 1 and all(through_interface(attention) is not None for attention in attending)
    # Copied feed-forwards keep their projections packed.
    parts = (part for block in blocks for part in walk(block) if part.copied)
    interface = interface and not packed and not any("self.gate_up =" in part.text for part in parts)

    def change(part: Written) -> Written:
        if interface:
            part = with_separate_gate(through_interface(part) or part)
        return batched(part)

    done: dict[int, Written] = {}
    return Layers(
        [mapped(block, change, done) for block in blocks],
        interface,
        tuple(entry for block in blocks for entry in _entries(block)),
        attentions,
    )


def setting(written: Written, name: str) -> Any:
    """Return the value of a setting; None without it."""
    return written.settings.get(name, Setting(None)).value


def _entries(part: Written) -> list[tuple[bool, int | None]]:
    """Return the entries of a block in the cache, in the order of their use."""
    if part.section == "attention" and part.text.startswith("class "):
        if "convolved" in part.parts or 'cache["state"]' in part.text:
            return [(True, None)]
        # An indexer has keys of its own.
        return [(False, setting(part, "WINDOW"))] * (1 + sum('"index_keys"' in inner.text for inner in walk(part)))
    result: list[tuple[bool, int | None]] = []
    for name, inner in part.parts.items():
        entries = _entries(inner)
        times = int(part.calls.get(f"times {name}", 1))
        if entries and times == 0:
            raise NotWrittenError(
                f"block {part.name} cannot be written for transformers, whose cache has a fixed number of entries: how "
                f"often it calls {name!r} is not known",
                hint="Choose another block.",
            )
        result += entries * times
    return result


def _attention(block: Written) -> Written | None:
    attentions = list(_attentions(block))
    if not attentions:
        return None
    if len(attentions) != 1 or "cache" not in attentions[0].text:
        raise NotWrittenError(
            f"block {block.name} cannot be written for transformers: it has several attentions",
            hint="Choose a block with one attention.",
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
