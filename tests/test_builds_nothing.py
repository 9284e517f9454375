"""A component whose `build` returns None is reported, at every depth."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import pytest
from torch import nn

from gptkit.core.errors import RegistryError
from gptkit.kinds.norm import NormSpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec


class Forgetful(NormSpec):
    name: Literal["forgetful"] = "forgetful"

    def build(self, context: Any, *, dim: int) -> nn.Module:
        """Builds."""
        nn.LayerNorm(dim)
        return None  # type: ignore[return-value]


class Heir(Forgetful):
    name: Literal["heir"] = "heir"  # type: ignore[assignment]


@pytest.mark.parametrize(("part", "norm"), [("norm", Forgetful()), ("final_norm", Forgetful()), ("norm", Heir())])
def test_component_whose_build_returns_none_is_named(part: str, norm: NormSpec) -> None:
    sizes = {"d_model": 8, "n_layers": 1, "context_length": 8, "attention": {"name": "multi-head", "n_heads": 2}}
    spec = ModelSpec.model_validate({**sizes, part: norm})
    with pytest.raises(RegistryError, match=rf"norm '{norm.name}': .*Forgetful\.build returned None"):
        GPT(spec, 7, device="meta")


def test_build_keeps_its_signature_and_docstring() -> None:
    assert list(inspect.signature(Forgetful.build).parameters) == ["self", "context", "dim"]
    assert Forgetful.build.__doc__ == "Builds."
    assert inspect.isabstract(NormSpec)
