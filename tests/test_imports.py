"""Imports between modules, beyond the layers that import-linter checks."""

from __future__ import annotations

import functools

import grimp


@functools.cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("gptkit", exclude_type_checking_imports=True, cache_dir=None)


def cycles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or indirectly (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_modules: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        open_modules.append(module)
        for imported in imports[module]:
            if imported not in index:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in open_modules:
                lowest[module] = min(lowest[module], index[imported])
        if lowest[module] == index[module]:
            at = open_modules.index(module)
            groups.append(sorted(open_modules[at:]))
            del open_modules[at:]

    for module in imports:
        if module not in index:
            visit(module)
    return [group for group in groups if len(group) > 1]


def test_cycles_are_found() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert cycles(imports) == [["b", "c"]]
    assert cycles({"a": {"b"}, "b": set()}) == []


def test_modules_have_no_import_cycles() -> None:
    result = graph()
    assert cycles({module: result.find_modules_directly_imported_by(module) for module in result.modules}) == []


def test_private_modules_are_imported_within_their_package_only() -> None:
    result = graph()
    private = [module for module in result.modules if any(part.startswith("_") for part in module.split("."))]
    outside = [
        f"{importer} imports {module}"
        for module in private
        for importer in result.find_modules_that_directly_import(module)
        if importer.split(".")[:2] != module.split(".")[:2]
    ]
    assert outside == []
