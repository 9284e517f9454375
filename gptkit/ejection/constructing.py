"""Expressions that construct the modules of a copied class: torch's own, nested components, and further copies."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gptkit.core.component import Component
from gptkit.ejection.recording import Built, Recorder
from gptkit.kinds.written import Name, NotWrittenError, Section, WritingContext, Written, linear, written

__all__ = ["Copier", "refusal"]


def refusal(spec: Component, reason: str) -> NotWrittenError:
    """Return the error of a component that cannot be copied."""
    return NotWrittenError(
        f"{spec.kind} {spec.name!r} cannot be written out: {type(spec).__name__} does not define `written`, and {reason}",
        hint="Choose another component, or define the method (see docs/eject.md).",
    )


@dataclass
class Copier:
    """What the copies of one component have in common.

    Attributes:
        spec: the component.
        context: its build context.
        recorder: what was built with it.
        section: the part of the file that the classes belong to.
        copy: copies the class of a module that no component built.
        sizes: expressions of sizes of parameters.
    """

    spec: Component
    context: WritingContext
    recorder: Recorder
    section: Section
    copy: Callable[[Copier, Any], Written]
    sizes: Mapping[int, str] = field(default_factory=dict)

    def size(self, number: int) -> str:
        """Return the expression of a size."""
        known = {self.context.vocab_size: "VOCAB_SIZE", self.context.width: "D_MODEL", **self.sizes}
        return known.get(number, str(number))

    def refuse(self, reason: str) -> NotWrittenError:
        """Return the error that names the component."""
        return refusal(self.spec, reason)

    def constructed(self, module: Any, parts: dict[str, Written], name: str) -> str:
        """Return the expression that constructs a module; parts that it needs are added.

        Args:
            name: the attribute that has the module, from which names of parts are made.
        """
        import torch

        projection, built = self.recorder.projections.get(id(module)), self.recorder.components.get(id(module))
        if projection is not None:
            d_in, d_out = self.size(projection.d_in), self.size(projection.d_out)
            return linear(projection.context, d_in, d_out, bias=projection.bias)
        if built is not None and built.spec.kind == "linear":
            parts[f"{name}_linear"] = part = self.nested(built)
            sizes = {key: self.size(built.where[key]) for key in ("d_in", "d_out")}
            return part.call("construct", **sizes, bias="" if built.where["bias"] else ", bias=False")
        if built is not None:
            part = self.nested(built)
            if not part.text and not part.expression:
                return "nn.Identity()"
            parts[name] = part
            return f"${name}"
        inner = dict(module.named_children())
        own = type(module).__module__.partition(".")[0] == "torch"
        if own and isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)):
            items = [self.constructed(child, parts, f"{name}_{key}") for key, child in inner.items()]
            if any(id(child) in self.recorder.components for child in inner.values() if not _is_leaf(child)):
                raise self.refuse(f"its module holds components in a list, {name!r}")
            joined = ", ".join(items)
            return f"nn.Sequential({joined})" if isinstance(module, torch.nn.Sequential) else f"nn.ModuleList([{joined}])"
        if own and not inner:
            return self._leaf(module, name)
        if own:
            raise self.refuse(f"its module has a module of class {type(module).__name__}, {name!r}")
        parts[name] = self.copy(self, module)
        return f"${name}"

    def nested(self, built: Built) -> Written:
        """Return how a nested component is written out."""
        where = dict(built.where)
        kind = built.spec.kind
        if kind == "norm":
            where = {"dim": Name(self.size(built.where["dim"]))}
        elif kind == "position":
            where = {"heads": built.where.get("heads")}
        elif kind not in ("router",):
            where = {}
        return written(built.spec, built.context, **where)

    def _leaf(self, module: Any, name: str) -> str:
        from torch import nn

        if isinstance(module, nn.Linear) and type(module) is nn.Linear:
            bias = "" if module.bias is not None else ", bias=False"
            return f"nn.Linear({self.size(module.in_features)}, {self.size(module.out_features)}{bias})"
        if type(module) is nn.Embedding and module.padding_idx is None and module.max_norm is None:
            return f"nn.Embedding({self.size(module.num_embeddings)}, {self.size(module.embedding_dim)})"
        # The text of torch's modules is a call of their class.
        text = f"nn.{module!r}"
        try:
            tree = ast.parse(text, mode="eval")
        except SyntaxError:
            raise self.refuse(f"its module has a module of class {type(module).__name__}, {name!r}") from None
        if getattr(nn, type(module).__name__, None) is not type(module) or not isinstance(tree.body, ast.Call):
            raise self.refuse(f"its module has a module of class {type(module).__name__}, {name!r}")
        return text.replace(", inplace=False", "")


def _is_leaf(module: Any) -> bool:
    return not any(True for _ in module.children())
