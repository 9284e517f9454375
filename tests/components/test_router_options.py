"""Random combinations of the options of routers, with their losses and bias updates, against loops over tokens."""

from __future__ import annotations

import copy
import itertools
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.registry import default_registry
from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.nn.after_step import after_step
from gptkit.nn.forward import Forward

N, E, X, LAYERS = 17, 6, 8, 3
CONTEXT = BuildContext(d_model=E, context_length=32, n_layers=LAYERS)
RMS = {"name": "rms", "eps": 1e-3}
SCORES = ("sigmoid", "softmax-top-k", "sqrt-softplus")
OPTIONS: dict[str, list[Any]] = {
    "bias": [True],
    "norm": [RMS],
    "score_scale": [0.4],
    "renormalize": [False],
    "scale": [2.5],
    "expert_scale": [True],
    "always": [2],
    "n_groups": [2, 3],
    "top_groups": [2],
    "selection_bias": [True],
    "group_score": ["max", "top-2-sum"],
}


def combination(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    chosen = {name: draw.choice(values) for name, values in OPTIONS.items() if draw.random() < 0.5}
    name, k = draw.choice([*SCORES, "network", "top-k-softmax"]), draw.choice([1, 2, 3])
    if name == "top-k-softmax":
        chosen = {key: value for key, value in chosen.items() if key in ("bias", "norm", "score_scale")}
    if name == "sigmoid" and draw.random() < 0.5:
        chosen["selects_by"] = "logit"
    if name == "network":
        chosen.pop("norm", None)
        chosen |= {"d_hidden": 5, "hidden_layers": draw.choice([0, 1, 2]), "hidden_bias": draw.random() < 0.5, "norm": RMS}
        chosen["score"] = draw.choice(["softmax", "sigmoid", "sqrt-softplus"])
    if (X - chosen.get("always", 0)) % chosen.get("n_groups", 1):
        chosen["n_groups"] = 2
    if chosen.get("n_groups", 1) == 1:
        chosen.pop("top_groups", None)
    if k > chosen.get("top_groups", 1) * (X - chosen.get("always", 0)) // chosen.get("n_groups", 1):
        k = 2
    return {"name": name, "k": k, "balance_loss": 0.6, "z_loss": 0.3, **chosen}


def make(fields: dict[str, Any]) -> Any:
    spec: Any = default_registry().component("router", fields["name"]).model_validate(fields)
    assert not list(spec.expert_problems(X))
    module = spec.resolved(CONTEXT).build(CONTEXT, n_experts=X).double()
    with torch.no_grad():
        for seed, parameter in enumerate(module.state_dict().values()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return module.train()


def normed(x: Tensor, weight: Tensor) -> Tensor:
    return x / ((x**2).mean() + 1e-3).sqrt() * weight


def logits_of(fields: dict[str, Any], p: dict[str, Tensor], x: Tensor) -> Tensor:
    """The scores of one token before their function."""
    if fields["name"] == "network":
        x = p["down.weight"] @ x + p.get("down.bias", 0)
        x = normed(x, p["norm.weight"])
        for layer in range(fields["hidden_layers"]):
            x = p[f"hidden.{layer}.weight"] @ x + p.get(f"hidden.{layer}.bias", 0)
            x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
    elif "norm" in fields:
        x = normed(x, p["norm.weight"])
    return p["scores.weight"] @ x * fields.get("score_scale", 1.0) + p.get("scores.bias", 0)


def function_of(fields: dict[str, Any]) -> str:
    names = {"sigmoid": "sigmoid", "softmax-top-k": "softmax", "sqrt-softplus": "sqrt-softplus", "top-k-softmax": "softmax"}
    result: str = fields["score"] if fields["name"] == "network" else names[fields["name"]]
    return result


def scores_of(function: str, logits: Tensor) -> Tensor:
    exps = logits.exp()
    return {"sigmoid": exps / (1 + exps), "softmax": exps / exps.sum(), "sqrt-softplus": (1 + exps).log().sqrt()}[function]


def routed(fields: dict[str, Any], p: dict[str, Tensor], x: Tensor) -> tuple[list[int], Tensor, Tensor, Tensor]:
    """The experts of a token, their weights, all logits, and the scores of the experts that can be chosen."""
    n = X - fields.get("always", 0)
    logits = logits_of(fields, p, x)
    function = function_of(fields)
    # A softmax with experts that every token has is over all.
    scores = scores_of(function, logits)
    ranked = (logits.detach() if fields.get("selects_by") == "logit" else scores.detach())[:n] + p.get(
        "selection_bias", torch.zeros(())
    ).detach()
    size, best = n // fields.get("n_groups", 1), []
    for group in range(fields.get("n_groups", 1)):
        values = sorted(ranked[group * size : (group + 1) * size].tolist(), reverse=True)
        default = "max" if fields["name"] in ("softmax-top-k", "network") else "top-2-sum"
        count = 2 if fields.get("group_score", default) == "top-2-sum" else 1
        best.append((-sum(values[:count]), group))
    groups = [group for _, group in sorted(best)[: fields.get("top_groups", 1)]]
    candidates = [i for i in range(n) if i // size in groups]
    experts = sorted(candidates, key=lambda i: -float(ranked[i]))[: fields["k"]]
    all_of_token = [*experts, *range(n, X)]
    weights = scores[all_of_token]
    if fields["name"] == "top-k-softmax" or fields.get("renormalize", True):
        weights = weights / weights.sum()
    weights = weights * fields.get("scale", 1.0)
    if "expert_scale" in p:
        weights = weights * p["expert_scale"][all_of_token]
    return all_of_token, weights, logits, scores[:n]


@pytest.mark.parametrize("seed", range(60))
def test_combined_options_equal_the_formulas(seed: int) -> None:
    fields = combination(seed)
    module = make(fields)
    p = {name: value.detach().clone().requires_grad_() for name, value in module.state_dict().items()}
    x = torch.randn(N, E, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    valid = torch.arange(N) >= 4
    forward = Forward(torch.zeros(1, N, dtype=torch.long))
    experts, weights = module(x, forward, valid)
    rows = [routed(fields, p, row) for row in x]
    assert experts.tolist() == [row[0] for row in rows]
    expected = torch.stack([row[1] for row in rows])
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-9)

    # Load: f_x, the choices of x per token; P_x, the mean share of x in the scores. Switch Transformer, equation 4.
    n, real = X - fields.get("always", 0), [row for row, included in zip(rows, valid.tolist(), strict=True) if included]
    loads = [sum(x_ in row[0] for row in real) / len(real) for x_ in range(n)]
    shares = [row[3] / row[3].sum() for row in real]
    balance = n * sum(loads[i] * torch.stack([share[i] for share in shares]).mean() for i in range(n))
    z = torch.stack([row[2].exp().sum().log() ** 2 for row in real]).mean()
    losses = forward.losses
    torch.testing.assert_close(losses["load_balance"].double(), 0.6 / LAYERS * balance, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(losses["router_z"].double(), 0.3 / LAYERS * z, rtol=1e-6, atol=1e-6)

    total = (weights * torch.arange(1, weights.numel() + 1).view_as(weights)).sum() + sum(losses.values())
    wanted = (expected * torch.arange(1, weights.numel() + 1).view_as(weights)).sum() + (0.6 * balance + 0.3 * z) / LAYERS
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    got = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    expected_gradients = torch.autograd.grad(wanted, [p[name] for name in trained], allow_unused=True)
    for name, mine, other in itertools.zip_longest(trained, got, expected_gradients):
        mine, other = (torch.zeros(()) if each is None else each for each in (mine, other))
        torch.testing.assert_close(
            mine.double(),
            other.double().expand_as(mine),
            rtol=1e-5,
            atol=1e-6,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("name", [*SCORES, "network"])
@pytest.mark.parametrize("always", [0, 2])
def test_bias_update_equals_the_papers(name: str, always: int) -> None:
    """arXiv 2408.15664, algorithm 1, with the loads of two passes."""
    fields = {"name": name, "k": 2, "bias_rate": 0.25, "always": always}
    module = make(fields)
    n = X - always
    before, counts = module.selection_bias.clone(), [0] * n
    for seed in (0, 1):
        x = torch.randn(N, E, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        chosen, _ = module(x, Forward(torch.zeros(1, N, dtype=torch.long)), None)
        for expert in chosen.flatten().tolist():
            if expert < n:
                counts[expert] += 1
    after_step(module)
    mean = sum(counts) / n
    steps = torch.tensor([0.25 * ((mean > count) - (mean < count)) for count in counts])
    torch.testing.assert_close(module.selection_bias, (before + steps).to(before.dtype))


@pytest.mark.parametrize("name", [*SCORES, "network"])
@pytest.mark.parametrize("cast", ["bfloat16", "half"])
def test_selection_bias_is_not_rounded_in_half_precision(name: str, cast: str) -> None:
    """A bias far above the differences of scores, as it is after a long training: bf16 would make many equal."""
    fields = {"name": name, "k": 3, "selection_bias": True}
    module = make(fields).float().eval()
    with torch.no_grad():
        module.selection_bias.copy_(14 + 0.05 * torch.randn(X, generator=torch.Generator().manual_seed(5)))
    x = torch.randn(200, E, generator=torch.Generator().manual_seed(0)).to(
        getattr(torch, "float16" if cast == "half" else cast)
    )
    narrow = getattr(copy.deepcopy(module), cast)()
    wide = copy.deepcopy(narrow).float()
    assert torch.equal(narrow.selection_bias, module.selection_bias)
    assert narrow.scores.weight.dtype == x.dtype
    forward = Forward(torch.zeros(1, len(x), dtype=torch.long))
    same = narrow(x, forward)[0] == wide(x.float(), forward)[0]
    assert same.float().mean() > (0.95 if name == "network" else 0.999)  # whose products are in bf16


def test_small_steps_of_the_bias_count_in_a_bf16_model() -> None:
    feedforward = {"name": "experts", "n_experts": 4, "router": {"name": "sigmoid", "bias_rate": 0.001}}
    model = GPT({"d_model": 16, "n_layers": 1, "feedforward": feedforward}, 11, dtype=torch.bfloat16)
    router = model.get_submodule("blocks.0.feedforward.router")
    bias: Any = router.selection_bias
    assert (bias.dtype, model.dtype) == (torch.float32, torch.bfloat16)
    with torch.no_grad():
        bias.fill_(1.0)
    router.load_X.copy_(torch.tensor([5, 1, 1, 1]))
    after_step(model)
    torch.testing.assert_close(bias.data, torch.tensor([0.999, 1.001, 1.001, 1.001]))
