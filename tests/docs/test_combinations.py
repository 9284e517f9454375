"""Combinations of attention and position: what is stored is what is measured, and every pair is shown."""

from __future__ import annotations

import json
import re
from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor

from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry, default_registry
from gptkit.docs.combinations import columns, stored, tables
from gptkit.docs.combinations.columns import COLUMNS, accepted, measured
from gptkit.docs.combinations.sharded import sharded
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.position import Position
from tests.support.plugin_registry import registry_of

CHEAP = [name for name, column in COLUMNS.items() if not column.costly]
SOME = [("multi-head", "rotary"), ("latent", "none")]
"""Pairs whose costly columns are measured again."""


def stored_outcomes() -> dict[str, dict[str, dict[str, str]]]:
    data: dict[str, dict[str, dict[str, str]]] = json.loads(stored.STORED.read_text(encoding="utf-8"))
    return data


def test_every_pair_of_built_in_components_is_stored(builtin: Registry) -> None:
    data = stored_outcomes()
    pairs = {(attention, position) for attention, own in data.items() for position in own}
    assert pairs == set(accepted(builtin))
    for own in data.values():
        for outcomes in own.values():
            assert list(outcomes) == list(COLUMNS)
            assert not [outcome for outcome in outcomes.values() if outcome.startswith("failed")]


@pytest.mark.slow
def test_stored_outcomes_are_those_that_are_measured() -> None:
    data = stored_outcomes()
    for attention, position in accepted(default_registry()):
        again = measured(default_registry(), attention, position, CHEAP)
        assert again == {name: data[attention][position][name] for name in CHEAP}, f"{attention}, {position}: remeasure"


@pytest.mark.slow
def test_costly_outcomes_are_those_that_are_measured() -> None:
    data = stored_outcomes()
    of_shards = sharded(SOME)
    for attention, position in SOME:
        again = measured(default_registry(), attention, position, COLUMNS)
        for name in set(COLUMNS) - set(CHEAP):
            outcome = of_shards[attention, position] if name == "sharded" else again[name]
            assert outcome == data[attention][position][name], f"{attention}, {position}: {name}"


class _Future(Position):
    """Shift queries and keys by the length of the text: a step with a cache gives other scores."""

    def prepare(self, positions: Tensor) -> Tensor:
        return positions

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Tensor) -> tuple[Tensor, Tensor]:
        return q_BHTD * q_BHTD.shape[2], k_BKTD


class FutureSpec(PositionSpec):
    """Position that depends on the number of tokens of a call."""

    name: Literal["future"] = "future"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate"})

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        return _Future()


class Plugin:
    """A plugin with a position that breaks the contract."""

    __name__ = "futures.plugin"

    @hookimpl
    def gptkit_components(self) -> list[type[PositionSpec]]:
        return [FutureSpec]


@pytest.fixture(scope="module")
def with_future() -> Registry:
    return registry_of(futures=Plugin)


@pytest.mark.slow
def test_a_property_that_does_not_hold_is_shown(with_future: Registry) -> None:
    outcome = measured(with_future, "multi-head", "future", ["causal", "cached"])
    assert outcome["causal"] == "passed" or outcome["causal"].startswith("failed")
    assert outcome["cached"].startswith("failed: with position 'future'")
    page = tables.of_component(with_future, "position", "future", measure=True)
    row = next(line for line in page.splitlines() if line.startswith("| [multi-head]"))
    assert "**✗**" in row
    assert row.count("| ? ") == sum(column.costly for column in COLUMNS.values())


def test_pages_show_every_pair(builtin: Registry) -> None:
    ((path, page),) = tables.pages(builtin).items()
    assert path == tables.PAGE
    for attention in builtin.names("attention"):
        part = page.partition(f"\n## {attention}\n")[2].partition("\n## ")[0]
        shown = set(re.findall(r"^\| \[([\w-]+)\]\(position/", part, re.MULTILINE))
        refused = set(re.findall(r"`([\w-]+)`", part.partition("It does not accept")[2]))
        assert shown | refused == set(builtin.names("position"))
        assert shown == {position for name, position in accepted(builtin) if name == attention}


def test_reasons_name_their_columns(builtin: Registry) -> None:
    text = tables.of_component(builtin, "attention", "mamba2")
    assert re.search(r"^- flex: – no backend computes it", text, re.MULTILINE)
    assert tables.of_component(builtin, "norm", "rms") == ""


def test_measuring_leaves_the_random_state(builtin: Registry) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    columns.measured(builtin, "simple", "none", ["causal"])
    assert torch.equal(torch.rand(1), expected)
