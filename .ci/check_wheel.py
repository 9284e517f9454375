"""Check that the built wheel is complete; run by its interpreter: ``python check_wheel.py WHEEL CHECKOUT``."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import gptkit
from gptkit.core.registry import Registry


def main(wheel: Path, checkout: Path) -> int:
    problems = []
    packed = set(zipfile.ZipFile(wheel).namelist())
    for path in sorted((checkout / "gptkit").rglob("*")):
        name = path.relative_to(checkout).as_posix()
        if path.is_file() and "__pycache__" not in name and name not in packed:
            problems.append(f"{name} is missing")
    for page in [checkout / "mkdocs.yml", *(checkout / "docs").rglob("*.md")]:
        if f"gptkit/docs/source/{page.relative_to(checkout).as_posix()}" not in packed:
            problems.append(f"{page.name}, a source of gptkit docs, is missing")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in packed):
        problems.append("the license is missing")

    where = Path(gptkit.__file__).resolve()
    if not where.is_relative_to(Path(sys.prefix).resolve()):
        problems.append(f"gptkit was imported from {where} and not from the wheel")
    registry = Registry()
    own = [plugin for plugin in registry.plugins() if plugin.built_in]
    problems += [f"entry point {plugin.name}: {plugin.error}" for plugin in own if plugin.error]
    count = sum(len(plugin.components) for plugin in own)
    if not count or not registry.kinds():
        problems.append("no components are registered")

    for problem in problems:
        sys.stderr.write(f"{wheel.name}: {problem}\n")
    if not problems:
        sys.stdout.write(f"{wheel.name}: {len(packed)} files, {len(registry.kinds())} kinds, {count} components\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
