"""The entries that a model has in the cache of transformers, in the order in which its code uses them.

An entry keeps the keys and values of an attention, the state of a recurrence, or both. What a component keeps under another
name is an entry of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gptkit.kinds.written import NotWrittenError, Setting, Written, walk

__all__ = ["Entry", "entries_of", "has_bare_states", "keeps_own_state", "setting"]

_REUSED = 'cache["keys"], cache["values"]'
"""What a template reads that attends to the keys and values of an earlier layer."""

_KEYS, _STATES = ("keys", "values", "latents"), ("state", "inputs")
_PASSED = ("layer_input", "chosen")
"""Names under which the model passes values to a layer, which are not kept."""
_USE = re.compile(r'\bcache(?:\.get\(|\[)"(\w+)"|\$?\bappend_to\(cache, "(\w+)"|(?:\bself\.|\$)(\w+)\(')
_STATE_OF_COPY = ".state(self"


@dataclass(frozen=True)
class Entry:
    """An entry of the cache.

    Attributes:
        keys: whether it has keys and values.
        state: whether it has a state of fixed size.
        window: the attention window of its layer.
    """

    keys: bool
    state: bool
    window: int | None = None

    @property
    def layer_type(self) -> str:
        """The word for it in the `layer_types` of the configuration."""
        if not self.state:
            return "full_attention"
        return "hybrid" if self.keys else "linear_attention"


def entries_of(part: Written) -> list[Entry]:
    """Return the entries of a component, in the order of their use.

    Raises:
        NotWrittenError: their number is not known.
    """
    if part.section == "attention" and part.text.startswith("class "):
        return _entries_of_attention(part)
    used: list[tuple[int, list[Entry]]] = []
    for name, inner in part.parts.items():
        entries = entries_of(inner)
        times = int(part.calls.get(f"times {name}", 1))
        if entries and times == 0:
            raise NotWrittenError(
                f"block {part.name} cannot be written for transformers, whose cache has a fixed number of entries: how "
                f"often it calls {name!r} is not known",
                hint="Choose another block.",
            )
        used.append((_place(part.text, name), entries * times))
    for name in dict.fromkeys(_own_names(part)):
        used.append((max(part.text.find(f'"{name}"'), part.text.find(_STATE_OF_COPY)), [Entry(keys=False, state=True)]))
    return [entry for _, entries in sorted(used, key=lambda each: each[0]) for entry in entries]


def keeps_own_state(part: Written) -> bool:
    """Return whether a component, or a part of it, keeps something under a name of its own."""
    return any(True for each in walk(part) for _ in _own_names(each))


def has_bare_states(part: Written) -> bool:
    """Return whether a component has a state that is not beside the inputs of a convolution in one entry."""
    texts = [each.text for each in walk(part)]
    recurrent = any('cache["state"]' in text for text in texts)
    return keeps_own_state(part) or (recurrent and not any('cache["inputs"]' in text for text in texts))


def setting(written: Written, name: str) -> Any:
    """Return the value of a setting; None without it."""
    return written.settings.get(name, Setting(None)).value


def _entries_of_attention(part: Written) -> list[Entry]:
    names = list(_names(part))
    entries: dict[str, Entry] = {}
    for name in names:
        if name in _KEYS + _STATES:
            keys, state = any(each in names for each in _KEYS), any(each in names for each in _STATES)
            entries["layer"] = Entry(keys, state, setting(part, "WINDOW"))
        else:
            # An indexer has keys of its own.
            entries[name] = Entry(keys=name == "index_keys", state=name != "index_keys")
    return list(entries.values())


def _names(part: Written) -> Iterator[str]:
    """Yield the names under which an attention keeps something, in the order of their use."""
    yield from _own_names(part, named=False)
    if part.copied and "state" not in part.calls and _STATE_OF_COPY in part.text:
        yield "keys"
    for match in _USE.finditer(part.text.replace(_REUSED, "")):
        if name := match[1] or match[2]:
            yield from () if name in _PASSED else (name,)
        elif match[3] in part.parts:
            yield from _names(part.parts[match[3]])


def _own_names(part: Written, *, named: bool = True) -> Iterator[str]:
    """Yield the names of what is neither keys and values nor the state of a recurrence.

    Args:
        named: whether to yield the names in a template, and not only those of the states of a copied module.
    """
    yield from (f"{part.name}{index}" for index in range(int(part.calls.get("state", 0))))
    if named:
        for match in _USE.finditer(part.text.replace(_REUSED, "")):
            if match[1] and match[1] not in (*_KEYS, *_STATES, *_PASSED):
                yield match[1]


def _place(text: str, part: str) -> int:
    """Return where a text first calls a part; its end if it does not."""
    places = [place for call in (f"self.{part}(", f"${part}(") if (place := text.find(call)) >= 0]
    return min(places, default=len(text))
