"""`rg-lru`: against transformers' RecurrentGemma, its formula token by token, and its state when decoding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.plan import plan
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from tests.support.recurrences import RECURRENT, V, draw, ids

CASE = RECURRENT["rg-lru"]


def formula(module: Any, x_TE: Tensor, spec: Any) -> Tensor:
    """The component's formula for one row, token by token."""
    bias = module.input.bias if spec.bias else 0
    u, g = (x_TE @ module.input.weight.T + bias).split([spec.d_inner] * 2, dim=-1)
    size = spec.d_inner // spec.n_heads
    state = torch.zeros(spec.d_inner, dtype=x_TE.dtype)
    rows = []
    for t in range(len(x_TE)):
        v = module.conv.bias.clone()
        for back in range(spec.conv_width):
            if t >= back:
                v = v + module.conv.weight[:, 0, spec.conv_width - 1 - back] * u[t - back]
        r, i = torch.zeros_like(v), torch.zeros_like(v)
        for head in range(spec.n_heads):
            part = slice(head * size, (head + 1) * size)
            r[part] = (v[part] @ module.decay_gate_weight[head] + module.decay_gate_bias[head]).sigmoid()
            i[part] = (v[part] @ module.input_gate_weight[head] + module.input_gate_bias[head]).sigmoid()
        a = (1 + module.decay.exp()) ** (-8 * r)
        state = a * state + (1 - a**2).sqrt() * i * v if t else i * v
        gate = g[t] * g[t].sigmoid() if spec.activation.name == "silu" else F.gelu(g[t], approximate="tanh")
        rows.append(module.output.weight @ (state * gate) + (module.output.bias if spec.bias else 0))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "fields", [{}, {"n_heads": 4, "bias": False, "conv_width": 3, "activation": "silu"}, {"n_heads": 1, "conv_width": 1}]
)
@torch.no_grad()
def test_module_equals_its_formula(fields: dict[str, Any]) -> None:
    model = CASE.make(**fields).double()
    module, spec = model.attentions()[0], model.spec.layer_specs()[0].attention
    x = draw(2, 70, 24)
    out = module(x, Forward(torch.zeros(2, 70, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    torch.testing.assert_close(out[0], formula(module, x[0], spec))
    torch.testing.assert_close(out[1, 5:], formula(module, x[1, 5:], spec))
    documents = torch.tensor([[0] * 20 + [1] * 50, [4] * 3 + [5] * 67])
    out = module(x, Forward(torch.zeros(2, 70, dtype=torch.long), documents_BT=documents))
    for row, (begin, end) in ((0, (0, 20)), (0, (20, 70)), (1, (0, 3)), (1, (3, 70))):
        torch.testing.assert_close(out[row, begin:end], formula(module, x[row, begin:end], spec))


@torch.no_grad()
def test_equals_the_recurrent_block_of_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
    from transformers import RecurrentGemmaConfig

    config = RecurrentGemmaConfig(hidden_size=24, lru_width=20, num_attention_heads=2, num_hidden_layers=1, conv1d_width=3)
    reference = modeling.RecurrentGemmaRecurrentBlock(config, 0).eval()
    for seed, parameter in enumerate(reference.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed) * 0.5)
    module: Any = CASE.make(conv_width=3).attentions()[0]
    weights = {f"rg_lru.{name}": value for name, value in reference.rg_lru.state_dict().items()}
    native = {
        "decay": weights["rg_lru.recurrent_param"],
        "input.weight": torch.cat((reference.linear_x.weight, reference.linear_y.weight)),
        "input.bias": torch.cat((reference.linear_x.bias, reference.linear_y.bias)),
        "output.weight": reference.linear_out.weight,
        "output.bias": reference.linear_out.bias,
        "conv.weight": reference.conv_1d.weight,
        "conv.bias": reference.conv_1d.bias,
    }
    for own, external in (("decay_gate", "recurrent_gate"), ("input_gate", "input_gate")):
        native |= {f"{own}_{leaf}": weights[f"rg_lru.{external}_{leaf}"] for leaf in ("weight", "bias")}
    module.load_state_dict(native)
    x = draw(2, 100, 24).float()
    wanted = reference(x, torch.arange(100)[None], None, use_cache=False)[0]
    out = module(x, Forward(torch.zeros(2, 100, dtype=torch.long)))
    # transformers computes 1 − a² from a rounded a².
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=2e-4)


def test_initial_values_are_those_of_the_paper() -> None:
    model = GPT(CASE.spec, V, seed=3)
    attention: Any = model.attentions()[0]
    largest = (-8 * F.softplus(attention.decay)).exp()
    assert ((largest > 0.899) & (largest < 0.9991)).all()


def test_gradients_are_finite_without_decay() -> None:
    model = GPT(CASE.spec, V, seed=3)
    with torch.no_grad():
        for attention in model.attentions():
            attention.decay.fill_(-200.0)  # type: ignore[union-attr]
    loss = model(ids(2, 20), ids(2, 20, 1)).loss
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_operations_are_known_on_meta() -> None:
    sizes = plan(validate_data(CASE.spec, ModelSpec), V)
    assert sizes.flops_per_token > 2 * 2 * (24 * 40 + 2 * 20 * 10 + 20 * 24)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"attention": {**CASE.attention, "n_heads": 3}, "position": "none"}, "3 blocks"),
    ],
)
def test_invalid_fields_are_rejected(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        validate_data(fields, ModelSpec)
