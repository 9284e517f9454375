"""The documented family, provided by a plugin: import, export, and equality to transformers."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch

import gptkit
from gptkit.components import plugin as components
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.interop import plugin as families
from gptkit.interop.families.decoder import Decoder
from gptkit.interop.selection import choose_family
from gptkit.kinds import plugin as kinds
from gptkit.testing import run_checks
from tests.support.fake_plugins import FakeDistribution, FakeEntryPoint
from tests.support.gguf_models import DECODER

transformers = pytest.importorskip("transformers")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"


@pytest.fixture(autouse=True)
def acme(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return the page's model, as an importable module."""
    result = re.search(r'```python title="acme_model\.py"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert result is not None
    module = types.ModuleType("acme_model")
    monkeypatch.setitem(sys.modules, "acme_model", module)
    exec(compile(result[1], "acme_model.py", "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.fixture(scope="module")
def registry() -> Registry:
    """Return a registry of the built-in components and the page's plugin."""
    result = re.search(r'```python title="(\w+)\.py"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert result is not None
    module = types.ModuleType(result[1])
    exec(compile(result[2], f"{result[1]}.py", "exec", dont_inherit=True), module.__dict__)

    def point(name: str, distribution: str, what: Any) -> FakeEntryPoint:
        return FakeEntryPoint(name, name, FakeDistribution(distribution, "1.0"), lambda: what)

    own = [point("kinds", "gptkit", kinds), point("components", "gptkit", components), point("families", "gptkit", families)]
    return Registry([*own, point("acme", "gptkit-acme", module)], ())


def test_documented_tests_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's test file, with the page's plugin as an importable module."""
    blocks = dict(re.findall(r'```python title="(\w+)\.py"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL))
    names: dict[str, Any] = {}
    for name in ("gptkit_acme", "test_acme"):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(blocks[name], f"{name}.py", "exec", dont_inherit=True), module.__dict__)
        names = vars(module)
    assert len(names["test_conformance"].pytestmark[0].args[1]) > 3
    names["test_import_and_export_round_trip"](tmp_path)


def test_documented_family_round_trips(registry: Registry, acme: types.ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = acme.AcmeConfig(
        vocab_size=300,
        hidden_size=48,
        intermediate_size=72,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    external = acme.AcmeForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in external.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    external.save_pretrained(tmp_path / "external")
    ids = torch.randint(3, 200, (2, 30))
    with torch.no_grad():
        expected = external(ids).logits
        run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte", registry=registry)
        torch.testing.assert_close(run.model(ids).logits, expected, atol=1e-4, rtol=1e-4)
        gptkit.export_model(tmp_path / "run", tmp_path / "out", registry=registry)
        again = acme.AcmeForCausalLM.from_pretrained(tmp_path / "out").eval()
        torch.testing.assert_close(again(ids).logits, expected)
    assert again.config.model_type == "acme"


def test_documented_test_passes(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.core.registry.lookup._default", registry)
    module = types.ModuleType("gptkit_acme")
    module.AcmeFamily = registry.component("family", "acme")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gptkit_acme", module)
    result = re.search(r'```python title="test_acme\.py"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert result is not None
    names: dict[str, Any] = {}
    exec(compile(result[1], "test_acme.py", "exec", dont_inherit=True), names)
    names["test_import_and_export_round_trip"](tmp_path)


def test_documented_family_conforms(registry: Registry) -> None:
    spec = registry.component("family", "acme").model_validate({"name": "acme"})
    results = run_checks(spec, registry=registry, slow=True)
    assert not [f"{result.check.name}: {result.message}" for result in results if result.outcome != "passed"]


def test_documented_spec_is_a_small_qwen_3(tmp_path: Path) -> None:
    result = re.search(r'```yaml title="mine\.yaml"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert result is not None
    (tmp_path / "mine.yaml").write_text(result[1], encoding="utf-8")
    model = gptkit.open_spec(tmp_path / "mine.yaml").spec.model
    assert model.position.name == "alibi"
    assert model.attention.qk_norm is not None  # type: ignore[attr-defined]
    assert model.head.tied is True  # type: ignore[attr-defined]
    assert sum(parameter.numel() for parameter in gptkit.GPT(model, 2048, device="meta").parameters()) < 10**7


def test_family_is_unknown_without_the_plugin(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "acme"}')
    with pytest.raises(GptkitError, match="no installed family has the model_type 'acme'"):
        gptkit.import_model(tmp_path, tmp_path / "run")
    with pytest.raises(GptkitError) as caught:
        gptkit.import_model(tmp_path, tmp_path / "run", registry=registry)
    assert "model_type" not in str(caught.value)


class Shared(Decoder):
    """Llama under the name of another model type."""

    name: Literal["shared"] = "shared"
    model_type: ClassVar[str] = "shared"
    architecture: ClassVar[str] = "LlamaForCausalLM"


class Rival(Shared):
    """A family of another name with the same model type."""

    name: Literal["rival"] = "rival"  # type: ignore[assignment]


def of_plugins(*plugins: tuple[str, type[Decoder]]) -> Registry:
    """Return a registry of the built-in components and one plugin with a family per distribution."""

    def point(name: str, distribution: str, what: Any) -> FakeEntryPoint:
        return FakeEntryPoint(name, name.replace("-", "_"), FakeDistribution(distribution, "1.0"), lambda: what)

    points = [
        point("kinds", "gptkit", kinds),
        point("components", "gptkit", components),
        point("families", "gptkit", families),
    ]
    for distribution, family in plugins:
        module = types.ModuleType(distribution.replace("-", "_"))
        module.gptkit_components = gptkit.hookimpl(lambda family=family: [family])  # type: ignore[attr-defined]
        points.append(point(distribution, distribution, module))
    return Registry(points, ())


def test_name_taken_by_two_plugins_is_named_in_import_and_export(tmp_path: Path) -> None:
    both = of_plugins(("gptkit-one", Shared), ("gptkit-two", Shared))
    message = r"family 'shared' is provided by gptkit-one==1\.0 and gptkit-two==1\.0; .*GPTKIT_DISABLE=gptkit-two"
    (tmp_path / "config.json").write_text('{"model_type": "shared"}')
    with pytest.raises(GptkitError) as caught:
        gptkit.import_model(tmp_path, tmp_path / "run", registry=both)
    assert re.search(message, str(caught.value))
    model = gptkit.GPT({**DECODER, "vocab_size": 300}, device="meta").spec
    with pytest.raises(GptkitError, match=message):
        choose_family(model, "shared", only=True, registry=both)


def test_model_type_of_two_families_is_refused_with_both_names(tmp_path: Path) -> None:
    both = of_plugins(("gptkit-one", Shared), ("gptkit-two", Rival))
    (tmp_path / "config.json").write_text('{"model_type": "shared"}')
    with pytest.raises(GptkitError) as caught:
        gptkit.import_model(tmp_path, tmp_path / "run", registry=both)
    for word in ("'shared' of gptkit-one==1.0", "'rival' of gptkit-two==1.0", "GPTKIT_DISABLE=gptkit-"):
        assert word in str(caught.value)
