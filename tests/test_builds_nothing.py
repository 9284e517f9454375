"""A component whose `build` returns None, or no module for a part of a model, is reported, at every depth."""

from __future__ import annotations

import inspect
import types
from typing import Any, ClassVar, Literal

import pytest
from torch import nn

from gptkit.core.errors import RegistryError
from gptkit.core.hooks import hookimpl
from gptkit.files import validate_data
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import PositionSpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.plugin_registry import registry_of


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


class Functional(NormSpec):
    name: Literal["functional"] = "functional"

    def build(self, context: Any, *, dim: int) -> Any:
        return lambda x: x


class Uncalled(ActivationSpec):
    name: Literal["uncalled"] = "uncalled"

    def build(self, context: Any) -> Any:
        return nn.ReLU


class Loose(PositionSpec):
    name: Literal["loose"] = "loose"
    uses: ClassVar[frozenset[str]] = frozenset({"embed"})

    def build_embedding(self, context: Any) -> Any:
        return "position"

    def build(self, context: Any, *, heads: Any) -> Any:
        return nn.Identity()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "functional"}, r"norm 'functional' of loose==1\.0: .*Functional\.build returned a function"),
        ({"final_norm": "functional"}, r"norm 'functional' of loose==1\.0: .*returned a function"),
        (
            {"attention": {"name": "multi-head", "n_heads": 2, "qk_norm": "functional"}},
            r"norm 'functional' of loose==1\.0: .*returned a function",
        ),
        (
            {"feedforward": {"name": "experts", "expert": {"name": "gated", "activation": "uncalled"}}},
            r"activation 'uncalled' of loose==1\.0: .*returned the class ReLU",
        ),
        ({"position": "loose"}, r"position 'loose' of loose==1\.0: .*Loose\.build_embedding returned a str"),
    ],
)
def test_component_whose_build_returns_no_module_is_named(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    plugin = types.ModuleType("loose")
    setattr(plugin, "gptkit_components", hookimpl(lambda: [Functional, Uncalled, Loose]))  # noqa: B010
    registry = registry_of(loose=lambda: plugin)
    sizes = {"d_model": 8, "n_layers": 1, "context_length": 8, "attention": {"name": "multi-head", "n_heads": 2}}
    spec = validate_data({**sizes, **fields}, ModelSpec, registry=registry)
    monkeypatch.setattr("gptkit.core.component._default_resolver", lambda: registry)
    with pytest.raises(RegistryError, match=message + ", not a torch.nn.Module") as caught:
        GPT(spec, 7, device="meta")
    assert caught.value.hint == "Return an instance of a class that derives from torch.nn.Module."


def test_build_keeps_its_signature_and_docstring() -> None:
    assert list(inspect.signature(Forgetful.build).parameters) == ["self", "context", "dim"]
    assert Forgetful.build.__doc__ == "Builds."
    assert inspect.isabstract(NormSpec)
