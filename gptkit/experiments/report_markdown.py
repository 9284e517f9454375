"""The report of an experiment as Markdown, with the figures beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gptkit.experiments.effects import p_text
from gptkit.experiments.statistics import LEVEL

__all__ = ["GENERATOR", "markdown", "table_lines", "text_of"]

GENERATOR = "<!-- written by gptkit compare -->"
"""First line of the file, by which it is recognized as written by gptkit."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def markdown(data: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """Return the report as Markdown.

    Args:
        data: its content, of `report_data`.
        figures: the files of the figures by name, as paths relative to the report.
    """
    return "\n".join([GENERATOR, "", *_lines(data, figures)]).rstrip("\n") + "\n"


def _lines(data: Mapping[str, Any], figures: Mapping[str, str]) -> Iterator[str]:
    yield from (f"# {text_of(data['name'])}", "")
    if data["question"]:
        yield from (text_of(data["question"]), "")
    counts = [f"{data['n_variants']} variants", f"{len(data['seeds'])} seeds"]
    counts.append(f"{data['n_finished']} of {data['n_trials']} trainings finished")
    if data["tokens"]:
        counts.append(" to ".join(f"{tokens:,}" for tokens in data["tokens"]) + " tokens each")
    if data["match"]:
        counts.append(f"equal {data['match']}")
    yield from (", ".join(counts) + f". Compared: {data['measure']['title']} ({data['measure']['unit']}).", "")
    yield from _list(data["cautions"])
    if data["effects"]:
        yield from ("## Effects", "")
        yield from _list(data["findings"])
        yield from _figure(figures, "effects", "Effects with their intervals")
        yield from _effects(data["effects"])
    if data["sizes"]:
        yield from ("## At several sizes", "")
        for choice in data["sizes"]:
            name = f"{choice['axis']}: {choice['value']} instead of {choice['baseline']}"
            yield from (f"**{text_of(name)}**: {text_of(choice['statement'])}.", "")
            yield from _list(effect["text"] for effect in choice["effects"])
    yield from ("## Results", "")
    yield from _results(data)
    yield from _figure(figures, "loss", "Loss curves")
    yield from _figure(figures, "positions", "Loss by position in the context")
    yield from _figure(figures, "rates", "Loss by learning rate")
    if data["samples"]:
        yield from ("## Samples", "")
        for sample in data["samples"]:
            yield from (f"**{text_of(sample['label'])}**", "")
            for text in sample["texts"]:
                yield from (*(f"    {line}" for line in text.splitlines()), "")
    changed = [each for each in data["differences"] if each["changes"]]
    if changed:
        yield from ("## Differences between the specs", "")
        rows = [
            [each["label"] if not index else "", change["path"], change["base"], change["variant"]]
            for each in changed
            for index, change in enumerate(each["changes"])
        ]
        yield from table_lines(["variant", "field", "base", "value"], rows)
    if data["failures"] or data["invalid"]:
        yield from ("## Without a result", "")
        yield from _list(f"{each['variant']}, seed {each['seed']}: {each['reason']}" for each in data["failures"])
        yield from _list(f"{each['variant']}: {each['reason']}" for each in data["invalid"])
    yield from ("## How this was measured", "")
    yield from _list(data["method"])
    yield from ("To repeat it:", "", "```text", *data["command"].splitlines(), "```")


def _effects(effects: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for effect in effects:
        interval = "" if effect["low"] is None else f"{effect['low']:+.4f} to {effect['high']:+.4f}"
        p = "" if effect["p"] is None else p_text(effect["p"]).removeprefix("p = ").removeprefix("p ")
        flips = "" if effect["p_flips"] is None else f"{effect['p_flips']:.3g} (≥ {effect['smallest_p_flips']:.3g})"
        mean = "" if effect["mean"] is None else f"{effect['mean']:+.4f}"
        choice = f"{effect['axis']}: {effect['value']} instead of {effect['baseline']}"
        rows.append([choice, mean, interval, p, flips, str(effect["n"]), effect["verdict"]])
    header = [
        "choice",
        "difference",
        f"{LEVEL:.0%} interval",
        "p, corrected",
        "p of sign flips (smallest)",
        "seeds",
        "verdict",
    ]
    yield from table_lines(header, rows)


def _results(data: Mapping[str, Any]) -> Iterator[str]:
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "validation loss": lambda row: _within(row["loss"]),
        "bits per byte": lambda row: _within(row["bits_per_byte"]),
        "seeds": lambda row: f"{row['n']}" + (f" ({row['n_failed']} failed)" if row["n_failed"] else ""),
        "learning rate": lambda row: "" if row["learning_rate"] is None else f"{row['learning_rate']:g}",
        "beyond": lambda row: _within(row["extrapolation"], "+.4f"),
        "parameters": lambda row: f"{row['parameters']:,}",
        "FLOPs/token": lambda row: f"{row['flops_per_token']:.4g}",
        "cache bytes/token": lambda row: f"{row['cache_bytes_per_token']:,.0f}",
        "training tokens/s": lambda row: _number(row["tokens_per_second"]),
        "decoding tokens/s": lambda row: _number(row["decode_tokens_per_second"]),
        "peak memory (MiB)": lambda row: "" if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:,.0f}",
        "seconds": lambda row: _number(row["seconds"]),
    }
    cells = {name: [column(row) for row in data["rows"]] for name, column in columns.items()}
    shown = [name for name, values in cells.items() if any(values)]
    titles = {name: f"{name} ± {LEVEL:.0%} interval" for name in shown if any(" ± " in cell for cell in cells[name])}
    names = [row["label"] + (" (base)" if row["is_base"] else "") for row in data["rows"]]
    yield from table_lines(
        ["variant", *(titles.get(name, name) for name in shown)],
        [[name, *(cells[column][at] for column in shown)] for at, name in enumerate(names)],
    )
    yield from _list(f"{row['label']}: {row['matched']}" for row in data["rows"] if row["matched"])


def _figure(figures: Mapping[str, str], name: str, title: str) -> Iterator[str]:
    if name in figures:
        yield from (f"![{title}]({figures[name]})", "")


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, with an empty one at its end."""
    yield f"| {' | '.join(header)} |"
    yield f"| {' | '.join('---' for _ in header)} |"
    for row in rows:
        yield f"| {' | '.join(text_of(cell) for cell in row)} |"
    yield ""


def _list(texts: Iterable[str]) -> Iterator[str]:
    lines = [f"- {text_of(text)}" for text in texts]
    yield from [*lines, ""] if lines else ()


def text_of(text: str) -> str:
    """Escape what Markdown and HTML would interpret, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _within(value: Sequence[float | None] | None, form: str = ".4f") -> str:
    if value is None or value[0] is None:
        return ""
    return format(value[0], form) + ("" if value[1] is None else f" ± {value[1]:.4f}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"
