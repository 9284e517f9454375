"""Description of a sequence of layers by repetition."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["described", "runs"]

LONGEST = 110
"""Number of characters of a description, above which the layers of each type are only counted."""


def runs(sequence: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of equal items, each as an item and its number: ``[0, 0, 1]`` as ``[(0, 2), (1, 1)]``."""
    result: list[tuple[int, int]] = []
    for item in sequence:
        if result and result[-1][0] == item:
            result[-1] = (item, result[-1][1] + 1)
        else:
            result.append((item, 1))
    return result


def described(sequence: Sequence[int], labels: Sequence[str]) -> str:
    """Return the shortest description of a sequence of labels with one repeated part.

    ``5 × A, 1 × B, repeated 4 times, then 2 × A``. The part may begin after a few other layers: ``1 × A, then 26 × B``.
    Where no description is short, the result is the number of layers of each type.
    """
    best = ", then ".join(_listed([run], labels) for run in runs(sequence))
    for begin in range(min(4, len(sequence))):
        rest = sequence[begin:]
        for period in range(2, len(rest) // 2 + 1):
            times = 1
            while rest[times * period : (times + 1) * period] == rest[:period]:
                times += 1
            if times < 2:
                continue
            parts = [f"{_listed(runs(rest[:period]), labels)}, repeated {times} times"]
            if begin:
                parts.insert(0, _listed(runs(sequence[:begin]), labels))
            if rest[times * period :]:
                parts.append(_listed(runs(rest[times * period :]), labels))
            text = ", then ".join(parts)
            if len(text) < len(best):
                best = text
    if len(best) <= LONGEST:
        return best
    return _listed([(item, list(sequence).count(item)) for item in dict.fromkeys(sequence)], labels)


def _listed(parts: Sequence[tuple[int, int]], labels: Sequence[str]) -> str:
    return ", ".join(f"{count}\u00a0×\u00a0{labels[item]}" for item, count in parts)
