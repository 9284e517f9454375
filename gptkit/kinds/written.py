"""How a component is written out in a file of plain PyTorch, for `gptkit eject`.

A spec's method `written` returns a `Written`: the source of a class or function as a template. `gptkit.ejection` collects
those of a model, decides which settings become constants and which become parameters, and joins the sources.

A template contains placeholders: ``$WINDOW`` (a setting), ``$norm`` (the expression that constructs the part `norm`, or the
name of the part if it is a function), ``$class_name`` (of the class or function itself), ``$parameters`` (at the end of the
signature of ``__init__`` or of a function), ``$rotate_arguments`` (at the end of a call of the part `rotate`, a function)
and ``$norm_class`` (the class of the part `norm`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.failing import INTENTIONAL, failure
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.kinds.written_fields import NotWrittenError, refuse_inherited, refuse_other_fields

__all__ = [
    "Name",
    "NotWrittenError",
    "Section",
    "Setting",
    "WritingContext",
    "Written",
    "fill",
    "linear",
    "number",
    "walk",
    "written",
    "written_stacked",
]

Section = Literal["linear", "embedding", "position", "attention", "norm", "feedforward", "block", "model"]
"""Parts of the file, in their order."""

_DIRECTIVE = re.compile(r"\s*#(if|elif|else|end)\b ?(.*)$")
_PLACEHOLDER = re.compile(r"\$([a-z][a-z0-9_]*)")


class Name(str):
    """Value of a setting that is an expression of the file, such as ``D_MODEL``; or of its user, such as ``$D_HEAD``."""

    __slots__ = ()


@dataclass(frozen=True)
class Setting:
    """Value of a placeholder in capital letters.

    A setting that is equal wherever its class is used becomes a constant; one that differs becomes a parameter of the class.

    Attributes:
        value: a number, a truth value, a text, None, or a `Name`.
        comment: what it is, written beside the constant.
    """

    value: Any
    comment: str = ""


@dataclass(frozen=True)
class Written:
    """How a component is written out.

    Attributes:
        name: the name of the class or function.
        text: the template of its source; empty if `expression` suffices.
        expression: how it is constructed, if that is not a call of the class: ``nn.Identity()``.
        settings: the values of the placeholders in capital letters.
        parts: the components and functions that the text uses, by placeholder.
        calls: templates of calls of it, by purpose: ``{"query": "rotate($x, positions_T$rotate_arguments)"}``.
        section: the part of the file that it belongs to.
        variant: a prefix of the name, for files in which another class has the same one.
        fields: the fields of the spec that the template writes, and those that affect training only. A spec with another
            field that is not its default is refused by name.
        shared: modules of the model that several layers share, by their names in `model.shared`. Each is called once, before
            the blocks, with the ids and the embedded tokens, and returns the input of every layer, (B, T, L, …), which the
            layer finds as ``cache["layer_input"]``, (B, T, …).
        owned_as: the name in `model.shared` of a module that layers share and call themselves; see `WritingContext.own`.
        unused: prefixes of parameters of the built module that the written one does not have, since only training uses them.
        copied: whether the text is a copy of the component's own source, not a template.
        single: whether its sizes depend on the modules of its kind before it, so that a layer must not have several copies.
    """

    name: str = ""
    text: str = ""
    expression: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    parts: Mapping[str, Written] = field(default_factory=dict)
    calls: Mapping[str, str] = field(default_factory=dict)
    section: Section = "model"
    variant: str = ""
    fields: Collection[str] = ()
    shared: Mapping[str, Written] = field(default_factory=dict)
    owned_as: str = ""
    unused: Collection[str] = ()
    copied: bool = False
    single: bool = False

    @property
    def is_function(self) -> bool:
        """Whether the text is a function, whose settings are passed by its callers."""
        return self.text.startswith("def ")

    def call(self, purpose: str, **names: str) -> str:
        """Return the call for a purpose with its placeholders replaced; other placeholders remain."""
        return _replaced(self.calls[purpose], names)


@dataclass(frozen=True)
class WritingContext(BuildContext):
    """Build context of a component that is written out.

    Attributes:
        layers: the parts of all layers with attention, so that a component can be written in one form for all of them.
        blocks: the blocks of all layers, for the same.
        attentions: all attentions of the model, those within blocks too, whose masks one function makes.
        width: d_model of the model, which experts of a mixture may not have.
        adds: whether the caller of an attention or a feed-forward passes an addition to its projection of the input, a
            tensor (B, T, X). A template that has it has the call "addition widths", the features of its parts as a tuple.
        owned: modules of the model that layers share, by what these have in common; use `own`.
        bundle: returns a component without a template as a copy of its own module, for the arguments of `written`.
    """

    layers: Sequence[LayerParts] = ()
    blocks: Sequence[Component] = ()
    attentions: Sequence[Component] = ()
    width: int = 0
    adds: bool = False
    owned: dict[Hashable, Written] = field(default_factory=dict, repr=False, compare=False)
    bundle: Callable[[Component, WritingContext, Mapping[str, Any]], Written] | None = field(
        default=None, repr=False, compare=False
    )

    def replace(self, **changes: Any) -> WritingContext:
        """Return a copy with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def own(self, key: tuple[Hashable, ...], make: Callable[[], Written]) -> Written:
        """Return the module of the model that the layers with this key share, written on first request.

        As a part of a block it is an argument of the constructor, which the block stores without registering it.

        Args:
            key: that of `BuildContext.share`; begins with the component's name.
        """
        if key not in self.owned:
            count = sum(other[0] == key[0] for other in self.owned if isinstance(other, tuple))
            name = f"{key[0]}-{count + 1}" if count else str(key[0])
            self.owned[key] = dataclasses.replace(make(), owned_as=name)
        return self.owned[key]


def written(spec: Component, context: WritingContext, **where: Any) -> Written:
    """Return how a component is written out.

    Args:
        where: the arguments that the kind's `written` has in addition to the context.

    Raises:
        NotWrittenError: the component does not define it, refuses its configuration, or has a field that its template does
            not write.
        GptkitError: the component's `written` fails.
    """
    result = _called(spec, "written", context, where)
    if result is None and context.bundle is not None:
        return context.bundle(spec, context, where)
    if result is None:
        raise NotWrittenError(
            f"{spec.kind} {spec.name!r} cannot be written out: {type(spec).__name__} does not define `written`",
            hint="Choose another component, or define the method (see docs/eject.md).",
        )
    return result


def written_stacked(spec: Component, context: WritingContext, *, n_experts: int) -> Written | None:
    """Return how the experts that a feed-forward's `build_stacked` builds are written out; None without such a form.

    Raises:
        NotWrittenError: as for `written`.
    """
    return _called(spec, "written_stacked", context, {"n_experts": n_experts})


def walk(written: Written) -> Iterator[Written]:
    """Yield a component and all its parts."""
    yield written
    for part in written.parts.values():
        yield from walk(part)


def _called(spec: Component, method: str, context: WritingContext, where: Mapping[str, Any]) -> Written | None:
    template = getattr(spec, method, None)
    refuse_inherited(spec, method)
    try:
        result = None if template is None else template(context, **where)
    except INTENTIONAL:
        raise
    except Exception as error:
        raise GptkitError(failure(spec, method, error, context.registry)) from error
    if result is None:
        return None
    if not isinstance(result, Written):
        raise GptkitError(
            f"{spec.kind} {spec.name!r}: {method} returned a {type(result).__name__}, not a gptkit.kinds.written.Written"
        )
    refuse_other_fields(spec, result.fields, context)
    return result


def linear(context: WritingContext, d_in: str, d_out: str, *, bias: bool) -> str:
    """Return the expression that constructs a projection of the layer's kind, as `BuildContext.linear` builds it.

    Args:
        d_in: an expression of its width, which may have placeholders.
        d_out: the same for the result.
    """
    spec = None if context.layer is None else context.layer.linear
    if spec is None:
        return f"nn.Linear({d_in}, {d_out}{'' if bias else ', bias=False'})"
    return written(spec, context).call("construct", d_in=d_in, d_out=d_out, bias="" if bias else ", bias=False")


def number(value: float) -> str:
    """Return a number as source that has exactly its value: ``2`` for 2.0, else all digits."""
    return str(int(value)) if value == int(value) and abs(value) < 1e6 else repr(value)


def fill(template: str, **values: Any) -> str:
    """Return a template without the lines whose condition does not hold, and with placeholders of the values replaced.

    A condition is a line of its own: ``#if bias``, ``#if not bias``, ``#elif …``, ``#else``, ``#end``; conditions nest. One
    on a setting, ``#if $REUSES_KV``, remains, with its ``#else`` and ``#end``: `gptkit.ejection` decides it by the values of
    all uses of the template. It is a branch of the source where these differ, so both cases are whole statements.

    Args:
        values: the truth of the conditions; values other than truth values also replace the placeholder of their name.

    Raises:
        ValueError: a condition is unknown or not closed.
    """
    lines = list(_kept(template.strip("\n").split("\n"), values))
    texts = {name: str(value) for name, value in values.items() if not isinstance(value, (bool, type(None)))}
    return _replaced("\n".join(lines), texts) + "\n"


def _kept(lines: Sequence[str], values: Mapping[str, Any]) -> Iterator[str]:
    # One entry per open condition: whether its lines are kept, whether one of its branches was, and whether it remains.
    open_: list[tuple[bool, bool, bool]] = []
    for line in lines:
        match = _DIRECTIVE.match(line)
        if match is None:
            if all(kept for kept, *_ in open_):
                yield line
            continue
        word, condition = match.groups()
        if word == "if":
            remains = condition.removeprefix("not ").startswith("$")
            holds = remains or _holds(condition, values)
            open_.append((holds, holds, remains))
        elif not open_:
            raise ValueError(f"#{word} without #if in a template")
        else:
            _, any_kept, remains = open_.pop()
            if remains and word == "elif":
                raise ValueError("#elif after a condition on a setting in a template")
            if word != "end":
                holds = remains or (not any_kept and (word == "else" or _holds(condition, values)))
                open_.append((holds, any_kept or holds, remains))
        if remains and all(kept for kept, *_ in open_):
            yield line
    if open_:
        raise ValueError("#if without #end in a template")


def _holds(condition: str, values: Mapping[str, Any]) -> bool:
    name = condition.removeprefix("not ").strip()
    if name not in values:
        raise ValueError(f"unknown condition {name!r} in a template; known: {', '.join(sorted(values))}")
    return bool(values[name]) != condition.startswith("not ")


def _replaced(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)
