"""What the layers of a written model share: a module, keys and values, residual streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gptkit.ejection.hugging_face.entries import entries_of
from gptkit.kinds.context import LayerParts
from gptkit.kinds.written import NotWrittenError, Written

__all__ = ["kv_sources", "require_own_states", "require_streams", "shared_modules", "sources_text"]


def shared_modules(blocks: Sequence[Written]) -> dict[str, Written]:
    """Return the module that layers share, by its name in the model; empty if they share none.

    Raises:
        NotWrittenError: they share several.
    """
    result: dict[str, Written] = {}
    for name, module in (each for block in blocks for each in _shared(block)):
        if result.setdefault(name, module) != module or len(result) > 1:
            raise NotWrittenError(f"{name}: a file of plain PyTorch has one module that layers share", hint="Use one.")
    return result


def _shared(block: Written) -> Iterator[tuple[str, Written]]:
    yield from block.shared.items()
    for part in block.parts.values():
        yield from _shared(part)


def require_streams(blocks: Sequence[Written]) -> None:
    """Check that all blocks pass on the same number of residual streams.

    Raises:
        NotWrittenError: they do not.
    """
    if len({block.calls.get("streams") for block in blocks}) > 1:
        raise NotWrittenError(
            "blocks with several residual streams cannot be written out beside others",
            hint="Choose the same number of streams in all layers.",
        )


def kv_sources(layers: Sequence[LayerParts]) -> dict[int, list[int]]:
    """Return the layers that attend to the keys and values of another one, by the index of that one."""
    sources: dict[int, list[int]] = {}
    for parts in layers:
        source = parts.attention.kv_source(parts.index, layers)
        if source is not None:
            sources.setdefault(source, []).append(parts.index)
    return sources


def require_own_states(blocks: Sequence[Written], sources: Mapping[int, Sequence[int]]) -> None:
    """Check that layers with one dictionary, for the keys and values of one of them, keep no states in it.

    Raises:
        NotWrittenError: two of them do, so that each would overwrite the state of the other.
    """
    for source, layers in sources.items():
        stateful = [layer for layer in (source, *layers) if any(entry.state for entry in entries_of(blocks[layer]))]
        if len(stateful) > 1:
            raise NotWrittenError(
                f"layers {stateful[0]} and {stateful[1]} cannot be written out: they have one cache, for keys and values "
                f"of layer {source}, and each keeps a state in it",
                hint="Remove reuse_kv.",
            )


def sources_text(sources: Mapping[int, Sequence[int]]) -> str:
    """Return the statements that give each such layer the dictionary of the other."""
    by_layer = {layer: source for source, layers in sources.items() for layer in layers}
    whole = _range(sorted(by_layer))
    by_count = sorted(sources, key=lambda source: len(sources[source]))
    if len(sources) == 2 and whole.startswith("range"):
        condition = _periodic([by_layer[layer] == by_count[0] for layer in sorted(by_layer)], min(by_layer))
        if condition:
            chosen = f"{by_count[0]} if {condition} else {by_count[1]}"
            return f"for layer in {whole}:\n            self.layers[layer] = self.layers[{chosen}]"
    statement = "for layer in {}:\n            self.layers[layer] = self.layers[{}]"
    return "\n        ".join(statement.format(_range(layers), source) for source, layers in sources.items())


def _range(layers: Sequence[int]) -> str:
    """Return the expression of the numbers of layers, in ascending order."""
    if len(layers) > 1 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"range({layers[0]}, {layers[-1] + 1})"
    return str(list(layers))


def _periodic(truths: Sequence[bool], first: int) -> str:
    """Return the condition under which every so many layers, from `first` on, hold; empty if they do not repeat so."""
    places = [first + index for index, truth in enumerate(truths) if truth]
    if len(places) < 2:
        return ""
    period = places[1] - places[0]
    if truths != [(first + index) % period == places[0] % period for index in range(len(truths))]:
        return ""
    return f"layer % {period} == {places[0] % period}"
