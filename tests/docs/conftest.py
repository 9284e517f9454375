"""Fixtures: an in-memory plugin with a kind and two components, in addition to the built-in ones; the built site."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from filelock import FileLock
from pydantic import Field
from torch import nn

from gptkit.components import plugin as builtin_components
from gptkit.core.component import Component, component
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry
from gptkit.core.spec import Spec
from gptkit.kinds import plugin as builtin_kinds
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec


class PaintSpec(Component):
    """Color of a model. It has no other effect.

    Declared capabilities:
        bright: whether it shines.
    """

    kind: ClassVar[str] = "paint"

    @abstractmethod
    def build(self) -> str:
        """The color's name."""


class Mixture(Spec):
    share: float = Field(0.5, ge=0, le=1, description="How much of it.")


class PlainPaint(PaintSpec):
    """One color all over."""

    name: Literal["plain"] = "plain"
    color: str = Field(description="Which one, `red` or <blue>.", min_length=1)
    mixture: Mixture = Field(Mixture(), description="What is mixed in.")
    under: NormSpec | None = Field(None, description="A norm below.")
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"color": "red"},)

    def build(self) -> str:
        return self.color


class HalvingNorm(NormSpec):
    """Halve every vector, e.g. for tests. It has no weights.

    More about a_name with | pipes | and *stars*.

    Formula:
        y = x / 2

    Shapes:
        (..., dim) -> (..., dim)

    Paper: On halving, https://arxiv.org/abs/1234.56789

    Notes:
        Nothing more.
    """

    name: Literal["halving"] = "halving"
    times: int = Field(1, ge=1, lt=10, description="How often.")
    paint: PaintSpec = component({"name": "plain", "color": "no"}, description="Its color.")
    aliases: ClassVar[tuple[str, ...]] = ("half",)
    renamed_fields: ClassVar[dict[str, str]] = {"count": "times"}

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        return nn.Identity()


@dataclass
class EntryPoint:
    name: str
    value: str
    dist: Any
    module: Any

    def load(self) -> Any:
        if isinstance(self.module, Exception):
            raise self.module
        return self.module


def entry_point(distribution: str, version: str, module: Any, name: str = "plugin") -> EntryPoint:
    dist = types.SimpleNamespace(name=distribution, version=version)
    return EntryPoint(name, getattr(module, "__name__", "gone.plugin"), dist, module)


class Paints:
    """The plugin."""

    __name__ = "paints.plugin"

    @hookimpl
    def gptkit_kinds(self) -> list[type[Component]]:
        return [PaintSpec]

    @hookimpl
    def gptkit_components(self) -> list[type[Component]]:
        return [PlainPaint, HalvingNorm]


@pytest.fixture(scope="session")
def builtin() -> Registry:
    """Return a registry of the built-in components only."""
    return Registry(
        [entry_point("gptkit", "0.1.0", module, module.__name__) for module in (builtin_kinds, builtin_components)], ()
    )


@pytest.fixture(scope="session")
def with_plugins() -> Registry:
    """Return a registry of the built-in components, a working and a broken plugin."""
    return Registry(
        [
            *(entry_point("gptkit", "0.1.0", module, module.__name__) for module in (builtin_kinds, builtin_components)),
            entry_point("gptkit-paints", "3.2", Paints()),
            entry_point("gptkit-gone", "9", ImportError("no module named 'gone'")),
        ],
        (),
    )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site, built in strict mode: once for all processes of pytest-xdist; or that in GPTKIT_SITE."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason=f"{package} comes with the extra `docs`")
    if "GPTKIT_SITE" in os.environ:
        built = Path(os.environ["GPTKIT_SITE"])
        assert (built / "index.html").is_file(), f"{built} holds no site"
        return built
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory, failed = base / "site", base / "site-failed.txt"
    with FileLock(base / "site.lock"):
        if not directory.is_dir() and not failed.is_file():
            done = subprocess.run(
                [sys.executable, "-m", "gptkit", "docs", "build", "--out", directory],
                cwd=Path(__file__).resolve().parents[2],
                env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                failed.write_text(done.stdout + done.stderr, encoding="utf-8")
        assert not failed.is_file(), failed.read_text(encoding="utf-8")
    return directory
