"""Files of a new plugin: a working distribution with one example component."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path
from string import Template

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.core.suggestions import did_you_mean

__all__ = ["kinds", "render"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

_USAGE = {
    "activation": "model:\n  feedforward: {name: mlp, activation: $name}",
    "attention-backend": "model:\n  attention_backend: $name",
    "rotary-scaling": "model:\n  position: {name: rotary, scaling: $name}",
    "router": "model:\n  feedforward: {name: experts, router: $name}",
    "sampler": "sampler: [$name]",
    "decoding": "decoding: $name",
    "tokenizer": "tokenizer: $name",
    "drafter": "# none: `gptkit generate RUN --speculate $name`, and generate(..., drafter='$name') in Python",
    "engine": "# none: `gptkit generate RUN --engine $name`",
    "data": "data: $name",
    "optimizer": "training:\n  optimizer: $name",
    "schedule": "training:\n  schedule: $name",
    "callback": "training:\n  callbacks: [$name]",
    "tracker": "training:\n  trackers: [$name]",
    "format": "# none: `gptkit import PATH` detects the format, and `gptkit export RUN PATH --to $name` writes it",
    "precision": "# none: `gptkit generate RUN --precision $name` applies it, and `gptkit quantize` measures what it costs",
    "family": "# none: `gptkit import DIRECTORY` finds the family by the model_type of the directory's config.json",
}


_TEST_REQUIRES: Mapping[str, tuple[str, ...]] = {"family": ("transformers>=5",)}
"""Distributions that the tests of a kind's template need besides pytest."""


def kinds() -> list[str]:
    """Return the kinds that have a template."""
    return sorted(path.name.removesuffix(".py.tmpl") for path in _directory().joinpath("kinds").iterdir())


def render(name: str, kind: str) -> dict[str, str]:
    """Return the files of a distribution with one component, by path relative to its directory ``gptkit-NAME``.

    Args:
        name: the component's name; a prefix ``gptkit-`` is removed.

    Raises:
        GptkitError: the name is invalid, or the kind has no template.
    """
    name = name.removeprefix("gptkit-")
    if not _NAME.fullmatch(name):
        raise GptkitError(
            f"invalid component name {name!r}", hint="Use lowercase letters, digits and hyphens, as in talking-heads."
        )
    if kind not in kinds():
        raise GptkitError(f"the kind {kind!r} has no template; {did_you_mean(kind, kinds(), label='templates')}")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module == "plugin":
        module += "_component"
    words = "".join(word.capitalize() for word in name.split("-"))
    values = {
        "name": name,
        "kind": kind,
        "distribution": f"gptkit-{name}",
        "package": f"gptkit_{name.replace('-', '_')}",
        "module": module,
        "spec": f"{words}Spec",
        "runtime": words,
        "gptkit": gptkit.__version__,
        "year": str(date.today().year),
    }
    values["test_requires"] = ", ".join(f'"{each}"' for each in ("pytest>=8", *_TEST_REQUIRES.get(kind, ())))
    values["usage"] = Template(_USAGE.get(kind, f"model:\n  {kind}: $name")).substitute(values)
    package = values["package"]
    own_tests = (_directory() / "tests" / f"{kind}.py.tmpl").is_file()
    sources = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
        f"{package}/__init__.py": "init.py",
        f"{package}/plugin.py": "plugin.py",
        f"{package}/{module}.py": f"kinds/{kind}.py",
        f"tests/test_{module}.py": f"tests/{kind}.py" if own_tests else "test.py",
    }
    return {path: _filled(source, values) for path, source in sources.items()} | {f"{package}/py.typed": ""}


def _filled(source: str, values: Mapping[str, str]) -> str:
    return Template((_directory() / f"{source}.tmpl").read_text(encoding="utf-8")).substitute(values)


def _directory() -> Path:
    return Path(str(files("gptkit"))) / "templates"
