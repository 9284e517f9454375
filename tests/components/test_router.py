"""Routers: chosen experts, weights, and auxiliary losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.registry import default_registry
from gptkit.kinds.context import BuildContext
from gptkit.nn.after_step import after_step
from gptkit.nn.forward import Forward
from gptkit.nn.router import Router
from gptkit.ops.routing import limit_to_groups

N, E, X = 40, 8, 6
CONTEXT = BuildContext(d_model=E, context_length=8, n_layers=3)
ALL = default_registry().names("router")


def make(name: str, **fields: Any) -> Any:
    spec: Any = default_registry().component("router", name).model_validate({"name": name, **fields})
    module: Router = spec.resolved(CONTEXT).build(CONTEXT, n_experts=X)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()


def tokens() -> Tensor:
    return torch.randn(N, E, generator=torch.Generator().manual_seed(0))


def call(module: Any, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    forward = Forward(torch.zeros(1, len(x), dtype=torch.long))
    experts, weights = module(x, forward, valid)
    return experts, weights, forward.losses


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("k", [1, 2, X])
@pytest.mark.parametrize("name", ALL)
def test_routers_choose_k_distinct_experts_with_positive_weights(name: str, k: int, training: bool) -> None:
    torch.manual_seed(0)
    experts, weights, losses = call(make(name, k=k).train(training), tokens())
    assert experts.shape == weights.shape == (N, k)
    assert experts.dtype == torch.long
    assert all(len(set(row)) == k and min(row) >= 0 and max(row) < X for row in experts.tolist())
    assert (weights > 0).all()
    assert losses == {}


def test_softmax_and_choice_are_applied_in_order() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0, 0.5, 0.25]])
    shares = logits.softmax(-1)[0]

    def weights(name: str, **fields: Any) -> list[float]:
        experts, result = make(name, **fields).choose(logits, Forward(torch.zeros(1, len(logits), dtype=torch.long)))
        assert experts.tolist() == [[0, 2]]
        return [round(float(value), 5) for value in result[0]]

    def wanted(values: Tensor) -> list[float]:
        return [round(float(value), 5) for value in values]

    chosen = logits[0, [0, 2]]
    assert weights("softmax-top-k", renormalize=False) == wanted(shares[[0, 2]])
    assert weights("softmax-top-k", renormalize=False, scale=3) == wanted(3 * shares[[0, 2]])
    assert weights("softmax-top-k", scale=3) == wanted(3 * chosen.softmax(0))
    assert weights("top-k-softmax") == wanted(chosen.softmax(0))
    assert weights("sigmoid", renormalize=False) == wanted(chosen.sigmoid())
    assert weights("sigmoid", scale=2) == wanted(2 * chosen.sigmoid() / chosen.sigmoid().sum())
    rooted = torch.log1p(chosen.exp()).sqrt()
    assert weights("sqrt-softplus", renormalize=False) == wanted(rooted)
    assert weights("sqrt-softplus", scale=1.5) == wanted(1.5 * rooted / rooted.sum())
    assert weights("sparsemixer", tolerance=0.01) == [1.0, 1.0]
    # 2, 1 and 0.5 are within 75 % of 2; 1, 0.5 and 0.25 within 75 % of 1.
    by_hand = torch.stack((logits[0, [0, 2, 4]].softmax(0)[0], logits[0, [2, 4, 5]].softmax(0)[0]))
    assert weights("sparsemixer", tolerance=0.376) == wanted(by_hand)


@pytest.mark.parametrize("name", ["sigmoid", "softmax-top-k"])
def test_selection_bias_does_not_change_weights(name: str) -> None:
    module = make(name, k=1, renormalize=False, selection_bias=True)
    with torch.no_grad():
        module.selection_bias.copy_(torch.tensor([0, 0, 0, 0, 5.0, 0]))
    experts, weights, _ = call(module, tokens())
    assert (experts == 4).all()
    logits = module.logits(tokens())
    scores = logits.sigmoid() if name == "sigmoid" else logits.softmax(-1)
    torch.testing.assert_close(weights, scores[:, 4:5])


GROUPED = ["sigmoid", "softmax-top-k", "sqrt-softplus", "network"]


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("name", GROUPED)
def test_every_token_has_the_experts_of_always(name: str, renormalize: bool) -> None:
    module = make(name, k=2, always=2, selection_bias=True, renormalize=renormalize, scale=3)
    scores: list[Tensor] = []
    finish = module.finish
    module.finish = lambda weights, experts: scores.append(weights) or finish(weights, experts)
    experts, weights, _ = call(module, tokens())
    assert module.selection_bias.shape == (X - 2,)
    assert experts[:, 2:].tolist() == [[X - 2, X - 1]] * N
    assert experts[:, :2].max() < X - 2
    total = scores[0].sum(dim=1, keepdim=True) if renormalize else 1
    torch.testing.assert_close(weights, 3 * scores[0] / total)


def test_renormalized_weights_are_the_softmax_of_chosen_log_scores() -> None:
    """Inkling: the softmax of ln σ over the chosen experts and those that every token has."""
    module = make("sigmoid", k=2, always=2)
    logits = module.logits(tokens())
    experts, weights, _ = call(module, tokens())
    torch.testing.assert_close(weights, torch.nn.functional.logsigmoid(logits.gather(1, experts)).softmax(-1))


@pytest.mark.parametrize("name", GROUPED)
def test_experts_of_always_count_for_no_loss_and_no_bias(name: str) -> None:
    module = make(name, k=2, always=2, bias_rate=0.1, balance_loss=1.0).train()
    with torch.no_grad():
        module.selection_bias.zero_()  # with which the choice depends on the size of scores
    logits, counts = module.logits, []
    module.logits = lambda x: torch.cat((logits(x)[:, :-2], torch.full((len(x), 2), 7.0)), dim=1)
    _, _, losses = call(module, tokens())
    counts.append(module.load_X.clone())
    module.logits = lambda x: torch.cat((logits(x)[:, :-2], torch.full((len(x), 2), -7.0)), dim=1)
    torch.testing.assert_close(call(module, tokens())[2]["load_balance"], losses["load_balance"])
    assert torch.equal(module.load_X, 2 * counts[0])
    assert counts[0].sum() == 2 * N
    after_step(module)


@pytest.mark.parametrize(("fields", "field"), [({"always": X}, "always"), ({"always": 4, "k": 3}, "k")])
def test_too_many_experts_of_always_are_refused(fields: dict[str, Any], field: str) -> None:
    spec: Any = default_registry().component("router", "sigmoid").model_validate({"name": "sigmoid", **fields})
    assert [problem.path for problem in spec.expert_problems(X)] == [(field,)]


def test_experts_are_chosen_from_the_best_groups() -> None:
    scores = torch.tensor([[0.9, 0.0, 0.5, 0.6, 0.3, 0.4]])
    low = float("-inf")
    assert limit_to_groups(scores, 3, 1, "max").tolist() == [[*scores[0, :2].tolist(), low, low, low, low]]
    assert limit_to_groups(scores, 3, 1, "top-2-sum").tolist() == [[low, low, *scores[0, 2:4].tolist(), low, low]]
    assert limit_to_groups(scores, 3, 3, "max").tolist() == scores.tolist()
    for name in ("sigmoid", "softmax-top-k"):
        experts, _, _ = call(make(name, k=2, n_groups=3), tokens())
        assert (experts // 2 == experts[:, :1] // 2).all()


@pytest.mark.parametrize("name", sorted({*ALL} - {"hash"}))  # which no loss balances
def test_auxiliary_losses_equal_their_formulas(name: str) -> None:
    module = make(name, k=2, balance_loss=0.6, z_loss=0.3).train()
    with torch.no_grad():
        module.scores.weight.zero_()
    _, _, losses = call(module, tokens())
    # Averaged over the 3 layers. With even shares, the loss does not depend on the counts.
    torch.testing.assert_close(losses["load_balance"], torch.tensor(0.6 / 3 * 2))
    torch.testing.assert_close(losses["router_z"], torch.tensor(0.3 / 3 * math.log(X) ** 2))
    with torch.no_grad():
        module.scores.weight[0] = 3.0
    skewed = call(module, tokens().abs())[2]["load_balance"]
    # The scores of a network read vectors of either sign, of which one row attracts about half.
    assert skewed > 0.6 / 3 * 2 * (1 if name == "network" else 1.2)
    skewed.backward()
    assert module.scores.weight.grad.any()
    assert call(module.eval(), tokens())[2] == {}


def test_balance_loss_equals_transformers_for_one_layer() -> None:
    modeling = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    module = make("softmax-top-k", k=2, balance_loss=3.0).train()
    valid = torch.arange(N) >= 7
    for mask in (None, valid):
        _, _, losses = call(module, tokens(), mask)
        logits = module.logits(tokens())
        wanted = modeling.load_balancing_loss_func((logits,), X, 2, None if mask is None else mask[None].long())
        torch.testing.assert_close(losses["load_balance"], wanted)


def test_losses_exclude_padding() -> None:
    module = make("sigmoid", balance_loss=1.0, z_loss=1.0, bias_rate=0.1).train()
    before = module.selection_bias.clone()
    real = call(module, tokens()[5:])[2]
    module.after_step()
    after = module.selection_bias.clone()
    with torch.no_grad():
        module.selection_bias.copy_(before)
    padded = call(module, torch.cat((torch.full((5, E), 9.0), tokens()[5:])), torch.arange(N) >= 5)[2]
    module.after_step()
    for name, loss in real.items():
        torch.testing.assert_close(padded[name], loss)
    assert torch.equal(module.selection_bias, after)
    assert not torch.equal(before, after)


def test_losses_of_layers_are_averaged() -> None:
    module = make("softmax-top-k", balance_loss=1.0).train()
    forward = Forward(torch.zeros(1, N, dtype=torch.long))
    module(tokens(), forward)
    once = forward.losses["load_balance"].clone()
    module(tokens(), forward)
    torch.testing.assert_close(forward.losses["load_balance"], 2 * once)


@pytest.mark.parametrize("name", ["sigmoid", "softmax-top-k"])
def test_selection_bias_balances_the_load(name: str) -> None:
    module = make(name, k=1, bias_rate=0.02, renormalize=False).train()
    x = tokens() + 1

    def spread() -> float:
        return float(torch.bincount(call(module, x)[0].flatten(), minlength=X).float().std())

    with torch.no_grad():
        module.selection_bias.zero_()
        first = spread()
        assert module.selection_bias.count_nonzero() == 0
    for _ in range(60):
        call(module, x)
        module.after_step()
    with torch.no_grad():
        assert spread() < first / 2


def test_selection_bias_is_updated_once_per_step_by_the_load_of_all_parts() -> None:
    whole, parts = (make("sigmoid", bias_rate=0.1).train() for _ in range(2))
    before = whole.selection_bias.clone()
    call(whole, tokens())
    for part in tokens().split(10):
        call(parts, part)
    assert torch.equal(parts.selection_bias, before)
    for module in (whole, parts):
        after_step(module)
    assert torch.equal(parts.selection_bias, whole.selection_bias)
    torch.testing.assert_close((whole.selection_bias - before).abs().max(), torch.tensor(0.1))
    after_step(whole)  # no tokens were routed since, so the load is even
    assert torch.equal(parts.selection_bias, whole.selection_bias)
    assert "load_X" not in whole.state_dict()


def test_sparsemixer_samples_in_training_with_full_gradients() -> None:
    module = make("sparsemixer", k=1, tolerance=5.0).train()
    logits = torch.tensor([[1.0, 0.8, 0.9, 0.5, 0.7, 0.6]]).repeat(400, 1).requires_grad_()
    torch.manual_seed(0)
    experts, weights = module.choose(logits, Forward(torch.zeros(1, len(logits), dtype=torch.long)))
    shares = logits[0].softmax(0)
    frequency = torch.bincount(experts.flatten(), minlength=X) / 400
    assert (frequency - shares).abs().max() < 0.07
    ratio = (weights / shares[experts]).detach()
    low = (ratio - 1 / 3).abs() < 1e-3
    assert (low | ((ratio - 1).abs() < 1e-3)).all()
    assert not low[experts == 0].any()
    assert 0.6 < low[experts != 0].float().mean() < 0.9
    (gradient,) = torch.autograd.grad(weights.sum(), logits)
    again = logits.detach().requires_grad_()
    (plain,) = torch.autograd.grad(again.softmax(-1).gather(1, experts).sum(), again)
    torch.testing.assert_close(gradient, plain)


def test_scores_are_fp32_in_bf16_models() -> None:
    module = make("softmax-top-k")
    wanted = module.logits(tokens())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module.logits(tokens()), wanted)
    assert call(module.bfloat16(), tokens().bfloat16())[1].dtype == torch.bfloat16
    assert module.logits(tokens().bfloat16()).dtype == torch.float32
