"""Weights that a written file declares, read from its source: constructors are interpreted, and no code is executed.

The interpreter supports what constructors of written files consist of: constants, arithmetic, loops, classes of the file,
and torch's own modules and functions that create tensors, all without storage.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["UnreadableError", "declared_weights", "difference"]

_MOST_STEPS = 2_000_000
_LONGEST = 1_000_000
_CREATED = {"arange", "empty", "full", "linspace", "ones", "rand", "randn", "stack", "tensor", "zeros"}
_FILLED = {"expand", "fill_", "normal_", "repeat", "reshape", "uniform_", "unsqueeze", "view", "zero_"}
_ELEMENTWISE = {"clone", "cos", "cumsum", "detach", "exp", "expm1", "float", "log", "log1p", "neg", "pow", "sin", "sqrt"}
_METHODS = _FILLED | _ELEMENTWISE
"""Methods of tensors that may be called."""


def _range(*bounds: int) -> range:
    result = range(*bounds)
    if len(result) > _LONGEST:
        raise UnreadableError(f"range{bounds} is too long")
    return result


_BUILT_IN: dict[str, Callable[..., Any]] = {
    "range": _range,
    **{
        each.__name__: each
        for each in (abs, bool, dict, enumerate, float, hasattr, int, len, list, max, min, round, sum, tuple, zip)
    },
}
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}
Scope = dict[str, Any]


class UnreadableError(Exception):
    """A constructor has something that is not interpreted; the message is what."""


class _Object(nn.Module):
    """An object of a class of the file."""


def declared_weights(source: str, root: str, **config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights that files of a model's weights have, by name.

    Args:
        source: the written file.
        root: the class of the model.
        config: the attributes of the argument of its constructor; without any, it has no argument.

    Raises:
        UnreadableError: the source has something that is not interpreted; gives what.
    """
    try:
        reader = _Reader(ast.parse(source))
        with torch.device("meta"):
            model = reader.constructed(root, [SimpleNamespace(**config)] if config else [], {})
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError("its constructors call one another without end") from None
    except Exception as error:
        raise UnreadableError(f"{type(error).__name__}: {error}".partition("\n")[0]) from None
    tied = reader.class_value(root, "_tied_weights_keys") if config.get("tie_word_embeddings", True) else None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in (tied or {})}


def difference(declared: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]) -> str:
    """Return how the weights that a source declares differ from those of files, as a sentence; empty if they do not."""
    missing, unexpected = sorted(declared.keys() - stored), sorted(stored.keys() - declared)
    for names, what in ((missing, "the files do not have"), (unexpected, "the code does not declare")):
        if names:
            return f"{what} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    other = next((name for name, shape in declared.items() if stored[name] != shape), None)
    return "" if other is None else f"{other} is {list(declared[other])} in the code and {list(stored[other])} in the files"


class _Reader:
    """The constructors of a source.

    Attributes:
        classes: the classes of the file, by name.
        constants: the constants of the file.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self.constants: Scope = {"nn": nn, "torch": torch}
        self.steps = 0
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.constants[node.targets[0].id] = self.value(node.value, {})

    def class_value(self, name: str, attribute: str) -> Any:
        """Return the value of an attribute that a class defines; None if it does not."""
        for node in self.classes[name].body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == attribute:
                return self.value(node.value, {})
        return None

    def constructed(self, name: str, arguments: list[Any], named: Mapping[str, Any]) -> _Object:
        """Return an object of a class of the file."""
        if name not in self.classes:
            raise UnreadableError(f"the class {name!r} is missing")
        made = _Object()
        self._construct(name, made, arguments, named)
        return made

    def _construct(self, name: str, made: _Object, arguments: list[Any], named: Mapping[str, Any]) -> None:
        definition = self.classes[name]
        method = next(
            (each for each in definition.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None
        )
        if method is None:
            self._construct_base(definition, made, arguments, named)
            return
        own = method.args.args
        scope = dict(zip([each.arg for each in own], [made, *arguments], strict=False))
        defaults = zip(own[len(own) - len(method.args.defaults) :], method.args.defaults, strict=True)
        scope = {**{each.arg: self.value(value, {}) for each, value in defaults}, **scope, **named}
        scope["super().__init__"] = lambda *given, **by_name: self._construct_base(definition, made, list(given), by_name)
        self._execute(method.body, scope)

    def _construct_base(
        self, definition: ast.ClassDef, made: _Object, arguments: list[Any], named: Mapping[str, Any]
    ) -> None:
        base = ast.unparse(definition.bases[0]) if definition.bases else "nn.Module"
        if base in self.classes:
            self._construct(base, made, arguments, named)
        elif base not in ("nn.Module", "PreTrainedModel"):
            module = self._torch_module(base.removeprefix("nn."))(*arguments, **named)
            for attribute, value in {**vars(module), **module._parameters, **module._modules, **module._buffers}.items():
                if not attribute.startswith("_"):
                    setattr(made, attribute, value)

    # -- statements ----------------------------------------------------------------------------------------------------

    def _execute(self, body: list[ast.stmt], scope: Scope) -> None:
        for node in body:
            self._count()
            if isinstance(node, ast.Expr):
                if not isinstance(node.value, ast.Constant):
                    self.value(node.value, scope)
            elif isinstance(node, ast.Assign):
                value = self.value(node.value, scope)
                for target in node.targets:
                    self._assign(target, value, scope)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                self._assign(node.target, self.value(node.value, scope), scope)
            elif isinstance(node, ast.If):
                self._execute(node.body if self.value(node.test, scope) else node.orelse, scope)
            elif isinstance(node, ast.For) and not node.orelse:
                for each in self.value(node.iter, scope):
                    self._assign(node.target, each, scope)
                    self._execute(node.body, scope)
            elif not isinstance(node, ast.Pass):
                raise _unread(node)

    def _assign(self, target: ast.expr, value: Any, scope: Scope) -> None:
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, ast.Attribute):
            holder = self.value(target.value, scope)
            if not isinstance(holder, nn.Module) or target.attr.startswith("_"):
                raise _unread(target)
            setattr(holder, target.attr, value)
        elif isinstance(target, ast.Tuple):
            for each, item in zip(target.elts, value, strict=True):
                self._assign(each, item, scope)
        elif not (isinstance(target, ast.Subscript) and ast.unparse(target.value).endswith(".data")):  # values of a weight
            raise _unread(target)

    # -- expressions ---------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr, scope: Scope) -> Any:
        """Return the value of an expression."""
        self._count()
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._name(node, scope)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, scope)
        if isinstance(node, ast.Call):
            return self._call(node, scope)
        if isinstance(node, (ast.Tuple, ast.List)):
            items = [self.value(each, scope) for each in node.elts]
            return tuple(items) if isinstance(node, ast.Tuple) else items
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            return {self.value(key, scope): self.value(each, scope) for key, each in pairs if key is not None}
        if isinstance(node, ast.Subscript):
            return self.value(node.value, scope)[self.value(node.slice, scope)]
        if isinstance(node, ast.Slice):
            return slice(
                *(None if each is None else self.value(each, scope) for each in (node.lower, node.upper, node.step))
            )
        if isinstance(node, ast.IfExp):
            return self.value(node.body if self.value(node.test, scope) else node.orelse, scope)
        if isinstance(node, (ast.ListComp, ast.GeneratorExp)) and len(node.generators) == 1:
            return list(self._items(node.elt, node.generators[0], scope))
        return self._computed(node, scope)

    def _computed(self, node: ast.expr, scope: Scope) -> Any:
        if isinstance(node, ast.BinOp):
            left, right = self.value(node.left, scope), self.value(node.right, scope)
            if isinstance(node.op, ast.Pow) and (abs(left) > _LONGEST or abs(right) > 64):
                raise _unread(node)
            if not isinstance(left, (int, float, Tensor)) and isinstance(node.op, ast.Mult) and len(left) * right > _LONGEST:
                raise _unread(node)
            return _OPERATORS[type(node.op)](left, right)
        if isinstance(node, ast.UnaryOp):
            return _OPERATORS[type(node.op)](self.value(node.operand, scope))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return _OPERATORS[type(node.ops[0])](self.value(node.left, scope), self.value(node.comparators[0], scope))
        if isinstance(node, ast.BoolOp):
            result = None
            for each in node.values:
                result = self.value(each, scope)
                if bool(result) == isinstance(node.op, ast.Or):
                    break
            return result
        raise _unread(node)

    def _items(self, element: ast.expr, loop: ast.comprehension, scope: Scope) -> Iterator[Any]:
        for each in self.value(loop.iter, scope):
            inner = dict(scope)
            self._assign(loop.target, each, inner)
            if all(self.value(condition, inner) for condition in loop.ifs):
                yield self.value(element, inner)

    def _name(self, node: ast.Name, scope: Scope) -> Any:
        for names in (scope, self.constants):
            if node.id in names:
                return names[node.id]
        raise _unread(node)

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Any:
        holder = self.value(node.value, scope)
        if holder is torch and node.attr in ("float32", "float64", "bfloat16", "float16", "long", "int64", "int32", "bool"):
            return getattr(torch, node.attr)
        known = isinstance(holder, (nn.Module, SimpleNamespace)) and not node.attr.startswith("_")
        if not known or (callable(value := getattr(holder, node.attr)) and not isinstance(value, nn.Module)):
            raise _unread(node)
        return value

    def _call(self, node: ast.Call, scope: Scope) -> Any:
        name = ast.unparse(node.func)
        arguments = [
            item
            for each in node.args
            for item in (self.value(each.value, scope) if isinstance(each, ast.Starred) else [self.value(each, scope)])
        ]
        named = {each.arg: self.value(each.value, scope) for each in node.keywords if each.arg is not None}
        if "device" in named:  # only tensors without storage are created
            raise _unread(node)
        if name == "super().__init__":
            return scope[name](*arguments, **named)
        if name == "refer":  # a module that layers share; its weights are those of the model alone
            holder, attribute, shared = arguments
            delattr(holder, attribute)
            vars(holder)[attribute] = shared
            return None
        if name in self.classes:
            return self.constructed(name, arguments, named)
        if name in _BUILT_IN:
            return _BUILT_IN[name](*arguments, **named)
        if isinstance(node.func, ast.Attribute):
            return self._method(node.func, arguments, named, scope)
        raise _unread(node)

    def _method(self, function: ast.Attribute, arguments: list[Any], named: Mapping[str, Any], scope: Scope) -> Any:
        name, holder = function.attr, self.value(function.value, scope)
        if holder is nn:
            return self._torch_module(name)(*arguments, **named)
        if (holder is torch and name in _CREATED) or (isinstance(holder, Tensor) and name in _METHODS):
            return getattr(holder, name)(*arguments, **named)
        if isinstance(holder, _Object) and name in ("modules", "post_init"):
            return list(holder.modules()) if name == "modules" else None
        if isinstance(holder, nn.Module) and name == "named_parameters":
            return list(holder.named_parameters())
        if isinstance(holder, _Object) and name == "register_parameter":
            return holder.register_parameter(*arguments)
        if isinstance(holder, (list, nn.ModuleList)) and name == "append":
            return holder.append(*arguments)
        if isinstance(holder, dict) and name in ("get", "items", "keys", "values"):
            return getattr(holder, name)(*arguments)
        raise _unread(function)

    def _torch_module(self, name: str) -> Callable[..., Any]:
        made: Any = getattr(nn, name, None)
        if not isinstance(made, type) or "Transformer" in name or not issubclass(made, (nn.Module, nn.Parameter, nn.Buffer)):
            raise UnreadableError(f"nn.{name}")
        return made

    def _count(self) -> None:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise UnreadableError("its constructors have too many steps")


def _unread(node: ast.AST) -> UnreadableError:
    return UnreadableError(f"line {getattr(node, 'lineno', 0)}: {ast.unparse(node).partition(chr(10))[0]}")
