"""Tree of a model's modules with parameter counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from gptkit.core import html

__all__ = ["Branch", "branches", "count", "module_title", "tree", "tree_html"]


@dataclass(frozen=True)
class Branch:
    """A line of the tree: a module, or a parameter.

    Attributes:
        lead: the lines that connect it with the branch above.
        label: name and kind; equal siblings are folded into one line, as in ``0–5: Block × 6``.
        name: full name in the model, for equal siblings of the first one.
        shapes: shapes of the parameters of the line that are not listed below it.
        parameters: number of parameters of all modules of the line.
        is_parameter: whether it is a parameter.
    """

    lead: str
    label: str
    name: str
    shapes: tuple[tuple[int, ...], ...]
    parameters: int
    is_parameter: bool = False


def count(module: nn.Module, *, trained: bool = False) -> int:
    """Return the number of parameters, tied and shared ones counted once; with `trained` only trainable ones."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)


def tree(model: nn.Module) -> str:
    """Return every module with parameters, indented, with consecutive equal siblings on one line."""
    lines = [f"{type(model).__name__}  {count(model):,}"]
    for branch in branches(model):
        label = f"{branch.label}: {branch.shapes[0]}" if branch.is_parameter else branch.label
        lines.append(f"{branch.lead}{label}  {branch.parameters:,}")
    return "\n".join(lines)


def tree_html(model: nn.Module) -> str:
    """Return the tree as HTML for a notebook."""
    title, *lines = tree(model).splitlines()
    name, _, n_parameters = title.partition("  ")
    return html.heading(name, f"{n_parameters} parameters") + html.code("\n".join(lines))


def branches(module: nn.Module, indent: str = "", path: str = "") -> Iterator[Branch]:
    """Yield the lines of the tree below a module."""
    children = [(name, child) for name, child in module.named_children() if count(child)]
    own = [] if _is_leaf(module) else list(module.named_parameters(recurse=False))
    groups = _fold(children)
    last = len(groups) + len(own) - 1
    for index, (label, child, times) in enumerate(groups):
        corner, bar = ("└─ ", "   ") if index == last else ("├─ ", "│  ")
        many = f" × {times}" if times > 1 else ""
        shapes = tuple(tuple(p.shape) for p in child.parameters(recurse=False)) if _is_leaf(child) else ()
        name = f"{path}{label.split('–')[0]}"
        yield Branch(f"{indent}{corner}", f"{label}: {module_title(child)}{many}", name, shapes, count(child) * times)
        yield from branches(child, indent + bar, f"{name}.")
    for index, (name, parameter) in enumerate(own, len(groups)):
        corner = "└─ " if index == last else "├─ "
        yield Branch(f"{indent}{corner}", name, f"{path}{name}", (tuple(parameter.shape),), parameter.numel(), True)


def _is_leaf(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def module_title(module: nn.Module) -> str:
    """Return what a module is, ``Linear 64 → 256``: its class, and the sizes of torch's own layers."""
    kind = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"{kind} {module.in_features} → {module.out_features}"
    if isinstance(module, nn.Embedding):
        return f"{kind} {module.num_embeddings} × {module.embedding_dim}"
    return kind


def _fold(children: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module, int]]:
    groups: list[tuple[str, nn.Module, int]] = []
    for name, child in children:
        if groups and name.isdigit() and _signature(groups[-1][1]) == _signature(child):
            first, same, times = groups[-1]
            groups[-1] = (f"{first.split('–')[0]}–{name}", same, times + 1)
        else:
            groups.append((name, child, 1))
    return groups


def _signature(module: nn.Module) -> tuple[object, ...]:
    shapes = tuple((name, tuple(p.shape)) for name, p in module.named_parameters())
    return (*[type(m).__name__ for m in module.modules()], shapes)
