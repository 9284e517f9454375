"""Tables of the pairs of attention and position: an index, a page with all outcomes, and a section of each component."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gptkit.core.registry import Registry
from gptkit.docs.combinations.stored import outcomes
from gptkit.docs.places import DIRECTORY
from gptkit.reflect import prose

__all__ = ["PAGE", "matrix", "of_component", "pages"]

PAGE = f"{DIRECTORY}/combinations.md"
_KINDS = ("attention", "position")
_LEGEND = "✓ measured to hold; – refused, for the reason below the table; **✗** measured to fail; ? not measured."


def pages(registry: Registry, *, measure: bool = False) -> dict[str, str]:
    """Return the page of all pairs by its path; empty if a kind is missing.

    Args:
        registry: the components.
        measure: measure pairs that are not stored, such as those of plugins.
    """
    if not _has_pairs(registry):
        return {}
    columns = _columns()
    parts = [
        "# Combinations of attention and position",
        "Each pair whose declarations match is put into a small model and measured. Everything else in a model combines "
        "freely: a spec that cannot be computed is refused when it is loaded, with the reason.",
        "\n".join(f"- **{name}**: {meaning}" for name, meaning in columns.items()),
        _LEGEND,
    ]
    measured = outcomes(registry, measure=measure)
    for attention in registry.names("attention"):
        own = {position: columns for (name, position), columns in measured.items() if name == attention}
        rows = {f"[{position}](position/{position}.md)": each for position, each in own.items()}
        parts += [f"## {attention}", _table("position", rows, tuple(columns))]
        others = [f"`{name}`" for name in registry.names("position") if name not in own]
        parts += [f"It does not accept {_joined(others)}."] if others else []
    return {PAGE: "\n\n".join(part for part in parts if part) + "\n"}


def matrix(registry: Registry, *, up: str, measure: bool = False) -> str:
    """Return a table of positions by attentions with the number of properties that hold; empty if a kind is missing.

    Args:
        registry: the components.
        up: the path to the pages of the kinds.
        measure: as for `pages`.
    """
    if not _has_pairs(registry):
        return ""
    attentions = registry.names("attention")
    measured = outcomes(registry, measure=measure)
    rows = []
    for position in registry.names("position"):
        row = [f"[{position}]({up}position/{position}.md)"]
        for attention in attentions:
            own = measured.get((attention, position))
            if own is None:
                row.append("no")
            elif not own:
                row.append("yes")
            else:
                held = sum(outcome == "passed" for outcome in own.values())
                row.append(f"yes, [{held}/{len(own)}]({up}combinations.md#{attention})")
        rows.append(row)
    head = ["position", *(f"[{name}]({up}attention/{name}.md)" for name in attentions)]
    note = (
        "Where the attention applies what the position does, the numbers say how many of the "
        f"{len(_columns())} measured properties hold: {_joined(list(_columns()))}. [All outcomes]({up}combinations.md)."
    )
    return f"{prose.table(head, rows, marks=True)}\n\n{note}"


def of_component(registry: Registry, kind: str, name: str, *, measure: bool = False) -> str:
    """Return the outcomes of one attention or position with its partners; empty for another kind."""
    if kind not in _KINDS or not _has_pairs(registry):
        return ""
    own, other = (0, 1) if kind == "attention" else (1, 0)
    rows = {
        f"[{pair[other]}](../{_KINDS[other]}/{pair[other]}.md)": columns
        for pair, columns in outcomes(registry, measure=measure).items()
        if pair[own] == name
    }
    if not rows:
        return f"No installed {_KINDS[other]} combines with it."
    legend = f"{_LEGEND} The columns are explained under [combinations](../combinations.md)."
    return f"{_table(_KINDS[other], rows, tuple(_columns()))}\n\n{legend}"


def _has_pairs(registry: Registry) -> bool:
    return all(kind in registry.kinds() and registry.names(kind) for kind in _KINDS)


def _columns() -> dict[str, str]:
    from gptkit.docs.combinations.columns import COLUMNS  # torch

    return {name: column.meaning for name, column in COLUMNS.items()}


def _table(partner: str, rows: Mapping[str, Mapping[str, str]], columns: Sequence[str]) -> str:
    table = prose.table(
        [partner, *columns],
        [[link, *(_mark(own.get(column)) for column in columns)] for link, own in rows.items()],
        marks=True,
    )
    return "\n\n".join(part for part in (table, _reasons(rows.values(), columns)) if part)


def _mark(outcome: str | None) -> str:
    if outcome is None:
        return "?"
    return "✓" if outcome == "passed" else "–" if outcome.startswith("refused") else "**✗**"


def _reasons(rows: Iterable[Mapping[str, str]], columns: Sequence[str]) -> str:
    """Return each reason once, with the columns that it explains."""
    by_reason: dict[str, list[str]] = {}
    for own in rows:
        for column in columns:
            outcome, _, reason = own.get(column, "").partition(": ")
            if reason:
                named = by_reason.setdefault(f"{'**✗**' if outcome == 'failed' else '–'} {prose.inline(reason)}", [])
                named += [column] if column not in named else []
    return "\n".join(f"- {', '.join(named)}: {reason}" for reason, named in by_reason.items())


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
