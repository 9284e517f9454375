"""Mixtures of experts against transformers' blocks with equal weights, and by their contract."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gptkit.components.feedforward.experts import ExpertsSpec
from gptkit.components.feedforward.gated import GatedSpec
from gptkit.components.feedforward.mlp import MLPSpec
from gptkit.components.feedforward.modules.experts import Experts
from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.after_step import after_step
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.stacked import StackedModules
from gptkit.ops.grouped import group_rows

B, T, E, F, X = 2, 7, 16, 12, 8
CONTEXT = BuildContext(d_model=E, context_length=8, n_layers=2)
FORWARD = Forward(torch.zeros(B, T, dtype=torch.long))
GATED = {"name": "gated", "d_hidden": F}


def randomized(module: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
    return module.eval()


def build(**fields: Any) -> Experts:
    return randomized(ExpertsSpec.model_validate({"n_experts": X, "expert": GATED, **fields}).build(CONTEXT))


def inputs() -> Tensor:
    return torch.randn(B, T, E, generator=torch.Generator().manual_seed(0))


# Each row: the family, its block, its config, our fields.
SHARED = {"name": "gated", "d_hidden": 2 * F}
FAMILIES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "mixtral": ("MixtralSparseMoeBlock", "Mixtral", {"num_local_experts": X, "num_experts_per_tok": 2}, {}),
    "qwen3_moe": (
        "Qwen3MoeSparseMoeBlock",
        "Qwen3Moe",
        {"num_experts": X, "num_experts_per_tok": 3, "norm_topk_prob": True, "moe_intermediate_size": F},
        {"router": {"name": "softmax-top-k", "k": 3}},
    ),
    "olmoe": (
        "OlmoeSparseMoeBlock",
        "Olmoe",
        {"num_experts": X, "num_experts_per_tok": 3, "norm_topk_prob": False},
        {"router": {"name": "softmax-top-k", "k": 3, "renormalize": False}},
    ),
    "qwen3_next": (
        "Qwen3NextSparseMoeBlock",
        "Qwen3Next",
        {
            "num_experts": X,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "moe_intermediate_size": F,
            "shared_expert_intermediate_size": 2 * F,
        },
        {"shared": SHARED, "shared_gate": True},
    ),
    "deepseek_v2": (
        "DeepseekV2Moe",
        "DeepseekV2",
        {
            "n_routed_experts": X,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": F,
            "n_shared_experts": 2,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 1.7,
        },
        {
            "router": {
                "name": "softmax-top-k",
                "k": 3,
                "renormalize": False,
                "scale": 1.7,
                "n_groups": 4,
                "top_groups": 2,
            },
            "shared": SHARED,
        },
    ),
    "deepseek_v3": (
        "DeepseekV3MoE",
        "DeepseekV3",
        {
            "n_routed_experts": X,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": F,
            "n_shared_experts": 2,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
        },
        {
            "router": {
                "name": "sigmoid",
                "k": 3,
                "scale": 2.5,
                "n_groups": 4,
                "top_groups": 2,
                "selection_bias": True,
            },
            "shared": SHARED,
        },
    ),
    "glm4_moe": (
        "Glm4MoeMoE",
        "Glm4Moe",
        {
            "n_routed_experts": X,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": F,
            "n_shared_experts": 2,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.5,
        },
        {"router": {"name": "sigmoid", "k": 2, "scale": 1.5, "selection_bias": True}, "shared": SHARED},
    ),
    "granitemoe": (
        "GraniteMoeMoE",
        "GraniteMoe",
        {"num_local_experts": X, "num_experts_per_tok": 3},
        {"router": {"name": "top-k-softmax", "k": 3}},
    ),
    "gpt_oss": (
        "GptOssMLP",
        "GptOss",
        {"num_local_experts": X, "num_experts_per_tok": 3},
        {
            "router": {"name": "top-k-softmax", "k": 3, "bias": True},
            "expert": {**GATED, "activation": "quick-gelu", "bias": True, "clamp": 7.0, "up_offset": 1.0},
        },
    ),
    "llama4": (
        "Llama4TextMoe",
        "Llama4Text",
        {"num_local_experts": X, "num_experts_per_tok": 1},
        {
            "router": {"name": "sigmoid", "k": 1, "renormalize": False},
            "shared": GATED,
            "weights_on": "input",
        },
    ),
    "phimoe": (
        "PhimoeSparseMoeBlock",
        "Phimoe",
        {"num_local_experts": X, "num_experts_per_tok": 2, "router_jitter_noise": 0.4},
        {"router": {"name": "sparsemixer", "tolerance": 0.4}},
    ),
}


@torch.no_grad()
def load(mixture: Experts, reference: Any) -> None:
    """Copy the reference's weights."""
    router: Any = mixture.router
    gate = reference.gate if hasattr(reference, "gate") else reference.router
    router.scores.weight.copy_(gate.weight)
    if router.scores.bias is not None:
        router.scores.bias.copy_(gate.bias)
    if hasattr(gate, "e_score_correction_bias"):
        router.selection_bias.copy_(gate.e_score_correction_bias)
    experts: Any = mixture.experts
    up, down = reference.experts.gate_up_proj, reference.experts.down_proj
    if up.shape[1] == E:  # stored transposed
        up, down = up.mT, down.mT
    if hasattr(reference.experts, "gate_up_proj_bias"):  # gate and up are interleaved
        up = torch.cat((up[:, 0::2], up[:, 1::2]), dim=1)
        bias = reference.experts.gate_up_proj_bias
        experts.gate_up.bias.copy_(torch.cat((bias[:, 0::2], bias[:, 1::2]), dim=1))
        experts.down.bias.copy_(reference.experts.down_proj_bias)
    experts.gate_up.weight.copy_(up)
    experts.down.weight.copy_(down)
    shared = getattr(reference, "shared_experts", None) or getattr(reference, "shared_expert", None)
    if shared is not None:
        mixture.shared.gate_up.weight.copy_(torch.cat((shared.gate_proj.weight, shared.up_proj.weight)))
        mixture.shared.down.weight.copy_(shared.down_proj.weight)
    if mixture.shared_gate is not None:
        mixture.shared_gate.weight.copy_(reference.shared_expert_gate.weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_equal_the_family(family: str) -> None:
    pytest.importorskip("transformers")
    import transformers

    block, prefix, config_fields, fields = FAMILIES[family]
    modeling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    config = getattr(transformers, f"{prefix}Config")(
        hidden_size=E, intermediate_size=F, num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, **config_fields
    )
    config._experts_implementation = "eager"
    reference = randomized(getattr(modeling, block)(config))
    mixture = build(**fields)
    load(mixture, reference)
    wanted = reference(inputs())
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    out = mixture(inputs(), FORWARD)
    torch.testing.assert_close(out, wanted.view_as(out), rtol=1e-5, atol=1e-5)


ROUTERS: list[dict[str, Any]] = [
    {"name": "softmax-top-k", "k": 3},
    {"name": "top-k-softmax"},
    {"name": "sigmoid", "n_groups": 4, "top_groups": 2},
    {"name": "sparsemixer"},
]


@pytest.mark.parametrize("router", ROUTERS, ids=lambda router: router["name"])
def test_tokens_are_independent(router: dict[str, Any]) -> None:
    mixture = build(router=router).double()
    together = mixture(inputs().double(), FORWARD)
    for row in range(B):
        for at in range(T):
            alone = mixture(inputs()[row : row + 1, at : at + 1].double(), Forward(torch.zeros(1, 1, dtype=torch.long)))
            torch.testing.assert_close(alone[0, 0], together[row, at], rtol=1e-12, atol=1e-12)


def one_of(mixture: Experts, index: int, spec: FeedForwardSpec) -> FeedForward:
    """Return one expert as a feed-forward."""
    alone = spec.build(CONTEXT)
    experts: Any = mixture.experts
    if isinstance(experts, StackedModules):
        alone.load_state_dict(experts.each[index].state_dict())
    else:
        alone.load_state_dict({name: tensor[index] for name, tensor in experts.state_dict().items()})
    return alone.eval()


class Doubled(nn.Module):
    """Activation with a learned parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class LearnedActivationSpec(ActivationSpec):
    name: Literal["learned"] = "learned"

    def build(self, context: BuildContext) -> nn.Module:
        return Doubled()


class OwnBuildSpec(MLPSpec):
    """Subclass that overrides `build` and inherits a stacked form that does not match."""

    name: Literal["own-build"] = "own-build"  # type: ignore[assignment]

    def build(self, context: BuildContext) -> FeedForward:
        module = super().build(context)
        module.activation = Doubled()
        return module


EXPERTS: dict[str, FeedForwardSpec] = {
    "mlp": MLPSpec(d_hidden=5, activation="relu"),
    "gated": GatedSpec(d_hidden=5),
    "gated-clamped": GatedSpec(d_hidden=5, bias=True, clamp=0.3, up_offset=1.0),
    "gated-softcapped": GatedSpec(d_hidden=5, up_softcap=0.3),
    "learned-activation": MLPSpec.model_construct(d_hidden=5, activation=LearnedActivationSpec()),
    "own-build": OwnBuildSpec(d_hidden=5),
}
STACKED = {"mlp", "gated", "gated-clamped", "gated-softcapped"}


def of(expert: FeedForwardSpec, **fields: Any) -> Experts:
    spec = ExpertsSpec.model_validate({"n_experts": X, **fields}).model_copy(update={"expert": expert})
    return randomized(spec.build(CONTEXT))


@pytest.mark.parametrize("weights_on", ["output", "input"])
@pytest.mark.parametrize("name", EXPERTS)
def test_experts_equal_the_formula(name: str, weights_on: str) -> None:
    expert = EXPERTS[name]
    mixture = of(expert, weights_on=weights_on)
    assert isinstance(mixture.experts, StackedModules) == (name not in STACKED)
    x_NE = inputs().flatten(0, 1)
    experts, weights = mixture.router(x_NE, FORWARD)
    by_hand = torch.zeros_like(x_NE)
    for n in range(len(x_NE)):
        for index, weight in zip(experts[n].tolist(), weights[n], strict=True):
            given = x_NE[n] * weight if weights_on == "input" else x_NE[n]
            out = one_of(mixture, index, expert)(given[None, None], FORWARD)[0, 0]
            by_hand[n] += out if weights_on == "input" else out * weight
    torch.testing.assert_close(mixture(inputs(), FORWARD).flatten(0, 1), by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (B, T)], ids=["decode", "train"])
@pytest.mark.parametrize("name", [name if name == "mlp" else pytest.param(name, marks=pytest.mark.slow) for name in EXPERTS])
def test_compiled_experts_are_one_graph_with_equal_results(name: str, shape: tuple[int, int]) -> None:
    mixture = of(EXPERTS[name], router={"name": "sigmoid", "bias_rate": 0.1, "balance_loss": 0.1}).train()
    losses: list[Tensor] = []

    def step(x: Tensor) -> Tensor:
        forward = Forward(torch.zeros(shape, dtype=torch.long))
        out: Tensor = mixture(x, forward)
        return out.square().sum() + forward.losses["load_balance"]

    gradients, loads = [], []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        mixture.zero_grad()
        mixture.router.load_X.zero_()
        x = inputs()[: shape[0], : shape[1]].clone().requires_grad_()
        loss = function(x)
        loss.backward()
        losses.append(loss.detach())
        gradients.append({"x": x.grad, **{n: p.grad for n, p in mixture.named_parameters() if p.grad is not None}})
        loads.append(mixture.router.load_X.clone())
    torch.testing.assert_close(losses[1], losses[0])
    assert torch.equal(loads[0], loads[1])
    assert loads[0].sum() == 2 * shape[0] * shape[1]
    # Modules without tokens get no gradient, or one of zeros.
    for key, gradient in gradients[1].items():
        torch.testing.assert_close(gradient, gradients[0].get(key, torch.zeros_like(gradient)), rtol=1e-5, atol=1e-5)


def test_scale_multiplies_experts_and_the_shared_one() -> None:
    plain, halved = build(shared=GATED), build(shared=GATED, scale=0.5)
    halved.load_state_dict(plain.state_dict())
    torch.testing.assert_close(halved(inputs(), FORWARD), plain(inputs(), FORWARD) / 2)


def test_latent_experts_equal_experts_between_two_projections() -> None:
    """The router and the shared feed-forward receive the tokens themselves."""
    mixture = build(latent=5, shared=GATED)
    assert mixture.latent_down is not None
    assert mixture.latent_up is not None
    x_NE = inputs().flatten(0, 1)
    experts, weights = mixture.router(x_NE, FORWARD)
    single = ExpertsSpec.model_validate({"expert": GATED}).expert.build(CONTEXT.replace(d_model=5))
    by_hand = mixture.shared(inputs(), FORWARD).flatten(0, 1)  # type: ignore[misc]
    for n in range(len(x_NE)):
        latent = torch.zeros(5)
        for index, weight in zip(experts[n].tolist(), weights[n], strict=True):
            single.load_state_dict({key: stack[index] for key, stack in mixture.experts.state_dict().items()})
            latent = latent + weight * single((mixture.latent_down.weight @ x_NE[n])[None, None], FORWARD)[0, 0]
        by_hand[n] += mixture.latent_up.weight @ latent
    torch.testing.assert_close(mixture(inputs(), FORWARD).flatten(0, 1), by_hand, rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_router_and_only_the_used_experts() -> None:
    mixture = build(shared=GATED, shared_gate=True).train()
    chosen = set(mixture.router(inputs()[:, :2].flatten(0, 1), FORWARD)[0].flatten().tolist())
    assert 0 < len(chosen) < X
    mixture(inputs()[:, :2], FORWARD).square().sum().backward()
    for parameter in mixture.experts.parameters():
        assert parameter.grad is not None
        assert {index for index in range(X) if parameter.grad[index].any()} == chosen
    for module in (mixture.router, mixture.shared, mixture.shared_gate):
        assert all(bool(parameter.grad.any()) for parameter in module.parameters())  # type: ignore[union-attr]


def test_autocast_computes_in_bf16() -> None:
    mixture = build(expert={**GATED, "bias": True})
    wanted = mixture(inputs(), FORWARD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = mixture.experts.gate_up(inputs().flatten(0, 1), group_rows(torch.arange(X).repeat(2)[:, None][: B * T], X))
        narrow = mixture(inputs(), FORWARD)
    assert hidden.dtype == torch.bfloat16
    assert (narrow - wanted).norm() / wanted.norm() < 0.03


def test_experts_accept_zero_tokens_and_bf16() -> None:
    mixture = build()
    assert mixture(torch.zeros(1, 0, E), Forward(torch.zeros(1, 0, dtype=torch.long))).shape == (1, 0, E)
    wanted = mixture(inputs(), FORWARD)
    narrow = mixture.bfloat16()(inputs().bfloat16(), FORWARD)
    assert narrow.dtype == torch.bfloat16
    # Rounding may route a few tokens to other experts; all others must agree.
    far = (narrow - wanted).norm(dim=-1) / wanted.norm(dim=-1) > 0.03
    assert far.sum() <= 1


def test_flops_are_counted_on_meta() -> None:
    spec = ExpertsSpec.model_validate({"n_experts": X, "router": {"name": "softmax-top-k", "k": 3}, "expert": GATED})
    flops = {}
    for device in ("cpu", "meta"):
        with torch.device(device):
            module = spec.build(CONTEXT)
            x = torch.zeros(B, T, E)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            assert module(x, Forward(torch.zeros(B, T, dtype=torch.long, device=device))).shape == (B, T, E)
        flops[device] = counter.get_total_flops()
    n_tokens = B * T
    assert flops["meta"] == flops["cpu"] == 2 * n_tokens * E * X + n_tokens * 3 * (3 * 2 * E * F)


def test_model_with_dense_first_layers_and_auxiliary_losses_trains() -> None:
    router = {"name": "sigmoid", "k": 2, "balance_loss": 0.1, "z_loss": 0.01, "bias_rate": 0.01}
    experts = {"name": "experts", "n_experts": 4, "router": router, "expert": GATED}
    spec = {
        "d_model": E,
        "context_length": 8,
        "attention": {"n_heads": 2, "name": "multi-head"},
        "layers": [{"feedforward": {"name": "gated", "d_hidden": 20}}, {"feedforward": experts, "repeat": 2}],
    }
    model = GPT(spec, 11)
    ids = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(0))
    out = model.train()(ids, ids)
    assert set(out.losses) == {"load_balance", "router_z"}
    plain = model.eval()(ids, ids)
    assert plain.losses == {}
    torch.testing.assert_close(out.loss, plain.loss + sum(out.losses.values()))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()(ids, ids).loss.backward()
    optimizer.step()
    after_step(model)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert {"blocks.1.feedforward.router.scores.weight", "blocks.2.feedforward.router.selection_bias"} <= moved
    assert type(model.blocks[0].feedforward).__name__ == "Gated"


@pytest.mark.parametrize(
    ("fields", "location", "says"),
    [
        ({"n_experts": 2, "router": {"name": "softmax-top-k", "k": 3}}, "router.k", "lower k"),
        ({"router": {"name": "sigmoid", "n_groups": 3}}, "router.n_groups", "divisor"),
        ({"router": {"name": "sigmoid", "n_groups": 2, "top_groups": 3}}, "router.top_groups", "but the layer has"),
        ({"router": {"name": "softmax-top-k", "n_groups": 8, "top_groups": 1}}, "router.top_groups", "have fewer than 2"),
        ({"router": {"name": "sigmoid", "n_groups": 8, "top_groups": 2}}, "router.group_score", "no second best"),
        ({"expert": {"name": "experts", "n_experts": 1}}, "expert.router.k", "lower k"),
    ],
)
def test_impossible_settings_are_reported_with_their_path(fields: dict[str, Any], location: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        validate_data({"feedforward": {"name": "experts", **fields}}, ModelSpec)
    message = str(caught.value)
    assert f"feedforward.{location}" in message
    assert says in message


def test_shared_gate_requires_a_shared_feedforward() -> None:
    with pytest.raises(ValidationError, match="needs a shared"):
        ExpertsSpec(shared_gate=True)


def test_experts_can_be_nested() -> None:
    inner = {"name": "experts", "n_experts": 2, "expert": GATED, "router": {"name": "softmax-top-k", "balance_loss": 1}}
    mixture = build(n_experts=3, expert=inner).train()
    padded = Forward(torch.zeros(B, T, dtype=torch.long), left_padding_B=torch.tensor([0, 2]))
    assert mixture(inputs(), padded).isfinite().all()
