"""The layers of a model as its code for transformers has them: their form, their kind of cache, and the sizes of heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gptkit.ejection.groups import IDS
from gptkit.ejection.hugging_face.batched import batched, mapped
from gptkit.ejection.hugging_face.entries import Entry, entries_of, has_bare_states, keeps_own_state, setting
from gptkit.ejection.hugging_face.interface import through_interface, with_separate_gate
from gptkit.kinds.written import NotWrittenError, Written, walk

__all__ = ["Layers", "layers_of"]


@dataclass(frozen=True)
class Layers:
    """The blocks of a model.

    Attributes:
        blocks: the blocks, as their code is written.
        interface: whether all attentions call transformers' attention functions.
        entries: the entries of each layer in the cache, in the order of their use.
        embedding_entries: those of the embedding, which precede them.
        bare: whether something has a state without a convolution.
        own: whether something keeps a state under a name of its own.
        has_parts: whether a component calls another one several times, or beside others.
        attentions: the attention of each layer, as it was before the changes; None for a layer without one.
        sources: the layers whose keys and values another layer attends to, by the index of that one.
        shared: modules of the model that several layers share, by name.
    """

    blocks: list[Written]
    interface: bool
    entries: tuple[tuple[Entry, ...], ...]
    embedding_entries: tuple[Entry, ...]
    bare: bool
    own: bool
    has_parts: bool
    attentions: list[Written | None]
    sources: Mapping[int, int]
    shared: Mapping[str, Written]

    @property
    def all_entries(self) -> list[Entry]:
        """The entries of the cache, in the order of their use."""
        return [*self.embedding_entries, *(entry for entries in self.entries for entry in entries)]

    @property
    def recurrent(self) -> bool:
        """Whether an entry of the cache has a state of fixed size."""
        return any(entry.state for entry in self.all_entries)

    @property
    def attending(self) -> list[Written]:
        """The attentions, without the layers that have none."""
        return [attention for attention in self.attentions if attention is not None]

    @property
    def counts_entries(self) -> bool:
        """Whether a layer has another number of entries in the cache than one, or the embedding has one."""
        others = self.has_parts or self.own or bool(self.embedding_entries)
        return others or any(len(entries) != 1 for entries in self.entries)

    @property
    def reads_ids(self) -> bool:
        """Whether a module of a layer reads the ids of tokens."""
        parts = [part for block in self.blocks for part in walk(block) if part.name != "Context"]
        copied = any(".ids_BT" in part.text for part in parts if part.copied)
        return bool(self.shared) or copied or any(IDS in part.text for part in parts)

    @property
    def counted(self) -> bool:
        """Whether no entry has keys, by which transformers counts the tokens in a cache."""
        return not any(entry.keys for entry in self.all_entries)

    @property
    def windows(self) -> list[int | None]:
        """The attention window of each layer with attention."""
        return [setting(attention, "WINDOW") for attention in self.attending]

    @property
    def types(self) -> list[str]:
        """The `layer_types` of the configuration, from which transformers makes a cache."""
        if self.interface:
            return ["full_attention" if entry.window is None else "sliding_attention" for entry in self.all_entries]
        types = [entry.layer_type for entry in self.all_entries]
        # Without keys, tokens are counted by the first entry.
        return types if not self.counted else ["hybrid", *types[1:]] if types else ["full_attention"]

    def heads(self, index: int) -> tuple[int, int, int] | None:
        """Return a layer's numbers of heads of queries and of keys, and the features of a head."""
        attention = self.attentions[index]
        if attention is None:
            return None
        attention = attention.parts.get("attention", attention)  # of a hybrid layer
        n_heads, d_head = setting(attention, "N_HEADS"), setting(attention, "D_HEAD")
        if not isinstance(n_heads, int) or not isinstance(d_head, int):
            return None
        return n_heads, setting(attention, "N_KV_HEADS") or n_heads, d_head


def layers_of(
    blocks: Sequence[Written],
    embedding: Written,
    *,
    sources: Mapping[int, Sequence[int]],
    shared: Mapping[str, Written],
    packed: bool = False,
) -> Layers:
    """Return the layers of written blocks.

    Args:
        embedding: the embedding, which may keep a state.
        sources: the layers that attend to the keys and values of another one, by the index of that one.
        shared: modules of the model that layers share, by name.
        packed: whether projections have to remain packed.

    Raises:
        NotWrittenError: a layer cannot be written for transformers.
    """
    for part in (part for root in (embedding, *blocks) for part in walk(root)):
        if "states" in part.calls:
            raise NotWrittenError(
                f"{part.name} cannot be written for transformers: a module keeps several states of earlier tokens, and a "
                "layer of its caches has either keys and values or a state of fixed size",
                hint="Choose another component, or write one file of PyTorch (gptkit eject).",
            )
        if part.owned_as:
            raise NotWrittenError(
                f"{part.owned_as!r} cannot be written for transformers: its code has no modules that layers share, each "
                "with entries of its own in the cache",
                hint="Choose another block, write one file of PyTorch (gptkit eject), or use options that a family has.",
            )
        if "recompute" in part.calls:
            raise NotWrittenError(
                "rotary frequencies that depend on the length of the text cannot be written for transformers, whose cache "
                "keeps keys that were rotated before",
                hint="Choose another scaling, or export a model of a family that has this one.",
            )
    attentions = [_attention(block) for block in blocks]
    attending = [attention for attention in attentions if attention is not None]
    roots = [embedding, *blocks]
    entries = [tuple(entries_of(root)) for root in roots]
    stateful = any(entry.state for each in entries for entry in each)
    windows = {setting(attention, "WINDOW") for attention in attending} - {None}
    interface = bool(attending) and not stateful and len(windows) <= 1
    interface = interface and all(through_interface(attention) is not None for attention in attending)
    # Copied feed-forwards keep their projections packed.
    parts = (part for block in blocks for part in walk(block) if part.copied)
    interface = interface and not packed and not any("self.gate_up =" in part.text for part in parts)

    def change(part: Written) -> Written:
        if interface:
            part = with_separate_gate(through_interface(part) or part)
        return batched(part)

    done: dict[int, Written] = {}
    return Layers(
        blocks=[mapped(block, change, done) for block in blocks],
        interface=interface,
        entries=tuple(entries[1:]),
        embedding_entries=entries[0],
        bare=any(has_bare_states(root) for root in roots),
        own=any(keeps_own_state(root) for root in roots),
        has_parts=_calls_parts(roots),
        attentions=attentions,
        sources={layer: source for source, layers in sources.items() for layer in layers},
        shared={name: mapped(module, batched, done) for name, module in shared.items()},
    )


def _calls_parts(roots: Sequence[Written]) -> bool:
    """Return whether a component calls another one several times, or beside others, each time with entries of its own."""
    parts = (part for root in roots for part in walk(root) if part.name != "Context")
    return any(".part(" in part.text for part in parts)


def _attention(block: Written) -> Written | None:
    attentions = list(_attentions(block))
    if not attentions:
        return None
    if len(attentions) != 1 or "cache" not in attentions[0].text:
        raise NotWrittenError(
            f"block {block.name} cannot be written for transformers: it has several attentions",
            hint="Choose a block with one attention.",
        )
    return attentions[0]


def _attentions(written: Written) -> Iterator[Written]:
    """Yield the attentions in a component; classes that an attention consists of are none."""
    if written.section == "attention" and written.text.startswith("class "):
        yield written
        return
    for part in written.parts.values():
        yield from _attentions(part)
