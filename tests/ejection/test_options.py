"""Every option of every component is written out or refused: none is ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
from pydantic import Field

from gptkit.components.norm.rms import RMSNormSpec
from gptkit.components.position.alibi import AlibiSpec
from gptkit.core.registry import default_registry
from gptkit.ejection import writing
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.testing import instances, run_checks
from gptkit.testing.options import changed_fields
from tests.support.ejected import is_written, source_of
from tests.support.random_models import named, random_models

KINDS = (
    "norm",
    "activation",
    "linear",
    "position",
    "rotary-scaling",
    "attention",
    "feedforward",
    "router",
    "block",
    "embedding",
    "head",
)
WHOLE = {"n_layers": 1, "d_model": 16, "context_length": 16}


class ScaledRMSNormSpec(RMSNormSpec):
    """A norm with one field more than its template."""

    name: Literal["scaled-rms"] = "scaled-rms"  # type: ignore[assignment]
    gain: float = Field(1.0, description="Factor of the result.")


class SteeperAlibiSpec(AlibiSpec):
    """A position with a method of its own, and the template of another one."""

    name: Literal["steeper-alibi"] = "steeper-alibi"  # type: ignore[assignment]

    def slopes(self, n_heads: int) -> list[float]:
        return [2 * slope for slope in super().slopes(n_heads)]


def test_field_that_no_template_writes_is_refused_by_name() -> None:
    model = GPT({**WHOLE, "norm": ScaledRMSNormSpec(gain=2.0)}, 11)
    with pytest.raises(NotWrittenError, match=r"norm 'scaled-rms' cannot be written out with gain: 2\.0") as refusal:
        source_of(model)
    assert "Remove gain (its default is 1.0)" in str(refusal.value.hint)
    assert "class RMSNorm" in source_of(GPT({**WHOLE, "norm": ScaledRMSNormSpec(eps=1e-3)}, 11))


def test_template_of_another_class_is_refused() -> None:
    model = GPT({**WHOLE, "position": SteeperAlibiSpec()}, 11)
    with pytest.raises(
        NotWrittenError, match="SteeperAlibiSpec defines its own 'slopes', but its template is that of Alibi"
    ):
        source_of(model)


def test_field_of_the_model_that_is_not_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_MODEL_FIELDS", writing._MODEL_FIELDS - {"context_length"})
    with pytest.raises(NotWrittenError, match=r"model.context_length cannot be written out"):
        source_of(GPT(WHOLE, 11))


def test_several_modules_of_a_part_that_differs_by_layer_are_refused() -> None:
    layers = [{}, {"feedforward": "mlp"}]
    model = GPT({**WHOLE, "n_layers": 2, "block": "hierarchical", "layers": layers}, 11)
    with pytest.raises(NotWrittenError, match="HierarchicalBlock cannot be written out: it has several modules 'block'"):
        source_of(model)


def test_shared_position_of_blocks_in_lists_is_written() -> None:
    model = GPT({**WHOLE, "n_layers": 2, "block": "hierarchical", "position": "t5-bias"}, 11)
    assert 'refer(self.blocks[layer].low[0].attention, "position", self.shared["t5-bias"])' in source_of(model)


def test_every_field_has_other_values() -> None:
    registry = default_registry()
    for kind in KINDS:
        for name in registry.names(kind):
            cls = registry.component(kind, name)
            changed = {change.partition("=")[0] for spec in instances(cls) for change, _ in changed_fields(spec, registry)}
            assert changed == set(cls.model_fields) - {"name"}, f"{kind} {name}"


def names_of_kinds() -> Iterator[Any]:
    """Yield the components of each kind; CI tests one where options take minutes, and else a third."""
    for kind in KINDS:
        many = kind in ("attention", "feedforward", "router", "block")
        for number, name in enumerate(default_registry().names(kind)):
            slow = number == 0 if many else number % 3 == 0
            yield pytest.param(kind, name, marks=pytest.mark.slow if slow else pytest.mark.nightly, id=f"{kind}-{name}")


@pytest.mark.parametrize(("kind", "name"), list(names_of_kinds()))
def test_every_option_equals_the_built_model(kind: str, name: str) -> None:
    registry = default_registry()
    for spec in instances(registry.component(kind, name)):
        for result in run_checks(spec, slow=True, only=["written-equals-built", "written-options-equal-built"]):
            assert result.ok, f"{result.component}: {result.message}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 9))])
@torch.no_grad()
def test_random_models_are_equal_or_refused(seed: int) -> None:
    n_written = 0
    for name, spec in random_models(seed):
        with named(name, spec):
            n_written += is_written(spec)
    assert n_written > 30
