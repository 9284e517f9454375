"""Components without a template: the source of their own module, with the values of a built one.

The module is built without storage, to read which attributes and parameters it has. Nothing of the model is computed.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from gptkit.core.component import Component
from gptkit.kinds.written import NotWrittenError, Setting, WritingContext, Written

__all__ = ["KINDS", "bundle"]

_D_IN, _D_OUT = 7919, 7907
"""Sizes of the built module that stand for the sizes of its uses: numbers that occur nowhere else."""
_LITERALS = (bool, int, float, str, type(None))


def bundle(spec: Component, context: WritingContext, where: Mapping[str, Any]) -> Written:
    """Return a component as a class with the methods of its module.

    Args:
        spec: the component.
        context: its build context.
        where: the arguments of its kind's `written`.

    Raises:
        NotWrittenError: its kind, or what its module uses, cannot be copied; gives the reason.
    """
    import torch

    if spec.kind not in _WRITERS:
        raise _refusal(spec, f"the module of a component of kind {spec.kind} uses gptkit's own classes")
    with torch.device("meta"):
        return _WRITERS[spec.kind](spec, context.replace(shared={}), where)


def _norm(spec: Any, context: WritingContext, where: Mapping[str, Any]) -> Written:
    copied = _Copied(spec, spec.build(context, dim=_D_IN), "forward", {_D_IN: "$DIM"})
    return copied.written("nn.Module", settings={"DIM": Setting(where["dim"])}, section="norm")


def _activation(spec: Any, context: WritingContext, where: Mapping[str, Any]) -> Written:
    copied = _Copied(spec, spec.build(context), "forward", {})
    return copied.written("nn.Module", calls={"apply": "self.activation($x)"}, section="feedforward")


def _linear(spec: Any, context: WritingContext, where: Mapping[str, Any]) -> Written:
    module = spec.build(context, d_in=_D_IN, d_out=_D_OUT, bias=True)
    copied = _Copied(spec, module, "forward", {_D_IN: "d_in", _D_OUT: "d_out"}, inherited=("weight", "bias"))
    options = "".join(f", {name}={value!r}" for name, value in copied.values.items())
    call = f"{copied.name}($d_in, $d_out{options}$bias)"
    return copied.written("nn.Linear", calls={"construct": call}, section="linear")


def _position(spec: Any, context: WritingContext, where: Mapping[str, Any]) -> Written:
    if spec.uses != {"bias"}:
        raise _refusal(spec, "its module does more than adding a bias to the scores")
    module = spec.build(context, heads=where["heads"])
    if context.shared:
        raise _refusal(spec, "all layers share its module")
    copied = _Copied(spec, module, "bias", {})
    keys = "torch.arange($n_keys, device=positions_T.device)"
    return copied.written("nn.Module", calls={"bias": f"self.position.bias(positions_T, {keys})"}, section="position")


_WRITERS: Mapping[str, Callable[[Any, WritingContext, Mapping[str, Any]], Written]] = {
    "norm": _norm,
    "activation": _activation,
    "linear": _linear,
    "position": _position,
}
KINDS = frozenset(_WRITERS)
"""Kinds whose components can be copied."""


def _refusal(spec: Component, reason: str) -> NotWrittenError:
    return NotWrittenError(
        f"{spec.kind} {spec.name!r} cannot be written out: {type(spec).__name__} does not define `written`, and {reason}",
        hint="Choose another component, or define the method (see docs/eject.md).",
    )


@dataclass
class _Copied:
    """What a method of a module needs: methods, functions, parameters and values.

    Attributes:
        sizes: the expressions of sizes of the parameters.
        inherited: names of parameters that the base class has.
    """

    spec: Component
    module: Any
    root: str
    sizes: Mapping[int, str]
    inherited: tuple[str, ...] = ()
    methods: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._method(self.root)

    @property
    def name(self) -> str:
        return type(self.module).__name__

    def written(self, base: str, **how: Any) -> Written:
        """Return the class, with the functions that it calls before it."""
        linear = base == "nn.Linear"
        summary = (inspect.getdoc(type(self.spec)) or self.name).splitlines()[0].replace("\\", "/").replace('"""', "")
        # Arguments that are None may be omitted in calls.
        ordered = sorted(self.values.items(), key=lambda item: item[1] is None)
        options = "".join(f", {name}: {_type(value)}" for name, value in ordered)
        signature = f"self, d_in: int, d_out: int{options}, bias: bool = True" if linear else "self$parameters"
        lines = [
            f"class {self.name if linear else '$class_name'}({base}):",
            f'    """{summary}"""',
            "",
            f"    def __init__({signature}) -> None:",
            "        super().__init__(d_in, d_out, bias)" if linear else "        super().__init__()",
            *(f"        self.{name} = {name if linear else repr(value)}" for name, value in self.values.items()),
            *(f"        self.{name} = {text}" for name, text in self.parameters.items()),
        ]
        text = "\n".join(lines) + "\n" + "".join(f"\n{textwrap.indent(method, '    ')}" for method in self.methods.values())
        section = how["section"]
        parts = {name: Written(name, source, section=section) for name, source in self.functions.items()}
        fields = [name for name in type(self.spec).model_fields if name != "name"]
        return Written(self.name, text, parts=parts, fields=fields, **how)

    def _method(self, name: str) -> None:
        definition = next((vars(cls)[name] for cls in type(self.module).__mro__ if name in vars(cls)), None)
        function = (
            definition.fget
            if isinstance(definition, property)
            else definition.__func__
            if isinstance(definition, staticmethod)
            else definition
        )
        if not isinstance(function, FunctionType) or function.__module__.partition(".")[0] == "torch":
            return  # of torch
        source = self._source(function)
        self.methods[name] = source
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                self._attribute(node.attr)
        self._globals(function, source)

    def _attribute(self, name: str) -> None:
        if name in self.methods or name in self.values or name in self.parameters or name in self.inherited:
            return
        module = self.module
        if name in module._parameters:
            self.parameters[name] = self._parameter(name, module._parameters[name])
        elif name in module._modules or name in module._buffers:
            raise _refusal(self.spec, f"its module has a module or buffer {name!r}")
        elif name in vars(module):
            value = vars(module)[name]
            if not isinstance(value, _LITERALS):
                raise _refusal(self.spec, f"its module has an attribute {name!r} of type {type(value).__name__}")
            self.values[name] = value
        else:
            self._method(name)

    def _parameter(self, name: str, parameter: Any) -> str:
        if parameter is None:
            return "None"
        shape = ", ".join(self.sizes.get(size, str(size)) for size in parameter.shape)
        declared: dict[str, Any] = getattr(self.module, "initial", dict)()
        initial = declared.get(name)
        made = (
            f"torch.{initial}({shape or '()'})" if initial in ("ones", "zeros") else f"torch.randn({shape or '()'}) * 0.02"
        )
        return f"nn.Parameter({made}{'' if parameter.requires_grad else ', requires_grad=False'})"

    def _source(self, function: FunctionType) -> str:
        try:
            source = textwrap.dedent(inspect.getsource(function))
        except OSError as error:
            raise _refusal(self.spec, f"the source of {function.__qualname__} is not available") from error
        if "$" in source:
            raise _refusal(self.spec, f"the source of {function.__qualname__} has a dollar sign")
        return source

    def _globals(self, function: FunctionType, source: str) -> None:
        """Add the functions of the same distribution that a function calls; refuse what the file does not import."""
        import torch
        import torch.nn.functional as F
        from torch import Tensor, nn

        imported = {"torch": torch, "F": F, "nn": nn, "Tensor": Tensor, "math": math}
        for name in _loaded_names(source):
            if name not in function.__globals__ or hasattr(builtins, name):
                continue
            value = function.__globals__[name]
            if name in imported and value is imported[name]:
                continue
            if not isinstance(value, FunctionType) or value.__module__.partition(".")[0] == "torch":
                raise _refusal(self.spec, f"{function.__qualname__} uses {name!r}, which the file does not have")
            if name != value.__name__:
                raise _refusal(self.spec, f"{function.__qualname__} uses {value.__qualname__} under the name {name!r}")
            if name not in self.functions:
                self.functions[name] = self._source(value)
                self._globals(value, self.functions[name])


def _type(value: Any) -> str:
    return "None = None" if value is None else type(value).__name__


def _loaded_names(source: str) -> Iterator[str]:
    """Yield the names that the body of a function reads; annotations are not evaluated."""
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    annotations = {
        id(node.annotation)
        for node in ast.walk(definition)
        if isinstance(node, (ast.AnnAssign, ast.arg)) and node.annotation
    }
    skipped = {id(inner) for node in ast.walk(definition) if id(node) in annotations for inner in ast.walk(node)}
    skipped |= {id(inner) for inner in ast.walk(definition.returns)} if definition.returns else set()
    for node in ast.walk(definition):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in skipped:
            yield node.id
