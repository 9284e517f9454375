"""`gptkit plugin`: create a plugin from a template, and run the conformance checks of a plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.failures import Command, Commands
from gptkit.cli.options import complete_kinds
from gptkit.core.activity import working
from gptkit.core.errors import GptkitError, RegistryError

if TYPE_CHECKING:
    from rich.text import Text

    from gptkit.core.registry import Plugin, Registry
    from gptkit.testing import Result

app = typer.Typer(
    cls=Commands,
    help="Create a plugin from a template, or check an installed one.",
    no_args_is_help=True,
)

_COLUMNS = 4
"""Number of components per table."""

_MARKS = {
    "passed": ("ok", "green"),
    "failed": ("FAILED", "bold red"),
    "skipped": ("–", "dim"),
    "expected": ("known", "yellow"),
    "unexpected": ("PASSES", "bold red"),
}


@app.command(cls=Command)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The component's name, for example talking-heads.")],
    kind: Annotated[
        str,
        typer.Option(
            "--kind", "-k", metavar="KIND", help="The component's kind: attention, sampler, …", autocompletion=complete_kinds
        ),
    ],
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="The parent directory of the distribution.")] = Path(),
) -> None:
    """Create a working plugin distribution: entry point, component, tests, README, license.

    For example: gptkit plugin new talking-heads --kind attention
    """
    from gptkit.cli.plugin_files import render
    from gptkit.core.atomic import atomic_directory, write_text
    from gptkit.core.commands import quoted
    from gptkit.core.registry import default_registry

    contents = render(name, kind)
    name = name.removeprefix("gptkit-")
    registry = default_registry()
    if name in registry.names(kind):
        owner = registry.entry(kind, name).plugin.provenance
        raise GptkitError(f"{kind} {name!r} is already registered by {owner}", hint="Choose another name.")
    directory = into / f"gptkit-{name}"
    if directory.exists() or directory.is_symlink():
        raise GptkitError(f"{directory} already exists", hint="Choose another name, or another directory with --into.")
    with atomic_directory(directory) as new_directory:
        for path, text in contents.items():
            target = new_directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_text(target, text)
    for path in contents:
        console.out(str(directory / path))
    console.note(
        f"next: pip install -e {quoted(f'{directory}[test]')}, then: gptkit plugin check gptkit-{name}", style="dim"
    )


@app.command(cls=Command)
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A distribution, or the name of one of its plugins.")],
    slow: Annotated[bool, typer.Option("--slow", help="Also run checks that take seconds (torch.compile).")] = False,
    expected: Annotated[
        list[str] | None,
        typer.Option(
            "--expect-failure",
            metavar="COMPONENT:CHECK=REASON",
            help="A check that a component is known to fail, with the reason. Repeatable.",
        ),
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Show the reason of every check, and of every skipped one.")] = False,
) -> None:
    """Run the conformance checks on every component of a plugin.

    The exit code is 0 if all checks pass, and 1 if one fails.
    """
    from gptkit.core.registry import default_registry
    from gptkit.testing import checks_for

    registry = default_registry()
    provided = _components(registry, name)
    if not provided:
        console.out(f"{name} provides no components, so there is nothing to check")
        return
    known = _expected_failures(expected or (), provided, registry)
    results: list[Result] = []
    by_kind: dict[str, list[str]] = {}
    for kind, component in provided:
        by_kind.setdefault(kind, []).append(component)
    for kind, components in by_kind.items():
        columns: list[list[Result]] = []
        for component in components:
            with working(f"checking {kind} {component}"):
                columns += _check(registry, kind, component, slow, known.get(component, {}))
        names = [check.name for check in checks_for(kind, registry) if slow or not check.slow]
        for start in range(0, len(columns), _COLUMNS):
            _show(kind, names, columns[start : start + _COLUMNS])
        if why:
            rows = [[check.name, check.why] for check in checks_for(kind, registry)]
            console.stdout().print(console.table([("", {"style": "cyan", "no_wrap": True}), ""], rows, header=False))
        results += [result for column in columns for result in column]
        for component in components:
            _note_unvaried(registry, kind, component)
    _conclude(results, why=why)


def _components(registry: Registry, name: str) -> list[tuple[str, str]]:
    """Return kind and name of the components of a distribution, or of one of its plugins."""
    from packaging.utils import canonicalize_name

    from gptkit.core.suggestions import did_you_mean

    plugins = registry.plugins()
    wanted = canonicalize_name(name)
    selected: Sequence[Plugin] = [plugin for plugin in plugins if canonicalize_name(plugin.distribution) == wanted]
    selected = selected or [plugin for plugin in plugins if canonicalize_name(plugin.name) == wanted]
    if not selected:
        known = list(dict.fromkeys(plugin.distribution for plugin in plugins))
        hint = "Install it first: pip install -e DIRECTORY."
        raise RegistryError(f"plugin {name!r} is not installed; {did_you_mean(name, known, label='installed')}", hint=hint)
    for plugin in selected:
        if plugin.status != "active" or plugin.error:
            raise RegistryError(f"{plugin.provenance} ({plugin.module}): {plugin.error or f'it is {plugin.status}'}")
    return [component for plugin in selected for component in plugin.components]


def _expected_failures(
    given: Sequence[str], provided: Sequence[tuple[str, str]], registry: Registry
) -> dict[str, dict[str, str]]:
    """Return the reason of each expected failure, by component and check."""
    from gptkit.core.suggestions import did_you_mean
    from gptkit.testing import checks_for

    kinds = {name: kind for kind, name in provided}
    expected: dict[str, dict[str, str]] = {}
    for text in given:
        named, _, reason = text.partition("=")
        component, _, check = named.partition(":")
        if component not in kinds:
            raise GptkitError(f"--expect-failure {text}: unknown component; {did_you_mean(component, list(kinds))}")
        checks = [each.name for each in checks_for(kinds[component], registry)]
        if check not in checks:
            raise GptkitError(f"--expect-failure {text}: unknown check; {did_you_mean(check, checks, label='checks')}")
        expected.setdefault(component, {})[check] = reason or "no reason given"
    return expected


def _check(registry: Registry, kind: str, name: str, slow: bool, expected: Mapping[str, str]) -> list[list[Result]]:
    """Return the results of a component, a list for each of its instances."""
    from gptkit.testing import KNOWN_FAILURES, Check, Result, run_checks

    specs, reason = _instances(registry, kind, name)
    expected = {**KNOWN_FAILURES.get(f"{kind} {name}", {}), **expected}
    if specs:
        return [run_checks(spec, slow=slow, expected_failures=expected, registry=registry) for spec in specs]
    # Nothing can be built, so no other check applies.
    known = expected.get("constructible")
    check = Check("constructible", "", lambda subject: None)
    return [[Result(f"{kind} {name}", check, "expected" if known else "failed", known or reason)]]


def _instances(registry: Registry, kind: str, name: str) -> tuple[list[Any], str]:
    """Return the specs of a component to check, and the reason if there are none."""
    from pydantic import ValidationError

    from gptkit.testing import instances
    from gptkit.testing.common import missing_examples

    try:
        cls = registry.component(kind, name)
        return list(instances(cls, registry)), missing_examples(cls) or ""
    except ValidationError as error:
        return [], f"its defaults or one of its `examples` are not valid: {error.errors()[0]['msg']}"
    except Exception as error:  # a plugin's validator may raise anything
        return [], f"its defaults or one of its `examples` raise {type(error).__name__}: {error}"


def _note_unvaried(registry: Registry, kind: str, name: str) -> None:
    """Print the fields of a component that were checked with one value only."""
    specs, _ = _instances(registry, kind, name)
    fields = [field for field in registry.component(kind, name).model_fields if field != "name"]
    unvaried = [field for field in fields if all(getattr(spec, field) == getattr(specs[0], field) for spec in specs)]
    if specs and unvaried:
        values = f"{kind} {name}: only one value was checked of {', '.join(unvaried)}"
        console.note(f"{values}; `examples` of the spec class can add others", style="dim")


def _show(kind: str, names: Sequence[str], columns: Sequence[Sequence[Result]]) -> None:
    titles: list[console.Column] = [("", {"style": "cyan", "no_wrap": True})]
    titles += [(column[0].component.removeprefix(f"{kind} "), {"overflow": "fold"}) for column in columns]
    marks = [{result.check.name: _mark(result) for result in column} for column in columns]
    console.heading(kind)
    console.stdout().print(console.table(titles, [[name, *(column.get(name, "") for column in marks)] for name in names]))


def _mark(result: Result) -> Text:
    from rich.text import Text

    word, style = _MARKS[result.outcome]
    return Text(word, style=style)


def _conclude(results: Sequence[Result], *, why: bool = False) -> None:
    skipped = [result for result in results if result.outcome == "skipped"]
    sections = {
        # What a family computes can only be checked against its reference, which may not be installed.
        "skipped": [result for result in skipped if why or result.component.startswith("family ")],
        "known failures": [result for result in results if result.outcome == "expected"],
        "failures": [result for result in results if not result.ok],
    }
    for title, section in sections.items():
        if section:
            console.heading(title)
        by_cause: dict[tuple[str, str], list[Result]] = {}
        for result in section:
            by_cause.setdefault((result.component, result.message), []).append(result)
        for (component, message), same in by_cause.items():
            # Often one error in a component fails many checks; it is shown once.
            console.out(f"{component}: {', '.join(result.check.name for result in same)}: {message}")
            if len(same) == 1 and not same[0].ok and same[0].check.why:
                console.out(f"    {same[0].check.why}")
    n_failed = len(sections["failures"])
    console.out()
    if len(skipped) > len(sections["skipped"]):
        console.note(f"{_MARKS['skipped'][0]}: skipped, the check does not apply; --why lists the reasons", style="dim")
    console.out(f"{console.plural(len(results), 'check')}, {n_failed or 'none'} failed")
    if n_failed:
        raise typer.Exit(1)
