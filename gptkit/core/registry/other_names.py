"""Names that other programs have for components, as other_names.toml lists them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

__all__ = ["other_names", "own_name", "remark"]

FILE = Path(__file__).with_name("other_names.toml")


@cache
def _file() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def other_names() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Return the components of gptkit by kind, each with its names in other programs."""
    kinds = {kind: names for kind, names in _file().items() if kind != "remarks"}
    return {kind: {own: tuple(others.split()) for own, others in names.items()} for kind, names in kinds.items()}


def own_name(kind: str, name: str, known: Collection[str]) -> str | None:
    """Return the known component that another program's name means: ``cosine-restarts`` for ``cosine_with_restarts``."""
    meant = _plain(name)
    owners = (own for own, others in other_names().get(kind, {}).items() if meant in map(_plain, others))
    return next((own for own in owners if own in known), None)


def remark(kind: str, name: str) -> str | None:
    """Return what another program's name means beyond the component: ``with n_kv_heads: 1`` for ``MQA``."""
    remarks = {key.partition(" ")[::2]: text for key, text in _file()["remarks"].items()}
    meant = (kind, _plain(name))
    return next((text for (of, other), text in remarks.items() if (of, _plain(other)) == meant), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold().removeprefix("torch.").removeprefix("nn."))
