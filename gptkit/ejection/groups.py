"""Classes and functions of a written model: equal sources are one, settings become constants or parameters.

Every use of a component in the model is a `Written`. Uses with the same text are one class. A setting with one value in all
uses becomes a constant of the file; one with several becomes a parameter of the class, and so does a part that differs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.ejection.lines import typed, wrapped
from gptkit.kinds.written import Name, NotWrittenError, Section, Setting, Written, walk

__all__ = ["EMBEDDED", "IDS", "OWNED", "Constant", "Groups", "key", "number"]

IDS = 'cache.shared["ids"]'
"""The ids of a call's tokens, (B, T), as templates read them."""
EMBEDDED = 'cache.shared["embedded"]'
"""What the embedding returned for them, (B, T, E)."""

OWNED = "self.shared["
"""The beginning of the expression of a module that layers share, in the constructor of the model."""

_PLACEHOLDER = re.compile(r"\$([A-Za-z][A-Za-z0-9_]*)")
_OMITTED = re.compile(r", [a-z_]+=None(?=[,)])")


@dataclass(frozen=True)
class Constant:
    """A constant of the file."""

    name: str
    value: Any
    comment: str
    section: Section


@dataclass
class _Group:
    """A class, a function or a constructor expression.

    Attributes:
        name: its name in the file.
        uses: its uses in the model; they have the same text.
        functions: the groups of the functions that it calls, by placeholder.
        classes: the groups of the classes that its parts have, by placeholder.
    """

    name: str
    uses: list[Written] = field(default_factory=list)
    functions: dict[str, _Group] = field(default_factory=dict)
    classes: dict[str, list[_Group]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.uses[0].text


class Groups:
    """The classes and functions of a model.

    Args:
        fixed: the constants that the file has in any case, with their values.
        roots: the components of the model, one for each use.
        cache: the type of the cache of a layer.
        ids: the expression by which a layer reads the ids of a call's tokens.
    """

    def __init__(self, fixed: Mapping[str, Any], *roots: Written, cache: str = "dict[str, Tensor]", ids: str = IDS) -> None:
        self._fixed = dict(fixed)
        self._cache = cache
        self._ids = ids
        self._groups: dict[Hashable, _Group] = {}
        self._constants: dict[str, Constant] = {}
        self._constructors: dict[int, str] = {}
        self._roots = roots  # kept alive, since constructors are stored by identity
        for root in roots:
            self._add(root)

    def constructor(self, written: Written) -> str:
        """Return the expression that constructs a component; empty if there is nothing to construct."""
        if written.owned_as:
            return f'{OWNED}"{written.owned_as}"]'
        return self.owned_constructor(written)

    def owned_constructor(self, written: Written) -> str:
        """Return the same of a module that layers share, for the model, which owns it."""
        if id(written) not in self._constructors:
            self._constructors[id(written)] = self._constructor(written)
        return self._constructors[id(written)]

    def sources(self) -> Iterator[tuple[Section, str]]:
        """Yield the source of each class and function, with the section that it belongs to."""
        for group in self._groups.values():
            if group.text:
                yield group.uses[0].section, self._source(group)

    def constants(self) -> list[Constant]:
        """Return the constants that the sources use; call it after `sources` and `constructor`."""
        return list(self._constants.values())

    # -- groups --------------------------------------------------------------------------------------------------------

    def _add(self, written: Written) -> None:
        for part in written.parts.values():
            self._add(part)
        own = key(written)
        if not own[0]:
            return
        if own not in self._groups:
            self._groups[own] = _Group(self._free_name(written))
        group = self._groups[own]
        group.uses.append(written)
        for placeholder, part in written.parts.items():
            known = self._groups.get(key(part))
            if known is None:
                continue
            if part.is_function:
                group.functions[placeholder] = known
            elif known not in group.classes.setdefault(placeholder, []):
                group.classes[placeholder].append(known)

    def _free_name(self, written: Written) -> str:
        taken = {group.name for group in self._groups.values() if group.text}
        if not written.text or written.name not in taken:
            return written.name
        words = [word for word in re.split(r"[-_ ]", written.variant) if word]
        prefix = "".join(word[0].upper() + word[1:] for word in words)
        candidates = ["_".join([written.name, *words]).lower() if written.is_function else prefix + written.name]
        candidates += [f"{written.name}{number}" for number in range(2, 100)]
        return next(name for name in candidates if name not in taken)

    def _settings(self, written: Written) -> dict[str, Setting]:
        """Return the settings of a use, with those of the functions that it calls."""
        settings = dict(written.settings)
        for part in written.parts.values():
            if part.is_function:
                settings = {**self._settings(part), **settings}
        return settings

    def _slots(self, written: Written) -> dict[str, str]:
        return {name: self.constructor(part) for name, part in written.parts.items() if not part.is_function}

    # -- settings ------------------------------------------------------------------------------------------------------

    def _parameters(self, group: _Group) -> list[str]:
        """Return the settings that are parameters: their values differ, or depend on the class that uses it."""
        used = set(_PLACEHOLDER.findall(group.text or group.uses[0].expression))
        for slot in self._slots(group.uses[0]).values():
            used |= set(_PLACEHOLDER.findall(slot))
        for function in group.functions.values():
            used |= set(self._parameters(function))
        result = []
        for name in self._settings(group.uses[0]):
            values = {_typed(self._settings(use)[name].value) for use in group.uses}
            if name in used and (len(values) > 1 or any("$" in str(value) for _, value in values)):
                result.append(name)
        return result

    def _varied_slots(self, group: _Group) -> list[str]:
        slots = [self._slots(use) for use in group.uses]
        used = {name: {use[name] for use in slots} for name in slots[0] if f"${name}" in group.text}
        # A module of the model is an argument in any case.
        return [name for name, texts in used.items() if len(texts) > 1 or any(OWNED in text for text in texts)]

    def _constant(self, group: _Group, name: str) -> str:
        """Return the expression of a setting that is equal in all uses: the name of a constant, or a short literal."""
        setting = self._settings(group.uses[0])[name]
        if isinstance(setting.value, (Name, bool, type(None))):
            return _literal(setting.value)
        if name in self._fixed and self._fixed[name] == setting.value:
            return name
        for candidate in (name, f"{_upper(group.name)}_{name}"):
            known = self._constants.get(candidate)
            if candidate not in self._fixed and (known is None or _typed(known.value) == _typed(setting.value)):
                section = group.uses[0].section
                self._constants.setdefault(candidate, Constant(candidate, setting.value, setting.comment, section))
                return candidate
        return _literal(setting.value)

    # -- source --------------------------------------------------------------------------------------------------------

    def _constructor(self, written: Written) -> str:
        group = self._groups.get(key(written))
        if group is None:
            return ""
        parameters = self._parameters(group)
        settings = self._settings(written)
        if not written.text:
            values = {
                name: _literal(settings[name].value) if name in parameters else self._constant(group, name)
                for name in written.settings
            }
            return _substituted(written.expression, {**values, **self._slots(written)})
        own = {name: _literal(setting.value) for name, setting in settings.items()}
        arguments = [f"{name.lower()}={own[name]}" for name in parameters]
        slots = self._slots(written)
        arguments += [f"{name}={_substituted(slots[name], own)}" for name in self._varied_slots(group)]
        return f"{group.name}({', '.join(arguments)})"

    def _source(self, group: _Group) -> str:
        parameters, varied = self._parameters(group), self._varied_slots(group)
        _refuse_several(group, varied)
        slots = self._slots(group.uses[0])
        signature = [f"{name.lower()}: {self._type(group, name)}" for name in parameters]
        signature += [f"{name}: {_slot_type(group, name)}" for name in varied]
        values = {
            "class_name": group.name,
            "parameters": "".join(f", {parameter}" for parameter in signature),
            **{name: name if name in varied else text for name, text in slots.items()},
            **{name: called.name for name, called in group.functions.items()},
            **{f"{name}_class": classes[0].name for name, classes in group.classes.items()},
            **{f"{name}_arguments": self._arguments(group, called) for name, called in group.functions.items()},
        }
        is_function = group.uses[0].is_function
        constructs = False  # whether these are lines of a constructor
        local = is_function  # whether parameters are local variables, as in functions and constructors
        lines: list[str] = []
        stored: set[str] = set()
        text = group.text.replace("cache: dict[str, Tensor]", f"cache: {self._cache}").replace(IDS, self._ids)
        for template in text.splitlines():
            if template.startswith("    def "):
                local = constructs = "def __init__" in template
            line = _substituted(template, values, partial=True)
            resolved = {}
            for name in _PLACEHOLDER.findall(line):
                if name in parameters:
                    resolved[name] = name.lower() if local else f"self.{name.lower()}"
                    stored |= set() if local else {name}
                else:
                    resolved[name] = self._constant(group, name)
            line = _substituted(line, resolved)
            # None is the default of what a call of a function may omit.
            lines.append(line if "def " in line or constructs else _OMITTED.sub("", line))
        if not is_function:
            lines = _with_assignments(lines, [name.lower() for name in parameters if name in stored])
        return "\n".join(text for line in typed(lines) for text in wrapped(line)) + "\n"

    def _arguments(self, group: _Group, function: _Group) -> str:
        """Return the end of a call of a function: what it has as parameters, in placeholders of the caller's settings."""
        return "".join(f", {name.lower()}=${name}" for name in self._parameters(function))

    def _type(self, group: _Group, name: str) -> str:
        values = [self._settings(use)[name].value for use in group.uses]
        types = {"bool" if self._is_passed_truth(value) else _type_of(value) for value in values if value is not None}
        optional = None in values or "NoneType" in types
        types -= {"NoneType"}
        types = {"float"} if types == {"int", "float"} else types
        return " | ".join([*sorted(types), *(["None"] if optional else [])])

    def _is_passed_truth(self, value: Any) -> bool:
        """Return whether a setting is a truth value that a class passes on to its part: ``$OVERLAPS``."""
        if not isinstance(value, Name) or not value.startswith("$"):
            return False
        given = [
            use.settings[value[1:]].value
            for group in self._groups.values()
            for use in group.uses
            if value[1:] in use.settings
        ]
        return any(isinstance(each, bool) for each in given)


def _refuse_several(group: _Group, varied: list[str]) -> None:
    """Refuse a part that is an argument, one module, where the class has several of it, each with weights of its own."""
    for name in varied:
        owned = any(part.owned_as for use in group.uses for part in walk(use.parts[name]))
        places = re.findall(rf"\${name}\b( for )?", group.text)
        if (len(places) > 1 or any(places)) and owned:
            raise NotWrittenError(
                f"{group.name} cannot be written out: it has several modules {name!r}, a part of which layers share",
                hint=f"Choose another {name}.",
            )
        if len(places) > 1 or any(places):
            raise NotWrittenError(
                f"{group.name} cannot be written out: it has several modules {name!r}, which differ from layer to layer",
                hint=f"Give all layers the same {name}.",
            )


def key(written: Written) -> tuple[Hashable, ...]:
    """Return what makes two uses one class: the text, and what it calls by name."""
    named = tuple(key(part) for name, part in written.parts.items() if part.is_function or f"${name}_class" in written.text)
    # A class within one with the same text, such as experts of experts, is another class: its constructor is an argument of
    # the outer one.
    depth = sum(part.text == written.text for part in walk(written)) if written.text else 0
    return (written.text or written.expression, depth, *named)


def _with_assignments(lines: list[str], names: list[str]) -> list[str]:
    """Return the lines of a class with its parameters stored as attributes."""
    if not names:
        return lines
    index = next(index for index, line in enumerate(lines) if "super().__init__()" in line)
    return [*lines[: index + 1], *(f"        self.{name} = {name}" for name in names), *lines[index + 1 :]]


def _substituted(text: str, values: Mapping[str, str], *, partial: bool = False) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] in values:
            return values[match[1]]
        if partial and match[1].isupper():
            return match[0]
        raise GptkitError(f"the placeholder {match[0]} of a template for gptkit eject has no value: {text.strip()}")

    return _PLACEHOLDER.sub(value, text)


def _typed(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def number(value: Any) -> str:
    """Return the literal of a value, with exponents as people write them: 1e-5."""
    return re.sub(r"e-0(\d)", r"e-\1", repr(value))


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, Name) else number(value)


def _type_of(value: Any) -> str:
    if isinstance(value, tuple):
        return "tuple[int, ...]"
    if not isinstance(value, Name):
        return type(value).__name__
    try:
        return type(ast.literal_eval(value)).__name__
    except (SyntaxError, ValueError):
        return "tuple[int, ...]" if value.startswith("(") and value.endswith(")") and "," in value else "int"  # of sizes


def _upper(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def _slot_type(group: _Group, name: str) -> str:
    if any(use.parts[name].owned_as for use in group.uses):
        return "nn.Module"  # an item of a dictionary of modules
    classes = group.classes.get(name, [])
    return classes[0].name if len(classes) == 1 and classes[0].text else "nn.Module"
