"""Classes of a written file that are copies of a module's class: its methods, with the values of the built module.

A module's parameters keep their names. Nested components are written out as such, torch's own modules are constructed as
they were, and other modules are copied, too.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from gptkit.core.component import Component
from gptkit.ejection.calls import attribute_of_self, is_value, times_called
from gptkit.ejection.constructing import Copier
from gptkit.ejection.context_argument import without_context
from gptkit.ejection.edits import CopyError, Edits, parsed
from gptkit.ejection.recording import Built
from gptkit.ejection.runtime import FORWARD_NAMES, context_part
from gptkit.ejection.sources import called_functions, copied_source, is_literal, of_training
from gptkit.kinds.written import Name, Setting, Written

__all__ = ["Copy"]

_METHOD = "mixed"
"""Name of a copied `forward` that another method calls with the context of the call."""


@dataclass
class Copy:
    """The copy of one class.

    Attributes:
        copier: what the copies of the component have in common.
        module: the built module.
        roots: the methods that are called from outside.
        inherited: names of parameters that the base class has.
        templates: methods that are not copied, with what replaces their source.
        skipped: attributes that are written in another way.
        with_context: its `forward` has the context of the call as its second argument, as the contract of the kind says.
        other: the same module built with other sizes, which shows what depends on them; None where sizes are real ones.
    """

    copier: Copier
    module: Any
    roots: tuple[str, ...]
    inherited: tuple[str, ...] = ()
    templates: Mapping[str, str] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()
    with_context: bool = False
    other: Any = None
    methods: dict[str, str] = field(default_factory=dict)
    assignments: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    parts: dict[str, Written] = field(default_factory=dict)
    needs_context: bool = False
    times: dict[str, int] = field(default_factory=dict)
    """How often a call of the module calls a component with a state; 0 if that is not known."""

    def __post_init__(self) -> None:
        for root in self.roots:
            self._method(root)
        for name, parameter in self.module._parameters.items():
            if parameter is not None:
                self._attribute(name)
        for name, child in self.module._modules.items():
            if child is not None and any(True for _ in child.parameters()):
                self._attribute(name)
        if any(True for _ in self.module.named_buffers(recurse=False)):
            for name in self.module._buffers:
                self._attribute(name)

    @property
    def name(self) -> str:
        return type(self.module).__name__.lstrip("_")

    def drop_context(self) -> bool:
        """Remove the context of the call from the arguments of `forward` if nothing needs it; return whether it was."""
        method = without_context(self.methods["forward"])
        if method is None:
            return False
        self.methods["forward"] = method
        methods = self.methods.values()
        self.needs_context = any("forward: Context" in method for method in methods)
        return True

    def finished(self, entry: str = "", **how: Any) -> Written:
        """Return the class.

        Args:
            entry: a method that calls the copied `forward`, which then has another name.
            how: further arguments of `Written`.
        """
        copier = self.copier
        methods = dict(self.methods)
        if entry:
            methods["forward"] = re.sub(r"^def forward\(", f"def {_METHOD}(", methods["forward"])
            methods = {"forward": entry, **{(_METHOD if key == "forward" else key): text for key, text in methods.items()}}
        if self.needs_context:
            self.parts["context_of_the_call"] = context_part()
        documented = copier.spec if self.module.__class__.__doc__ is None else type(self.module)
        summary = (inspect.getdoc(documented) or self.name).splitlines()[0]
        summary = summary.replace("\\", "/").replace('"""', "").replace("$", "")
        lines = [
            "class $class_name(nn.Module):",
            *textwrap.wrap(f'"""{summary}"""', 96, initial_indent="    ", subsequent_indent="    "),
            "",
            "    def __init__(self$parameters) -> None:",
            "        super().__init__()",
            *(f"        self.{name} = {text}" for name, text in self.assignments.items()),
        ]
        text = "\n".join(lines) + "\n"
        text += "".join(f"\n{textwrap.indent(method.rstrip(), '    ')}\n" for method in methods.values())
        fields = [name for name in type(copier.spec).model_fields if name != "name"]
        how = {"section": copier.section, "fields": fields, **how}
        how["calls"] = {**how.get("calls", {}), **{f"times {name}": str(n) for name, n in self.times.items() if n != 1}}
        return Written(self.name, text, settings=self.settings, parts=self.parts, copied=True, **how)

    # -- methods -------------------------------------------------------------------------------------------------------

    def _method(self, name: str) -> None:
        if name in self.methods:
            return
        if name in self.templates:
            self.methods[name] = self.templates[name]
            self.needs_context = self.needs_context or "forward" in self.templates[name]
            self._references(self.templates[name])
            return
        definition = next((vars(cls)[name] for cls in type(self.module).__mro__ if name in vars(cls)), None)
        if definition is None:
            return  # in a branch that this module does not take
        function: Any = definition
        if isinstance(definition, property):
            function = definition.fget
        elif isinstance(definition, staticmethod):
            function = definition.__func__
        if not isinstance(function, FunctionType):
            if is_literal(definition):
                self._value(name, definition)
                return
            raise self.copier.refuse(f"its module has an attribute {name!r} of type {type(definition).__name__}")
        if function.__module__.partition(".")[0] == "torch":
            return
        self.methods[name] = ""  # methods may call one another
        self.methods[name] = source = self._copied(function)
        self._references(source)

    def _copied(self, function: FunctionType) -> str:
        try:
            source = copied_source(function, self._rule, self._context_argument(function))
            for key, called in called_functions(function, source).items():
                if key not in self.parts:
                    self.parts[key] = self._function(called)
        except CopyError as error:
            raise self.copier.refuse(str(error)) from None
        self._check_context(function, source)
        return source

    def _context_argument(self, function: FunctionType) -> str | None:
        """Return the name of the forward context among the arguments of a component's own `forward`, by its place."""
        names = list(inspect.signature(function).parameters)
        return names[2] if self.with_context and function.__name__ == "forward" and len(names) > 2 else None

    def _function(self, function: FunctionType) -> Written:
        """Return a function that a copied one calls, with those that it calls."""
        source = copied_source(function, lambda node, edits: of_training(node))
        self._check_context(function, source)
        parts = {key: self._function(called) for key, called in called_functions(function, source).items()}
        source = re.sub(r"^def \w+\(", "def $class_name(", source)
        return Written(function.__name__.lstrip("_"), source, parts=parts, section=self.copier.section, copied=True)

    def _check_context(self, function: FunctionType, source: str) -> None:
        if "forward: Context" not in source:
            return
        self.needs_context = True
        for name in re.findall(r"(?<![\w.])forward\.(\w+)", source):
            if name not in FORWARD_NAMES:
                raise self.copier.refuse(f"{function.__qualname__} uses forward.{name}, which the file does not have")

    def _references(self, source: str) -> None:
        """Add what the methods of a source read of `self`."""
        for node in ast.walk(parsed(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                self._attribute(node.attr)

    def _rule(self, node: ast.AST, edits: Edits) -> str | None:
        """Return what replaces an expression or statement of a method; None if it remains."""
        omitted = of_training(node)
        if omitted is not None:
            return omitted
        if isinstance(node, ast.Call) and (name := attribute_of_self(node.func)) is not None:
            built = self.copier.recorder.components.get(id(self.module._modules.get(name)))
            return None if built is None else self._call(built, name, node, edits)
        if (name := attribute_of_self(node)) is not None:
            self._refuse_value(name, node, edits)
        if isinstance(node, ast.Attribute) and (name := attribute_of_self(node.value)) is not None:
            value = vars(self.module).get(name)
            built = self.copier.recorder.components.get(id(self.module._modules.get(name)))
            if built is not None and built.spec.kind not in ("norm", "linear", "activation"):
                part = self.copier.nested(built)
                if not part.copied or f"    def {node.attr}(" not in part.text:
                    raise self.copier.refuse(f"it reads {node.attr!r} of the {built.spec.kind} {name!r}")
            if (dataclasses.is_dataclass(value) or isinstance(value, Component)) and is_literal(
                getattr(value, node.attr, ...)
            ):
                key = f"{name}_{node.attr}".strip("_").upper()
                self.settings[key] = Setting(Name(repr(getattr(value, node.attr))))
                return f"${key}"
        return None

    def _refuse_value(self, name: str, node: ast.AST, edits: Edits) -> None:
        """Refuse a component that a method uses as a value, such as one in a variable: its calls would not be rewritten."""
        built = self.copier.recorder.components.get(id(self.module._modules.get(name)))
        if built is None or built.spec.kind in ("norm", "linear") or not is_value(node, edits.tree):
            return
        raise self.copier.refuse(
            f"its module uses the {built.spec.kind} self.{name} as a value (in a variable, a loop or an argument), but "
            f"the file calls a component in another way than the module; call it as self.{name}(…)"
        )

    def _call(self, built: Built, name: str, node: ast.Call, edits: Edits) -> str | None:
        """Return the call of a nested component as its written form has it."""
        kind = built.spec.kind
        arguments = [edits.text(each) for each in node.args]
        context = arguments[-1] if len(arguments) > 1 else "forward"
        if kind in ("norm", "linear"):
            return None
        if node.keywords or not arguments:
            raise self.copier.refuse(f"it calls the component {name!r} with named arguments")
        part = self.copier.nested(built)
        if kind in ("attention", "block"):
            self.needs_context = True
            times = times_called(node, edits.tree, self.module)
            self.times[name] = 0 if times == 0 else self.times.get(name, 0) + times
            once = times == 1 and self._n_stateful(edits) == 1
            cache = f"{context}.cache" if once else f'{context}.part("{name}")'
            return f"self.{name}({arguments[0]}, {context}.positions_T, {cache})"
        if kind in ("activation", "feedforward"):
            call = part.calls.get("apply", f"self.{kind}($x)").replace(f"self.{kind}", f"self.{name}")
            self.settings.update({key: value for key, value in part.settings.items() if f"${key}" in call})
            for key in re.findall(r"\$([a-z]\w*)", call):
                if key != "x" and not key.endswith("_arguments"):
                    self.parts[key] = part.parts.get(key, part)
            call = call.replace("positions_T, cache", f"{context}.positions_T, {context}.cache")
            return call.replace("$x", arguments[0])
        if kind == "router":
            return f"self.{name}({arguments[0]})"
        if kind == "embedding":
            call = part.calls["embed"].replace("self.embedding", f"self.{name}").replace("ids_BT", arguments[0])
            self.needs_context = True
            cache = f'{context}.part("{name}")' if {"state", "states"} & part.calls.keys() else f"{context}.cache"
            # Rows have positions of their own in copied sources alone.
            positions = f"{context}.{'positions_T' if part.copied else 'positions'}"
            return call.replace("positions_T", positions).replace("cache.embedding", cache)
        raise self.copier.refuse(f"its module calls the {kind} {built.spec.name!r} itself")

    def _n_stateful(self, edits: Edits) -> int:
        """Return the number of calls of components with states in a method."""
        stateful = {
            name
            for name, child in self.module._modules.items()
            if (built := self.copier.recorder.components.get(id(child))) is not None
            and built.spec.kind in ("attention", "block")
        }
        calls = (node.func for node in ast.walk(edits.tree) if isinstance(node, ast.Call))
        return sum(attribute_of_self(call) in stateful for call in calls)

    # -- attributes ----------------------------------------------------------------------------------------------------

    def _attribute(self, name: str) -> None:
        known = (self.methods, self.assignments, self.inherited, self.skipped, ("training",))
        if any(name in names for names in known):
            return
        module = self.module
        if name in module._parameters:
            self.assignments[name] = self._parameter(name, module._parameters[name])
        elif name in module._modules:
            child = module._modules[name]
            self.assignments[name] = "None" if child is None else ""
            if child is not None:
                self.assignments[name] = self.copier.constructed(child, self.parts, name)
        elif name in module._buffers:
            self._buffer(name, module._buffers[name])
        elif name in vars(module):
            self._value(name, vars(module)[name])
        else:
            self._method(name)

    def _value(self, name: str, value: Any) -> None:
        if not is_literal(value):
            raise self.copier.refuse(f"its module has an attribute {name!r} of type {type(value).__name__}")
        if self.other is not None and getattr(self.other, name, None) != value:
            self.assignments[name] = self._size(name, value)
            return
        key = name.strip("_").upper()
        while key in self.settings or not key[:1].isalpha():
            key = f"OWN_{key}"
        self.settings[key] = Setting(Name(repr(value)))
        self.assignments[name] = f"${key}"

    def _size(self, name: str, value: Any) -> str:
        """Return the expression of an attribute that depends on sizes which stand for those of the uses."""
        if type(value) is int and value in self.copier.sizes:
            return self.copier.sizes[value]
        raise self.copier.refuse(
            f"the attribute {name!r} of its module depends on the number of features; compute it in the method that uses it"
        )

    def _buffer(self, name: str, buffer: Any) -> None:
        if buffer is None:
            self.assignments[name] = "None"
        elif name in self.module._non_persistent_buffers_set:
            raise self.copier.refuse(f"its module has a buffer {name!r}, which no file of weights has")
        else:
            shape = ", ".join(self.copier.size(size) for size in buffer.shape)
            self.assignments[name] = f"nn.Buffer(torch.zeros({shape or '()'}, dtype={buffer.dtype}))"

    def _parameter(self, name: str, parameter: Any) -> str:
        if parameter is None:
            return "None"
        shape = ", ".join(self.copier.size(size) for size in parameter.shape)
        declared: dict[str, Any] = getattr(self.module, "initial", dict)()
        value = _constant(declared.get(name), parameter.shape)
        made = f"torch.randn({shape or '()'}) * 0.02"
        if value in (0, 1):
            made = f"torch.{'ones' if value else 'zeros'}({shape or '()'})"
        elif value is not None:
            made = f"torch.full(({shape}{',' if parameter.dim() == 1 else ''}), {value!r})"
        return f"nn.Parameter({made}{'' if parameter.requires_grad else ', requires_grad=False'})"


def _constant(initial: Any, shape: Any) -> float | None:
    """Return the value that a declaration gives all elements of a parameter; None if they differ or are random."""
    import torch

    if initial in ("ones", "zeros"):
        return float(initial == "ones")
    if not callable(initial) or len(shape) > 1:
        return None
    values = initial(shape, torch.Generator().manual_seed(0)).flatten()
    return float(f"{float(values[0]):.9g}") if len(values) and bool((values == values[0]).all()) else None
