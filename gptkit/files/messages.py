"""Messages for pydantic's errors: short, lower-case, with the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic_core import ErrorDetails

from gptkit.core.component import Component, in_braces
from gptkit.core.registry import Registry
from gptkit.core.spec import describe
from gptkit.core.suggestions import closest, did_you_mean, synonym
from gptkit.core.yaml import plain_scalar
from gptkit.files.elsewhere import EPOCHS, STEPS_OF_EPOCHS, Section, fields_of, names_of
from gptkit.files.numerals import numeral
from gptkit.files.tracing import Trace

__all__ = ["expected", "is_misspelled_name", "message"]

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of ordinary size",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "string_sub_type": "a text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": ("must be greater than {}", "gt"),
    "greater_than_equal": ("must be at least {}", "ge"),
    "less_than": ("must be less than {}", "lt"),
    "less_than_equal": ("must be at most {}", "le"),
    "multiple_of": ("must be a multiple of {}", "multiple_of"),
    "string_too_short": ("must have at least {}", "min_length"),
    "string_too_long": ("must have at most {}", "max_length"),
    "string_pattern_mismatch": ("must match the pattern {}", "pattern"),
}
_MISSPELLED = 0.85
"""Similarity above which a key is a misspelled field of its section, even if another section has a field of its name."""


def expected(error: ErrorDetails) -> str | None:
    """Return the expected type of a type error."""
    return _EXPECTED.get(error["type"])


def message(error: ErrorDetails, result: Trace, root: Section, registry: Registry) -> str:
    """Return the message of one error in a spec, `root`."""
    kind, got, context = error["type"], describe(error["input"]), error.get("ctx", {})
    wanted = expected(error)
    if wanted == "a list" and _indexed(error["input"]):
        first = next(iter(error["input"]))
        return f"item {first} cannot be set, since the spec has no such list; set the whole list {str(result.path[-1])!r}"
    if wanted == "a list" and isinstance(error["input"], (str, int, float)) and not isinstance(error["input"], bool):
        item = repr(str(error["input"])) if _of_texts(result) else error["input"]
        return f"expected {wanted}, got {got}; write it in brackets: [{item}]"
    if wanted == "a list" and isinstance(error["input"], dict) and error["input"] and not _of_texts(result):
        key = next(iter(error["input"]))
        return f"expected {wanted}, got {got}; write each item after a hyphen, '- {key}: …', or in brackets: [{{{key}: …}}]"
    if wanted in ("a number", "a whole number") and _is_quoted(error["input"], whole=wanted == "a whole number"):
        return f"expected {wanted}, got {got}; remove the quotes"
    if wanted in ("a number", "a whole number") and isinstance(error["input"], str):
        written = numeral(error["input"], whole=wanted == "a whole number")
        return f"expected {wanted}, got {got}" + (f"; write {written}" if written else "")
    if wanted == "a text" and isinstance(error["input"], (int, float)):
        return f"expected {wanted}, got {got}; put it in quotes"
    if wanted is not None:
        return f"expected {wanted}, got {got}"
    if kind in _BOUNDS:
        form, key = _BOUNDS[kind]
        bound = _count(int(context[key]), "character") if kind.startswith("string_too") else _number(context[key])
        return f"{form.format(bound)}, got {_bare(error['input'])}"
    if kind == "extra_forbidden":
        return _unknown_key(str(result.path[-1]), result, root, registry)
    if kind == "missing":
        about = result.field.description if result.field is not None else None
        return f"missing, and has no default ({about.rstrip('.')})" if about else "missing, and has no default"
    if kind == "literal_error" and result.path == ("gptkit",) and isinstance(error["input"], int) and error["input"] > 1:
        read = context.get("expected")
        return f"the spec is of version {error['input']} of the format, and this gptkit reads version {read}; update gptkit"
    if kind in ("literal_error", "enum"):
        return _choices(error["input"], str(context.get("expected", "")))
    if kind in ("too_short", "too_long"):
        word, key = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        return f"must have {word} {_count(int(context[key]), 'item')}, got {context.get('actual_length')}"
    if kind == "finite_number":
        return f"must be a finite number, got {_bare(error['input'])}"
    text = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    # gptkit's messages already start in lower case; only pydantic's are converted.
    return text[:1].lower() + text[1:] if text.startswith(("Input ", "Value ", "Unable ")) else text


def _is_quoted(value: Any, *, whole: bool) -> bool:
    """Return whether a text would be a number without its quotes."""
    number = plain_scalar(value) if isinstance(value, str) else None
    return isinstance(number, int if whole else (int, float)) and not isinstance(number, bool)


def _of_texts(result: Trace) -> bool:
    """Return whether a field is a list of texts."""
    annotation = None if result.field is None else result.field.annotation
    items = [get_args(item)[0] if get_origin(item) is Annotated else item for item in get_args(annotation)]
    return str in items


def is_misspelled_name(result: Trace) -> bool:
    """Return whether an unknown field of a component is closer to `name` than to any field."""
    owner, key = result.owner, str(result.path[-1])
    if owner is None or not issubclass(owner, Component) or "name" not in owner.model_fields:
        return False
    return closest(key, list(owner.model_fields)) == "name"


def _indexed(value: Any) -> bool:
    """Return whether the value results from `--set list.0.key=value` without an existing list."""
    return isinstance(value, Mapping) and len(value) > 0 and all(str(key).isdigit() for key in value)


def _unknown_key(key: str, result: Trace, root: Section, registry: Registry) -> str:
    owner = result.owner
    if owner is None:
        return f"unknown key {key!r}"
    if names_of(key)[0] in EPOCHS:
        return f"unknown key {key!r}; {STEPS_OF_EPOCHS}"
    if not (issubclass(owner, Component) and hasattr(owner, "kind")):
        remedy = _meant(key, result, (Section(result.path[:-1], owner, result.data), root), registry)
        listed = f"keys: {', '.join(owner.model_fields)}"
        remedy = f"{remedy} ({listed})" if remedy else did_you_mean(key, list(owner.model_fields), "keys")
        return f"unknown key {key!r}; {remedy}"
    fields = [name for name in owner.model_fields if name != "name"]
    what = f"{owner.kind} {owner.component_name()!r} has no field {key!r}"
    listed = f"fields: {', '.join(fields)}" if fields else "it has no fields"
    if is_misspelled_name(result):
        return f"{owner.kind} has no field {key!r}; did you mean 'name'?"
    if key in registry.names(owner.kind):
        return f"{what}; {in_braces(key)}"
    having = [name for name, entry in registry.entries(owner.kind).items() if key in entry.cls.model_fields]
    inside = _meant(key, result, (Section(result.path[:-1], owner, result.data),), registry)
    outside = None if inside or having else _meant(key, result, (root,), registry)
    if inside or outside:
        remedy = f"{inside or outside} ({listed})"
    elif having:
        # The field exists in other components, so the component is probably the wrong one.
        others = f"{_listed(having, 'and')} {'has' if len(having) == 1 else 'have'} it"
        remedy = f"{others}: set {'.'.join(map(str, (*result.path[:-1], 'name')))} too ({listed})"
    else:
        remedy = did_you_mean(key, fields, "fields") if fields else listed
    return f"{what}; {remedy}"


def _meant(key: str, result: Trace, sections: Sequence[Section], registry: Registry) -> str | None:
    """Return the remedy for a key that names a field of its owner, or of a part of a section; None if it names none."""
    known = [] if result.owner is None else list(result.owner.model_fields)
    fields = [name for name in names_of(key) if name in known]
    if not fields and closest(key, known, _MISSPELLED) is None:
        fields = next(filter(None, (fields_of(key, section, registry) for section in sections)), [])
    return f"did you mean {_listed(fields, 'or')}?" if fields else None


def _choices(value: Any, choices: str) -> str:
    if isinstance(value, str) and value == choices:  # a number in quotes
        return f"expected the number {choices}, got {describe(value)}; remove the quotes"
    # Pydantic writes them as "'a', 'b' or 'c'".
    known = [part.strip().strip("'") for part in choices.replace(" or ", ", ").split(", ")]
    if isinstance(value, str) and (same := synonym(value, known)):
        remedy = f"; did you mean {same!r}?"
    else:
        near = did_you_mean(value, known, "").split("?")[0] if isinstance(value, str) else ""
        remedy = f"; {near}?" if near.startswith("did") else ""
    return f"expected {choices}, got {describe(value)}{remedy}"


def _listed(names: Sequence[str], word: str) -> str:
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {word} {quoted[-1]}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(value: Any) -> str:
    """Format a bound: ``1`` for 1.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def _bare(value: Any) -> str:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else describe(value)
