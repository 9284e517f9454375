"""Validation of data as a spec, with the location of every error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gptkit.core.errors import Problem, SpecError
from gptkit.core.registry import Registry, default_registry
from gptkit.core.requirements import unmet_requirements
from gptkit.core.spec import describe
from gptkit.files.elsewhere import Section
from gptkit.files.messages import expected, is_misspelled_name, message
from gptkit.files.nodes import Place
from gptkit.files.source import Source
from gptkit.files.tracing import Trace, trace

__all__ = ["validate", "validate_data"]

MAX_PROBLEMS = 100
_MAX_TRACED = 1000
"""More errors of pydantic than this are not traced, which takes seconds; most of them repeat others."""
_ABSENT = object()
S = TypeVar("S", bound=BaseModel)
Path = tuple[str | int, ...]


def validate(source: Source, spec_class: type[S], registry: Registry | None = None) -> S:
    """Return the spec of a file.

    Args:
        source: from `read`.
        spec_class: the class of the whole file.
        registry: where components are looked up; by default what is installed.

    Raises:
        SpecError: one problem per error, located, in the order of the file.
    """
    return _validate(source.data, spec_class, registry, source)


def validate_data(data: Mapping[str, Any], spec_class: type[S], registry: Registry | None = None) -> S:
    """Validate plain data as `validate` does."""
    return _validate(data, spec_class, registry, None)


def _validate(data: Mapping[str, Any], spec_class: type[S], registry: Registry | None, source: Source | None) -> S:
    _check_requires(data, source)
    try:
        return spec_class.model_validate(data, context={"registry": registry} if registry is not None else None)
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems = _problems(details, data, spec_class, default_registry() if registry is None else registry, source)
    raise SpecError(problems)


def _check_requires(data: Mapping[str, Any], source: Source | None) -> None:
    """Raise an error for unmet requirements alone, since other errors may be consequences of these."""
    requires = data.get("requires")
    if not isinstance(requires, (list, tuple)) or not all(isinstance(item, str) for item in requires):
        return
    unmet = unmet_requirements(requires)
    if unmet:
        raise SpecError([_located(Problem(("requires", index), text), source) for index, text in unmet])


@dataclass(frozen=True)
class _TracedError:
    """An error of pydantic, and the field or value that its location refers to."""

    error: ErrorDetails
    trace: Trace


def _problems(
    details: Sequence[ErrorDetails], data: Any, spec_class: type[BaseModel], registry: Registry, source: Source | None
) -> list[Problem]:
    result = [_TracedError(error, trace(spec_class, data, error["loc"], registry)) for error in details[:_MAX_TRACED]]
    problems: dict[tuple[Any, ...], Problem] = {}
    for group in _groups(_without_consequences(_likeliest_branches(result), data)):
        wanted = [phrase for phrase in (expected(item.error) for item in group) if phrase]
        first = group[0]
        if len(group) > 1 and len(wanted) == len(group):
            text = f"expected {' or '.join(dict.fromkeys(wanted))}, got {describe(first.error['input'])}"
        else:
            # In a union, the branch that accepts the type has the more specific error.
            first = next((item for item in group if not expected(item.error)), first)
            written = replace(first.trace, path=_as_written(first.trace.path, data))
            text = message(first.error, written, Section((), spec_class, data), registry)
        kind = first.error["type"]
        problem = _located(Problem(_as_written(first.trace.path, data), text), source, key=kind == "extra_forbidden")
        problems.setdefault(_cause(problem, kind), problem)
    return _limited(list(problems.values()), source, len(details) - len(result))


def _cause(problem: Problem, kind: str) -> tuple[Any, ...]:
    """Return the same key for one error in several layers that repeat a value of the file, as aliases of YAML do."""
    if problem.line is None:
        return (problem, kind)
    return (_place(problem), kind, tuple("*" if isinstance(part, int) else part for part in problem.path))


def _limited(problems: list[Problem], source: Source | None, n_unread: int) -> list[Problem]:
    """Return the first problems in the order of the file, and the number of the others at the location of the next one."""
    if source is not None:
        problems = sorted(problems, key=lambda problem: source.order(_place(problem)))
    rest = max(len(problems) - MAX_PROBLEMS, 0) + n_unread
    if rest:
        *_, last = problems[: MAX_PROBLEMS + 1]
        problems[MAX_PROBLEMS:] = [replace(last, message=f"and {rest} more errors")]
    return problems


def _likeliest_branches(result: Sequence[_TracedError]) -> list[_TracedError]:
    """Return the errors without those of a union's spec classes other than the one whose keys match best."""
    misfits: dict[Path, Counter[str]] = {}
    for item in result:
        if item.trace.branch is not None:
            path, name = item.trace.branch
            keys = item.error["type"] in ("missing", "extra_forbidden", "model_type")
            misfits.setdefault(path, Counter())[name] += keys
    chosen = {(path, min(counts, key=counts.__getitem__)) for path, counts in misfits.items()}
    return [item for item in result if item.trace.branch is None or item.trace.branch in chosen]


def _without_consequences(result: Sequence[_TracedError], data: Any) -> list[_TracedError]:
    """Return the errors without unknown fields beside a misspelled `name`, since which component has them is unknown."""
    unknown = [item.trace for item in result if item.error["type"] == "extra_forbidden"]
    misspelled = {each.path for each in unknown if is_misspelled_name(each) and not _has_name(each.path[:-1], data)}
    consequences = {each.path for each in unknown if any(each.path[:-1] == path[:-1] for path in misspelled)} - misspelled
    return [item for item in result if item.trace.path not in consequences]


def _has_name(path: Path, data: Any) -> bool:
    return _exists((*_as_written(path, data), "name"), data)


def _groups(result: Iterable[_TracedError]) -> list[list[_TracedError]]:
    """Group errors with one cause: those of the branches of a union at one path."""
    items = list(result)
    branches: dict[Path, list[_TracedError]] = {}
    groups: list[list[_TracedError]] = []
    deep = [item.trace.path for item in items if item.trace.branched]
    for item in items:
        path = item.trace.path
        if not item.trace.branched:
            groups.append([item])
        elif any(len(other) > len(path) and other[: len(path)] == path for other in deep):
            continue  # another branch accepts the value, and has an error inside it
        elif path in branches:
            branches[path].append(item)
        else:
            branches[path] = [item]
            groups.append(branches[path])
    return groups


def _as_written(path: Path, data: Any) -> Path:
    """Return the path in the file.

    Each entry of `layers` inherits the model's parts, so that an error in one occurs in all of them; it is reported once,
    at its location in the file. The `name` of a component that is written as a name alone is the component itself.
    """
    for index in range(len(path) - 2):
        if path[index] == "layers" and isinstance(path[index + 1], int):
            shared = (*path[:index], *path[index + 2 :])
            in_layer = _exists(path, data) or (not _exists(shared, data) and _exists(path[: index + 3], data))
            path = path if in_layer else shared
            break
    return path[:-1] if path[-1:] == ("name",) and isinstance(_value(path[:-1], data), str) else path


def _value(path: Path, data: Any) -> Any:
    """Return the value at a path; `_ABSENT` without one."""
    for part in path:
        if isinstance(data, Mapping):
            data = data.get(part, _ABSENT)
        elif isinstance(data, (list, tuple)) and isinstance(part, int) and 0 <= part < len(data):
            data = data[part]
        elif not (isinstance(data, str) and part == "name"):
            return _ABSENT
    return data


def _exists(path: Path, data: Any) -> bool:
    return _value(path, data) is not _ABSENT


def _located(problem: Problem, source: Source | None, *, key: bool = False) -> Problem:
    if source is None:
        return problem
    place = source.locate(problem.path, key=key)
    return replace(problem, source=place.file, line=place.line, column=place.column)


def _place(problem: Problem) -> Place:
    return Place(problem.source, problem.line, problem.column)
