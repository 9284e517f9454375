"""Differences between two specs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gptkit.core.spec import Spec
from gptkit.core.walk import Path

__all__ = ["ABSENT", "Difference", "differences"]


class _Absent(Enum):
    ABSENT = "absent"

    def __repr__(self) -> str:
        return self.value

    __str__ = __repr__


ABSENT = _Absent.ABSENT
"""The value of a side without the list item or key."""


@dataclass(frozen=True)
class Difference:
    """A path at which two specs have different values."""

    path: Path
    left: Any
    right: Any

    @property
    def dotted(self) -> str:
        """The path in the syntax of `--set`."""
        return ".".join(str(part) for part in self.path)


def differences(
    left: Any, right: Any, path: Path = (), equal: Callable[[Any, Any], bool] = operator.eq
) -> Iterator[Difference]:
    """Return the differences between two specs, or their plain data, in the order of the fields.

    A component that is replaced by another one is a single difference, since their fields cannot be compared.

    Args:
        left: a spec, or plain data.
        right: another spec, or plain data.
        path: prefix of the paths of the differences.
        equal: function that compares two plain values.
    """
    keys = _common_keys(left, right, path)
    if keys is None:
        if left is ABSENT or right is ABSENT or not equal(left, right):
            yield Difference(path, left, right)
        return
    for key in keys:
        yield from differences(_child(left, key), _child(right, key), (*path, key), equal)


def _common_keys(left: Any, right: Any, path: Path) -> list[Any] | None:
    """Return the keys to compare separately; None if the two values must be compared as a whole."""
    if isinstance(left, Spec) and isinstance(right, Spec):
        return list(type(left).model_fields) if type(left) is type(right) else None
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        # Below the root, a mapping's name is the component's.
        other_component = bool(path) and left.get("name") != right.get("name")
        return None if other_component else list(dict.fromkeys([*left, *right]))
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return list(range(max(len(left), len(right))))
    return None


def _child(value: Any, key: Any) -> Any:
    if isinstance(value, Spec):
        return getattr(value, key)
    if isinstance(value, Mapping):
        return value.get(key, ABSENT)
    return value[key] if key < len(value) else ABSENT
