"""Linear projections: dense by default, per layer, in mixtures, and in checkpoints under the same names."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.linear import LinearSpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.linear import TransformedLinear
from gptkit.nn.stacked import StackedModules
from tests.support.pairs import V, ids

PARTS: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 2,
    "context_length": 24,
    "attention": {"name": "multi-head", "n_heads": 2},
}


class DoubledSpec(LinearSpec):
    """Projection that doubles its weight and its input."""

    name: Literal["doubled"] = "doubled"

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        return Doubled(d_in, d_out, bias=bias)


class Doubled(TransformedLinear):
    def transformed_input(self, x: Tensor) -> Tensor:
        return 2 * x

    def transformed_weight(self) -> Tensor:
        return 2 * self.weight


ATTENTIONS: list[dict[str, Any]] = [
    {"name": "multi-head", "n_heads": 2},
    {"name": "single-head", "d_head": 12},
    {"name": "latent", "n_heads": 2, "kv_rank": 8, "q_rank": 8, "d_nope": 6, "d_rotary": 8, "d_value": 5},
    {"name": "gated-delta", "n_heads": 2, "d_key": 8, "d_value": 8},
]


@pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda attention: attention["name"])
def test_every_projection_of_a_block_has_the_selected_kind(attention: dict[str, Any]) -> None:
    position = "none" if attention["name"] == "gated-delta" else "rotary"
    parts = {**PARTS, "attention": attention, "position": position}
    model = GPT({**parts, "linear": DoubledSpec()}, V).double().eval()
    dense = {name for name, module in model.blocks.named_modules() if type(module) is nn.Linear}
    assert dense <= {f"{layer}.attention.{name}" for layer in range(2) for name in ("kv_up", "rates")}
    plain = GPT(parts, V)
    assert list(plain.state_dict()) == list(model.state_dict())
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor.double(), model.state_dict()[name])
    tokens = ids(2, 12)
    with torch.no_grad():
        full, cache = model(tokens).logits, model.new_cache(2)
        model(tokens[:, :7], cache=cache)
        torch.testing.assert_close(model(tokens[:, 7:], cache=cache).logits, full[:, 7:])
        assert not torch.allclose(full, plain.double().eval()(tokens).logits)


def test_layers_and_experts_use_the_selected_projection() -> None:
    experts = {"name": "experts", "n_experts": 3, "expert": {"name": "mlp", "d_hidden": 8}}
    model = GPT({**PARTS, "feedforward": experts, "layers": [{"linear": DoubledSpec()}, {}]}, V)
    first, second = (block.feedforward.experts for block in model.blocks)  # type: ignore[union-attr]
    assert isinstance(first, StackedModules)
    assert all(type(expert.up) is Doubled for expert in first.each)
    assert not isinstance(second, StackedModules)
    assert model(ids(1, 8)).logits.isfinite().all()


def test_head_projection_is_used_in_its_loss() -> None:
    model = GPT({**PARTS, "head": {"name": "linear", "linear": DoubledSpec(), "bias": True, "softcap": 9.0}}, V).double()
    out = model(ids(2, 9), ids(2, 9, seed=1), with_logits=True)
    expected = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), ids(2, 9, seed=1).flatten())
    torch.testing.assert_close(out.loss, expected)
    with pytest.raises(ValidationError, match="a tied head has no projection of its own"):
        ModelSpec.model_validate({**PARTS, "head": {"name": "linear", "linear": "dense", "tied": True}})
