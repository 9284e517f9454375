"""Experts that return their input: the formula, every form of the others, gradients, and what is not computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gptkit.components.feedforward.experts import ExpertsSpec
from gptkit.components.feedforward.modules.experts import Experts
from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from gptkit.nn.stacked import StackedModules
from gptkit.ops.grouped import group_rows

B, T, E, X, Z = 2, 9, 16, 5, 3
CONTEXT = BuildContext(d_model=E, context_length=16, n_layers=2)
FORWARD = Forward(torch.zeros(B, T, dtype=torch.long))
EXPERTS: dict[str, dict[str, Any]] = {
    "stacked": {"name": "gated", "d_hidden": 12, "bias": True},
    "modules": {"name": "mlp", "d_hidden": 12, "activation": "xielu"},
}


def build(expert: str = "stacked", **fields: Any) -> Experts:
    data = {"name": "experts", "n_experts": X, "identity_experts": Z, "expert": EXPERTS[expert], **fields}
    module: Any = ExpertsSpec.model_validate(data).build(CONTEXT)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.double().eval()  # type: ignore[no-any-return]


def inputs() -> Tensor:
    return torch.randn(B, T, E, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def one_expert(module: Experts, x: Tensor, expert: int) -> Tensor:
    groups = group_rows(torch.tensor([[expert]]), X)
    return module.experts(x[None], groups, FORWARD)[0]


@pytest.mark.parametrize("weights_on", ["output", "input"])
@pytest.mark.parametrize("expert", list(EXPERTS))
@torch.no_grad()
def test_result_equals_the_formula(expert: str, weights_on: str) -> None:
    router = {"name": "softmax-top-k", "k": 3, "selection_bias": True, "renormalize": False, "scale": 2.0}
    module, x = build(expert, router=router, weights_on=weights_on), inputs()
    module.router.selection_bias.mul_(0.1)  # type: ignore[operator, union-attr]
    scores = (x.flatten(0, 1) @ module.router.scores.weight.T).softmax(-1)  # type: ignore[operator]
    chosen = (scores + module.router.selection_bias).topk(3).indices  # type: ignore[operator]
    assert len({int((each >= X).sum()) for each in chosen}) > 2  # tokens with different numbers of experts with weights
    expected = []
    for x_E, scores_X, experts_K in zip(x.flatten(0, 1), scores, chosen, strict=True):
        y = torch.zeros(E, dtype=torch.float64)
        for index in experts_K.tolist():
            weight = 2.0 * scores_X[index]
            if index >= X:
                y += weight * x_E
            elif weights_on == "input":
                y += one_expert(module, weight * x_E, index)
            else:
                y += weight * one_expert(module, x_E, index)
        expected.append(y)
    torch.testing.assert_close(module(x, FORWARD), torch.stack(expected).view_as(x))


@torch.no_grad()
def test_modules_by_tokens_equal_modules_by_slices() -> None:
    module, x = build("modules"), inputs().flatten(0, 1)
    experts_NK = torch.rand(B * T, X + Z, generator=torch.Generator().manual_seed(2)).topk(2).indices
    groups = group_rows(experts_NK, X, outside=True)
    x_ME = x.repeat_interleave(2, dim=0)[groups.order_M]
    assert isinstance(module.experts, StackedModules)
    by_tokens = module.experts._by_tokens(x_ME, groups, FORWARD)
    torch.testing.assert_close(by_tokens, module.experts._by_slices(x_ME, groups, FORWARD))


def test_only_identity_experts_return_the_input_with_its_gradient() -> None:
    """Without a token, experts have no gradient, and the router still has one."""
    module = build(router={"name": "softmax-top-k", "k": 2, "selection_bias": True, "renormalize": False})
    with torch.no_grad():
        module.router.selection_bias[X:] = 9.0  # type: ignore[index, operator]
    x = inputs().requires_grad_()
    y = module(x, FORWARD)
    ratio = y / x
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio))
    y.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert module.router.scores.weight.grad.any()  # type: ignore[union-attr, operator]
    for name, parameter in module.experts.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name


def test_products_of_identity_experts_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, the number of rows that are multiplied is that of experts with weights."""
    module, rows = build(router={"name": "softmax-top-k", "k": 2}), []
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, **kwargs: (rows.append(len(a)), multiply(a, b, **kwargs))[1])
    with torch.no_grad():
        experts_NK, _ = module.router(inputs().flatten(0, 1), FORWARD)
        module(inputs(), FORWARD)
    assert sum(rows) == 2 * int((experts_NK < X).sum())  # for two projections


@pytest.mark.slow
@pytest.mark.parametrize("expert", list(EXPERTS))
def test_compiled_experts_are_one_graph_with_equal_results(expert: str) -> None:
    module = build(expert, router={"name": "softmax-top-k", "k": 3}).train()

    def step(x: Tensor) -> Tensor:
        result: Tensor = module(x, Forward(torch.zeros(B, T, dtype=torch.long)))
        return result.square().sum()

    gradients = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        module.zero_grad()
        x = inputs().requires_grad_()
        function(x).backward()
        gradients.append({"x": x.grad, **{name: each.grad for name, each in module.named_parameters()}})
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradient, gradients[0][name], msg=name)


def test_model_trains_in_bf16_and_fp32() -> None:
    feedforward = {"name": "experts", "n_experts": 2, "identity_experts": 2, "expert": EXPERTS["stacked"]}
    feedforward["router"] = {"name": "softmax-top-k", "k": 2, "balance_loss": 0.01, "bias_rate": 0.01}
    for dtype in (torch.float32, torch.bfloat16):
        model = GPT({"d_model": E, "n_layers": 2, "context_length": 16, "feedforward": feedforward}, 13, seed=0).to(dtype)
        ids = torch.randint(13, (4, 12), generator=torch.Generator().manual_seed(0))
        loss = model(ids[:, :-1], ids[:, 1:]).loss
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name
        assert isinstance(model, nn.Module)


@pytest.mark.parametrize("identities", [0, 2])
@pytest.mark.parametrize("expert", list(EXPERTS))
@torch.no_grad()
def test_zero_experts_add_nothing(expert: str, identities: int) -> None:
    router = {"name": "softmax-top-k", "k": 3, "renormalize": False}
    module, x = build(expert, router=router, identity_experts=identities, zero_experts=4), inputs()
    assert module.router.scores.out_features == X + identities + 4  # type: ignore[union-attr]
    scores = (x.flatten(0, 1) @ module.router.scores.weight.T).softmax(-1)  # type: ignore[operator, union-attr]
    expected = []
    for x_E, scores_X in zip(x.flatten(0, 1), scores, strict=True):
        y = torch.zeros(E, dtype=torch.float64)
        for index in scores_X.topk(3).indices.tolist():
            if index < X:
                y += scores_X[index] * one_expert(module, x_E, index)
            elif index < X + identities:
                y += scores_X[index] * x_E
        expected.append(y)
    torch.testing.assert_close(module(x, FORWARD), torch.stack(expected).view_as(x))


def test_tokens_that_skip_all_experts_have_zeros_and_no_gradient() -> None:
    module = build(router={"name": "softmax-top-k", "k": 1, "selection_bias": True}, identity_experts=0, zero_experts=1)
    with torch.no_grad():
        module.router.selection_bias[X] = 9.0  # type: ignore[index, operator]
    y = module(inputs().requires_grad_(), FORWARD)
    assert not y.any()
    y.sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name


def test_router_chooses_among_all_experts() -> None:
    data = {"name": "experts", "n_experts": 2, "identity_experts": 1, "router": {"name": "softmax-top-k", "k": 4}}
    with pytest.raises(SpecError, match="k is 4, but the layer has 3 experts"):
        validate_data({"d_model": E, "feedforward": data}, ModelSpec)
