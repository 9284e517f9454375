"""A plugin's activation with weights and buffers, in a family whose class names it: Apertus."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gptkit
from gptkit.components import plugin as components
from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.interop import plugin as families
from gptkit.interop.selection import choose_family
from gptkit.kinds import plugin as kinds
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.initial import Initial
from gptkit.testing import run_checks
from tests.support.fake_plugins import FakeDistribution, FakeEntryPoint

transformers = pytest.importorskip("transformers")
BUFFERS = {"beta": 0.5, "eps": -1e-6}


class XieluSpec(ActivationSpec):
    """An integral of ELU with two learned slopes.

    Formula:
        f(x) = a x² + βx for x > 0, b (e^min(x, ε) - 1 - x) + βx otherwise, with a = softplus(p) and b = β + softplus(n)
    """

    name: Literal["xielu"] = "xielu"
    external_names: ClassVar[tuple[str, ...]] = ("xielu",)

    def build(self, context: BuildContext) -> nn.Module:
        return Xielu()


class Xielu(nn.Module):
    beta: Tensor
    eps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.positive, self.negative = (nn.Parameter(torch.empty(1)) for _ in range(2))
        for name, value in BUFFERS.items():
            self.register_buffer(name, torch.tensor(value))

    def initial(self) -> dict[str, Initial]:
        return {"positive": "zeros", "negative": "zeros"}

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.softplus(self.positive), self.beta + F.softplus(self.negative)
        above = a * x * x + self.beta * x
        below = (torch.expm1(torch.min(x, self.eps)) - x) * b + self.beta * x
        return torch.where(x > 0, above, below)


@pytest.fixture(scope="module")
def registry() -> Registry:
    """Return a registry in which `xielu` is the plugin's."""
    plugin = types.ModuleType("gptkit_apertus")
    plugin.gptkit_components = gptkit.hookimpl(lambda: [XieluSpec])  # type: ignore[attr-defined]

    def point(name: str, distribution: str, what: Any) -> FakeEntryPoint:
        return FakeEntryPoint(name, name, FakeDistribution(distribution, "1.0"), lambda: what)

    others = types.ModuleType("components")
    remaining = [lazy for lazy in components.gptkit_components() if lazy.name != "xielu"]
    others.gptkit_components = gptkit.hookimpl(lambda: remaining)  # type: ignore[attr-defined]
    own = [point("kinds", "gptkit", kinds), point("components", "gptkit", others), point("families", "gptkit", families)]
    return Registry([*own, point("apertus", "gptkit-apertus", plugin)], ())


def external(directory: Path, **options: Any) -> Any:
    """Save a tiny Apertus in which all parameters and buffers are random."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "pad_token_id": 0}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64}
    model = transformers.ApertusForCausalLM(transformers.ApertusConfig(**sizes, **heads, **options)).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.rand_like(tensor) * 0.15)
    model.save_pretrained(directory)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rope", [None, {"rope_type": "default", "rope_theta": 5000.0}], ids=["scaled", "plain"])
def test_buffers_and_default_positions_round_trip(registry: Registry, tmp_path: Path, rope: Any) -> None:
    reference = external(tmp_path / "external", rope_parameters=rope)
    ids_BT = torch.randint(3, 200, (2, 30))
    with torch.no_grad():
        expected_BTV = reference(ids_BT).logits
        run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte", registry=registry)
        torch.testing.assert_close(run.model(ids_BT).logits, expected_BTV, atol=3e-5, rtol=3e-5)
        own = run.model.state_dict()["blocks.1.feedforward.activation.beta"]
        assert torch.equal(own, reference.state_dict()["model.layers.1.mlp.act_fn.beta"])
        assert float(own) != BUFFERS["beta"]
        gptkit.export_model(tmp_path / "run", tmp_path / "out", registry=registry)
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        torch.testing.assert_close(again(ids_BT).logits, expected_BTV)
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["hidden_act"] == "xielu"
    assert config["rope_parameters"]["rope_type"] == "default" if rope else config["rope_scaling"]["rope_type"] == "llama3"


def test_the_plugin_conforms(registry: Registry) -> None:
    results = run_checks(XieluSpec(name="xielu"), registry=registry)
    assert not [f"{result.check.name}: {result.message}" for result in results if not result.ok]


def test_an_activation_without_an_external_name_is_reported() -> None:
    data = {"d_model": 64, "n_layers": 1, "context_length": 32, "vocab_size": 300, "position": "rotary", "norm": "rms"}
    gated = {"name": "gated", "d_hidden": 96, "activation": "softplus"}
    attention = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2}
    model = gptkit.GPT({**data, "feedforward": gated, "attention": attention}, device="meta").spec
    with pytest.raises(ExternalModelError, match="'softplus' has no name in configurations of external models"):
        choose_family(model, "llama", only=True)
