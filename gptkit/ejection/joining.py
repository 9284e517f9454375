"""Conditions on settings in templates: constant where all uses agree, else branches of one class.

A line ``#if $REUSES_KV`` in a template depends on a setting of the component. Layers whose settings differ are one class
with a parameter and a branch; where all have the same value, the file has only the lines of that case.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.ejection.groups import key
from gptkit.kinds.written import Written, walk

__all__ = ["joined", "separate"]

_DIRECTIVE = re.compile(r"( *)#(if|else|end)\b ?(not )?(?:\$([A-Z][A-Z0-9_]*))?$")
_USED = re.compile(r"\$([a-z][a-z0-9_]*?)(?:_class|_arguments)?\b")


def joined(roots: Sequence[Written]) -> list[Written]:
    """Return components in which uses of one template are one class, with branches where their settings differ."""
    return _Joining(roots, together=True).results()


def separate(roots: Sequence[Written]) -> list[Written]:
    """Return components with only those lines of their templates that their own settings choose."""
    return _Joining(roots, together=False).results()


class _Joining:
    """The uses of each template, and what becomes of them.

    Args:
        roots: the components of a model.
        together: whether the uses of a template are one class.
    """

    def __init__(self, roots: Sequence[Written], *, together: bool) -> None:
        self._roots = roots
        self._together = together
        self._uses: dict[str, list[Written]] = {}
        self._results: dict[int, Written] = {}
        self._begun: set[str] = set()
        seen: set[int] = set()
        for written in (part for root in roots for part in walk(root)):
            if id(written) not in seen:
                seen.add(id(written))
                self._uses.setdefault(written.text, []).append(written)

    def results(self) -> list[Written]:
        """Return the roots without conditions."""
        return [self._result(root) for root in self._roots]

    def _result(self, written: Written) -> Written:
        if id(written) not in self._results and written.text not in self._begun:
            self._begun.add(written.text)
            for use in self._uses[written.text]:
                for part in use.parts.values():
                    self._result(part)
            self._join(self._uses[written.text])
        # A class within one of the same template, such as experts of experts, is resolved alone.
        return self._results.get(id(written)) or self._resolved(written, self._with_parts(written), [written])

    def _with_parts(self, written: Written) -> Written:
        parts = {name: self._result(part) for name, part in written.parts.items()}
        return dataclasses.replace(written, parts=parts)

    def _join(self, uses: list[Written]) -> None:
        changed = [self._with_parts(use) for use in uses]
        if "#if $" in uses[0].text and self._together:
            # A part of a branch that a use does not take is that of the others.
            parts = {name: part for use in reversed(changed) for name, part in use.parts.items()}
            settings = {name: setting for use in reversed(changed) for name, setting in use.settings.items()}
            changed = [
                dataclasses.replace(use, parts={**parts, **use.parts}, settings={**settings, **use.settings})
                for use in changed
            ]
        groups: dict[Hashable, list[Written]] = {}
        for index, use in enumerate(changed):
            groups.setdefault(key(use) if self._together else index, []).append(use)
        alike = {id(use): group for group in groups.values() for use in group}
        for use, whole in zip(uses, changed, strict=True):
            self._results[id(use)] = self._resolved(use, whole, alike[id(whole)])

    @staticmethod
    def _resolved(use: Written, whole: Written, alike: Iterable[Written]) -> Written:
        """Return a use without conditions; of its parts, those that the remaining lines have."""
        if "#if $" not in use.text:
            return whole
        values: dict[str, list[Any]] = {}
        for each in alike:
            for name, setting in each.settings.items():
                values.setdefault(name, []).append(setting.value)
        text = _without_conditions(use.text, values)
        dropped = set(_USED.findall(use.text)) - set(_USED.findall(text))
        parts = {name: part for name, part in whole.parts.items() if name not in dropped}
        return dataclasses.replace(whole, text=text, parts=parts)


def _without_conditions(text: str, values: Mapping[str, Sequence[Any]]) -> str:
    """Return a template in which conditions are decided, or branches of the source where values differ."""
    lines: list[str] = []
    # One entry per open condition: whether its lines are kept, and whether it is a branch of the source.
    open_: list[tuple[bool, bool]] = []
    for line in text.splitlines():
        match = _DIRECTIVE.match(line)
        if match is None:
            if all(kept for kept, _ in open_):
                lines.append("    " * sum(branch for _, branch in open_) + line if line else line)
            continue
        indent, word, negated, name = match.groups()
        if word == "if":
            if name not in values:
                raise GptkitError(f"the setting {name} of a template for gptkit eject is not defined: {line.strip()}")
            truths = {_holds(value) for value in values[name]}
            open_.append((True if len(truths) == 2 else truths == {not negated}, len(truths) == 2))
            written = f"if {_condition(name, values[name], bool(negated))}:"
        else:
            kept, branch = open_.pop()
            if word == "else":
                open_.append((branch or not kept, branch))
            written = "else:" if word == "else" else ""
        if written and open_[-1][1] and all(kept for kept, _ in open_):
            lines.append(f"{indent}{'    ' * sum(branch for _, branch in open_[:-1])}{written}")
    return "\n".join(lines) + "\n"


def _holds(value: Any) -> bool:
    return value is not None and value is not False


def _condition(name: str, values: Sequence[Any], negated: bool) -> str:
    if any(value is None for value in values):
        return f"${name} is None" if negated else f"${name} is not None"
    return f"not ${name}" if negated else f"${name}"
