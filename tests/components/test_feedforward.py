"""Feed-forwards against transformers' modules and compositions of torch's modules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from gptkit.components.feedforward.gated import GatedSpec
from gptkit.components.feedforward.mlp import MLPSpec
from gptkit.components.feedforward.single_layer import SingleLayerSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.model.gpt import GPT
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from tests.support.learning import assert_learns, repeated

B, T, E = 2, 5, 24
CONTEXT = BuildContext(d_model=E, context_length=8, n_layers=2)
FORWARD = Forward(torch.zeros(B, T, dtype=torch.long))


def built(spec: FeedForwardSpec) -> FeedForward:
    module = spec.build(CONTEXT)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module


def inputs() -> Tensor:
    return torch.randn(B, T, E, generator=torch.Generator().manual_seed(0))


def same(actual: FeedForward, reference: nn.Module) -> None:
    """Equal outputs and input gradients, to 1e-5."""
    x, y = inputs().requires_grad_(), inputs().requires_grad_()
    out, wanted = actual(x, FORWARD), reference(y)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
    out.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_mlp_equals_linear_activation_linear(bias: bool) -> None:
    actual = built(MLPSpec(activation="relu", bias=bias))
    reference = nn.Sequential(nn.Linear(E, 4 * E, bias), nn.ReLU(), nn.Linear(4 * E, E, bias))
    reference.load_state_dict({f"{0 if 'up' in k else 2}.{k.split('.')[1]}": v for k, v in actual.state_dict().items()})
    same(actual, reference)


def test_mlp_equals_gpt2() -> None:
    modeling = pytest.importorskip("transformers.models.gpt2.modeling_gpt2")
    from transformers import GPT2Config

    actual = built(MLPSpec(activation="gelu-tanh"))
    reference = modeling.GPT2MLP(4 * E, GPT2Config(n_embd=E, resid_pdrop=0))
    # GPT-2 stores its projections transposed.
    reference.load_state_dict(
        {
            "c_fc.weight": actual.up.weight.T,
            "c_fc.bias": actual.up.bias,
            "c_proj.weight": actual.down.weight.T,
            "c_proj.bias": actual.down.bias,
        }
    )
    same(actual, reference)


@pytest.mark.parametrize(
    ("family", "classes", "activation"),
    [
        ("llama", ("LlamaMLP", "LlamaConfig"), "silu"),
        ("gemma", ("GemmaMLP", "GemmaConfig"), "gelu-tanh"),
    ],
)
def test_gated_equals_the_families(family: str, classes: tuple[str, str], activation: str) -> None:
    modeling = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    import transformers

    actual = built(GatedSpec(activation=activation, d_hidden=40))
    config = getattr(transformers, classes[1])(hidden_size=E, intermediate_size=40, num_attention_heads=2)
    reference = getattr(modeling, classes[0])(config)
    gate, up = actual.gate_up.weight.chunk(2)
    reference.load_state_dict({"gate_proj.weight": gate, "up_proj.weight": up, "down_proj.weight": actual.down.weight})
    same(actual, reference)


def test_gated_equals_phi3_with_packed_weights() -> None:
    modeling = pytest.importorskip("transformers.models.phi3.modeling_phi3")
    from transformers import Phi3Config

    actual = built(GatedSpec(d_hidden=40))
    reference = modeling.Phi3MLP(Phi3Config(hidden_size=E, intermediate_size=40, pad_token_id=0))
    reference.load_state_dict({"gate_up_proj.weight": actual.gate_up.weight, "down_proj.weight": actual.down.weight})
    same(actual, reference)


def test_gated_equals_an_expert_of_gpt_oss() -> None:
    modeling = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")
    from transformers import GptOssConfig

    config = GptOssConfig(hidden_size=E, intermediate_size=40, num_local_experts=1, num_experts_per_tok=1)
    config._experts_implementation = "eager"
    experts = modeling.GptOssExperts(config)
    actual = built(GatedSpec(activation="quick-gelu", d_hidden=40, bias=True, clamp=1.5, up_offset=1.0))
    gate_up = torch.stack(actual.gate_up.weight.chunk(2), dim=1).reshape(80, E)
    gate_up_bias = torch.stack(actual.gate_up.bias.chunk(2), dim=1).reshape(80)
    experts.load_state_dict(
        {
            "gate_up_proj": gate_up.T[None],
            "gate_up_proj_bias": gate_up_bias[None],
            "down_proj": actual.down.weight.T[None],
            "down_proj_bias": actual.down.bias[None],
        }
    )
    experts.limit = 1.5
    x = inputs().view(-1, E)
    chosen = torch.zeros(B * T, 1, dtype=torch.long)
    wanted = experts(x, chosen, torch.ones(B * T, 1))
    torch.testing.assert_close(actual(x[None], FORWARD)[0], wanted.view(-1, E), rtol=1e-5, atol=1e-5)


def test_soft_bounds_equal_those_of_inkling_2() -> None:
    modeling = pytest.importorskip("transformers.models.inkling2.modeling_inkling2")
    from transformers.models.inkling2 import Inkling2TextConfig

    caps = {"mlp_gate_softcap": 0.6, "mlp_up_softcap": 0.9}
    reference = modeling.Inkling2SoftcappedSwiGLU(Inkling2TextConfig(**caps))
    activation = {"name": "capped-silu", "cap": 0.6}
    actual = built(GatedSpec.model_validate({"activation": activation, "d_hidden": 16, "up_softcap": 0.9}))
    gate, up = actual.gate_up(inputs()).split(16, dim=-1)
    wanted = F.linear(reference(gate, up), actual.down.weight)
    torch.testing.assert_close(actual(inputs(), FORWARD), wanted, rtol=0, atol=1e-5)


def test_gated_equals_its_formula() -> None:
    actual = built(GatedSpec(activation="relu", d_hidden=16, bias=True, clamp=0.75, up_offset=0.5))
    gate, up = F.linear(inputs(), actual.gate_up.weight, actual.gate_up.bias).split(16, dim=-1)
    product = gate.clamp(max=0.75).relu() * (up.clamp(-0.75, 0.75) + 0.5)
    by_hand = F.linear(product, actual.down.weight, actual.down.bias)
    torch.testing.assert_close(actual(inputs(), FORWARD), by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "d_model", "d_hidden"),
    [
        (MLPSpec(), 768, 3072),
        (MLPSpec(expansion=2.5), 10, 25),
        (MLPSpec(d_hidden=7), 768, 7),
        (GatedSpec(), 768, 2048),
        (GatedSpec(), 256, 704),
        (GatedSpec(), 4096, 10944),
        (GatedSpec(multiple_of=256), 4096, 11008),
        (GatedSpec(expansion=4, multiple_of=1), 96, 384),
        (GatedSpec(d_hidden=100), 96, 100),
    ],
)
def test_hidden_width_is_resolved(spec: Any, d_model: int, d_hidden: int) -> None:
    context = BuildContext(d_model=d_model, context_length=8, n_layers=1)
    resolved = spec.resolved(context)
    assert resolved.d_hidden == d_hidden
    assert resolved.resolved(context) == resolved
    with torch.device("meta"):
        module, again = spec.build(context), resolved.build(context)
    assert module.down.weight.shape == again.down.weight.shape == (d_model, d_hidden)


@pytest.mark.parametrize("spec", [MLPSpec, GatedSpec])
def test_expansion_and_d_hidden_together_are_rejected(spec: type[FeedForwardSpec]) -> None:
    with pytest.raises(ValidationError, match="not both"):
        spec.model_validate({"expansion": 2, "d_hidden": 8})


@pytest.mark.parametrize("spec", [MLPSpec(), GatedSpec()])
def test_shapes_of_outputs_and_parameters(spec: FeedForwardSpec) -> None:
    module = built(spec)
    seen: list[tuple[int, ...]] = []
    for part in module.children():
        part.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape)))
    assert module(inputs(), FORWARD).shape == (B, T, E)
    hidden = module.down.weight.shape[1]
    assert seen[0] == (B, T, hidden if spec.name == "mlp" else 2 * hidden)
    assert seen[1] == (B, T, hidden)
    assert seen[-1] == (B, T, E)


@pytest.mark.parametrize("spec", [MLPSpec(dropout=0.5), GatedSpec(dropout=0.5)])
def test_dropout_acts_in_training_only(spec: FeedForwardSpec) -> None:
    module = built(spec)
    plain = built(spec.replace(dropout=0.0))
    assert not any(isinstance(part, nn.Dropout) for part in plain.modules())
    assert not torch.equal(module(inputs(), FORWARD), plain(inputs(), FORWARD))
    assert torch.equal(module.eval()(inputs(), FORWARD), plain(inputs(), FORWARD))


@pytest.mark.parametrize("spec", [MLPSpec(), GatedSpec()])
def test_output_projection_is_declared_as_output(spec: FeedForwardSpec) -> None:
    assert spec.build(CONTEXT).initial() == {"down.weight": "output"}


@pytest.mark.parametrize("spec", [MLPSpec(), GatedSpec(bias=True)])
def test_feedforward_copies_and_casts(spec: FeedForwardSpec) -> None:
    module = built(spec)
    twin = copy.deepcopy(module)
    assert torch.equal(twin(inputs(), FORWARD), module(inputs(), FORWARD))
    narrow = twin.bfloat16()(inputs().bfloat16(), FORWARD)
    assert narrow.dtype == torch.bfloat16
    wanted = module(inputs(), FORWARD)
    assert (narrow - wanted).norm() / wanted.norm() < 0.02


def test_hidden_norm_equals_bitnet() -> None:
    modeling = pytest.importorskip("transformers.models.bitnet.modeling_bitnet")
    from transformers import BitNetConfig

    actual = built(GatedSpec(activation="relu-squared", d_hidden=20, hidden_norm={"name": "rms", "eps": 1e-5}))
    reference = modeling.BitNetMLP(BitNetConfig(hidden_size=E, intermediate_size=20))
    state = actual.state_dict()
    gate, up = state["gate_up.weight"].chunk(2)
    reference.load_state_dict(
        {
            "gate_proj.weight": gate,
            "up_proj.weight": up,
            "down_proj.weight": state["down.weight"],
            "ffn_sub_norm.weight": state["hidden_norm.weight"],
        }
    )
    same(actual, reference)


def test_experts_with_a_norm_have_one_each() -> None:
    assert GatedSpec(d_hidden=20, hidden_norm="rms").build_stacked(CONTEXT, 3) is None


def test_single_layer_equals_the_layer_before_modernberts_vocabulary() -> None:
    modeling = pytest.importorskip("transformers.models.modernbert_decoder.modeling_modernbert_decoder")
    from transformers import ModernBertDecoderConfig

    config = ModernBertDecoderConfig(hidden_size=E, classifier_bias=True, norm_eps=1e-3)
    reference = modeling.ModernBertDecoderPredictionHead(config)
    actual = built(SingleLayerSpec())
    reference.dense.load_state_dict({name.split(".")[1]: value for name, value in actual.state_dict().items()})
    torch.testing.assert_close(F.layer_norm(actual(inputs(), FORWARD), (E,), eps=1e-3), reference(inputs()))


def test_training_with_a_single_layer_learns() -> None:
    last = {"block": {"name": "single-branch", "branch": "feedforward", "shortcut": False}, "feedforward": "single-layer"}
    layers = [{"repeat": 2}, last]
    spec = {"d_model": 24, "n_layers": 3, "context_length": 16, "position": "rotary", "layers": layers}
    attention = {"name": "multi-head", "n_heads": 2, "d_head": 12}
    assert_learns(GPT({**spec, "attention": attention}, 9, seed=0), repeated(6), steps=150)
