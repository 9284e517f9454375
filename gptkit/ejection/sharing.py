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
    statement = "for layer in {}:\n            self.layers[layer] = self.layers[{}]"
    return "\n        ".join(statement.format(list(layers), source) for source, layers in sources.items())
