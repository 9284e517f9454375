"""A model printed as a tree, with parameter counts."""

from __future__ import annotations

from torch import nn

__all__ = ["count", "tree"]


def count(module: nn.Module, *, trained: bool = False) -> int:
    """Parameters, tied and shared ones counted once; with `trained` those that take gradients only."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)


def tree(model: nn.Module) -> str:
    """Every module that holds parameters, indented, runs of equal siblings folded into one line."""
    lines = [f"{type(model).__name__}  {count(model):,}"]
    _branches(model, "", lines)
    return "\n".join(lines)


def _branches(module: nn.Module, indent: str, lines: list[str]) -> None:
    children = [(name, child) for name, child in module.named_children() if count(child)]
    own = [(name, p) for name, p in module.named_parameters(recurse=False)]
    groups = _fold(children)
    last = len(groups) + len(own) - 1
    for index, (label, child, times) in enumerate(groups):
        corner, bar = ("└─ ", "   ") if index == last else ("├─ ", "│  ")
        many = f" × {times}" if times > 1 else ""
        lines.append(f"{indent}{corner}{label}: {_title(child)}{many}  {count(child) * times:,}")
        _branches(child, indent + bar, lines)
    if _is_leaf(module):
        return
    for index, (name, parameter) in enumerate(own, len(groups)):
        corner = "└─ " if index == last else "├─ "
        lines.append(f"{indent}{corner}{name}: {tuple(parameter.shape)}  {parameter.numel():,}")


def _is_leaf(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _title(module: nn.Module) -> str:
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
