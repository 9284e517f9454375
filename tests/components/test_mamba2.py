"""`mamba2`: against transformers' Mamba-2, its formula token by token, and its state when decoding."""

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
from gptkit.ops.state_space import state_space_scan, state_space_step
from tests.support.recurrences import RECURRENT, V, check_equal_with_gradients, check_reset_state, draw

CASE = RECURRENT["mamba2"]


def scan_inputs(n_tokens: int) -> tuple[Tensor, ...]:
    """Two groups of three heads."""
    sizes = ((2, 5), (2, 5), (6, 4))
    q, k, v = (draw(2, n_tokens, *size, seed=seed) for seed, size in enumerate(sizes))
    return q, k, v, -draw(2, n_tokens, 6, seed=3).exp(), draw(2, 6, 4, 5, seed=4)


def token_by_token(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    *per_token, state = inputs
    outs = []
    for t in range(per_token[0].shape[1]):
        out, state = state_space_step(*(x[:, t] for x in per_token), state)  # type: ignore[call-arg]
        outs.append(out)
    return torch.stack(outs, dim=1), state


def test_step_equals_its_formula() -> None:
    q, k, v, g, state = (x[0, 0] if x.dim() < 5 and i < 4 else x[0] for i, x in enumerate(scan_inputs(1)))
    out, after = state_space_step(q[None], k[None], v[None], g[None], state[None])
    for head in range(6):
        wanted = g[head].exp() * state[head] + torch.outer(v[head], k[head // 3])
        torch.testing.assert_close(after[0, head], wanted)
        torch.testing.assert_close(out[0, head], wanted @ q[head // 3])


@pytest.mark.parametrize(("n_tokens", "chunk"), [(1, 4), (4, 4), (11, 4), (12, 4), (9, 64), (130, 64)])
def test_chunks_equal_single_steps(n_tokens: int, chunk: int) -> None:
    inputs = [x.requires_grad_() for x in scan_inputs(n_tokens)]
    out, state = state_space_scan(*inputs, chunk=chunk)  # type: ignore[misc]
    wanted, wanted_state = token_by_token(*inputs)
    check_equal_with_gradients((out, state), (wanted, wanted_state), inputs)


def test_strong_decay_does_not_overflow() -> None:
    q, k, v, g, state = scan_inputs(70)
    out, after = state_space_scan(q, k, v, g * 1e4, state)
    wanted, wanted_after = token_by_token(q, k, v, g * 1e4, state)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(after, wanted_after)


@pytest.mark.parametrize("border", [1, 3, 4, 5, 8, 10])
def test_reset_state_equals_a_new_text(border: int) -> None:
    *inputs, state = scan_inputs(11)
    check_reset_state(state_space_scan, inputs, state, border, dim=1)


def formula(module: Any, x_TE: Tensor, spec: Any) -> Tensor:
    """The component's formula for one row, token by token."""
    n_heads, d_head, n_groups, d_state = spec.n_heads, spec.d_head, spec.n_groups, spec.d_state
    inputs = x_TE @ module.input.weight.T + (module.input.bias if spec.bias else 0)
    d_values, d_keys = n_heads * d_head, n_groups * d_state
    if spec.projection_scales is not None:
        sizes = [d_values, d_values, d_keys, d_keys, n_heads]
        scales = torch.tensor(spec.projection_scales, dtype=inputs.dtype)
        inputs = inputs * scales.repeat_interleave(torch.tensor(sizes))
    z, u, step = inputs.split([d_values, d_values + 2 * d_keys, n_heads], dim=-1)
    states = [torch.zeros(d_head, d_state, dtype=x_TE.dtype) for _ in range(n_heads)]
    rows = []
    for t in range(len(x_TE)):
        conv = torch.zeros_like(u[0])
        for back in range(spec.conv_width):
            if t >= back:
                conv = conv + module.conv.weight[:, 0, spec.conv_width - 1 - back] * u[t - back]
        if spec.conv_bias:
            conv = conv + module.conv.bias
        v, k, q = (conv * conv.sigmoid()).split([d_values, d_keys, d_keys])
        heads = []
        for head in range(n_heads):
            part = slice(head // (n_heads // n_groups) * d_state, (head // (n_heads // n_groups) + 1) * d_state)
            value = v[head * d_head : (head + 1) * d_head]
            delta = (1 + (step[t, head] + module.step_bias[head]).exp()).log()
            delta = delta.clamp(spec.step_min, spec.step_max)
            decay = (-module.decay_log[head].exp() * delta).exp()
            states[head] = decay * states[head] + torch.outer(delta * value, k[part])
            heads.append(states[head] @ q[part] + module.skip[head] * value)
        out, gate = torch.cat(heads), z[t] * z[t].sigmoid()
        if spec.norm == "after":
            out = out * gate
        if spec.norm != "none":
            groups = out.view(spec.norm_groups, -1)
            out = (groups / (groups.square().mean(-1, keepdim=True) + spec.eps).sqrt()).flatten() * module.norm_weight
        if spec.norm != "after":
            out = out * gate
        rows.append(out @ module.output.weight.T + (module.output.bias if spec.bias else 0))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bias": True, "norm": "before", "norm_groups": 3, "conv_width": 3},
        {"norm": "none", "conv_bias": False, "step_min": 0.3, "step_max": 0.8, "n_groups": 1},
        {"n_groups": 4, "norm_groups": 1, "conv_width": 1, "eps": 0.1},
        {"projection_scales": [0.5, 1.5, 0.75, 1.25, 0.9], "bias": True},
    ],
)
@torch.no_grad()
def test_module_equals_its_formula(fields: dict[str, Any]) -> None:
    model = CASE.make(**fields).double()
    module, spec = model.attentions()[0], model.spec.layer_specs()[0].attention
    x = draw(2, 70, 24)
    forward = Forward(torch.zeros(2, 70, dtype=torch.long), left_padding_B=torch.tensor([0, 5]))
    out = module(x, forward)
    torch.testing.assert_close(out[0], formula(module, x[0], spec))
    torch.testing.assert_close(out[1, 5:], formula(module, x[1, 5:], spec))
    documents = torch.tensor([[0] * 20 + [1] * 50, [4] * 3 + [5] * 67])
    out = module(x, Forward(torch.zeros(2, 70, dtype=torch.long), documents_BT=documents))
    for row, (begin, end) in ((0, (0, 20)), (0, (20, 70)), (1, (0, 3)), (1, (3, 70))):
        torch.testing.assert_close(out[row, begin:end], formula(module, x[row, begin:end], spec))


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_equals_mamba2_of_transformers(bias: bool) -> None:
    modeling = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    from transformers import Mamba2Config

    config = Mamba2Config(
        hidden_size=24,
        num_heads=4,
        head_dim=12,
        state_size=5,
        n_groups=2,
        use_bias=bias,
        use_conv_bias=bias,
        num_hidden_layers=1,
        chunk_size=32,
        time_step_limit=(0.1, 1.5),
        layer_norm_epsilon=1e-3,
    )
    reference = modeling.Mamba2Mixer(config, 0).eval()
    for seed, parameter in enumerate(reference.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed) * 0.5)
    model = CASE.make(bias=bias, conv_bias=bias, step_min=0.1, step_max=1.5, eps=1e-3)
    module: Any = model.attentions()[0]
    names = {"dt_bias": "step_bias", "A_log": "decay_log", "D": "skip", "norm.weight": "norm_weight"}
    renamed = {"in_proj": "input", "out_proj": "output", "conv1d": "conv"}
    weights = {}
    for name, value in reference.state_dict().items():
        owner, _, rest = name.partition(".")
        weights[names.get(name) or f"{renamed[owner]}.{rest}"] = value
    module.load_state_dict(weights)
    x = draw(2, 150, 24).float()
    wanted = reference(x)
    out = module(x, Forward(torch.zeros(2, 150, dtype=torch.long)))
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=2e-5)
    mask = torch.ones(2, 150)
    mask[1, :5] = 0
    padded = module(x, Forward(torch.zeros(2, 150, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    if not bias:  # the biases of projections make transformers' padding enter the convolution
        torch.testing.assert_close(padded[1, 5:], reference(x, attention_mask=mask)[1, 5:], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(padded[1, 5:], reference(x[1:, 5:])[0], rtol=1e-4, atol=2e-5)


def test_initial_values_are_those_of_the_paper() -> None:
    model = GPT(CASE.spec, V, seed=3)
    attention: Any = model.attentions()[0]
    assert ((attention.decay_log.exp() >= 1) & (attention.decay_log.exp() <= 16)).all()
    step = F.softplus(attention.step_bias)
    assert ((step >= 0.00099) & (step <= 0.101)).all()
    assert (attention.skip == 1).all()


def test_operations_are_known_on_meta() -> None:
    sizes = plan(validate_data(CASE.spec, ModelSpec), V)
    assert sizes.flops_per_token > 2 * 2 * (24 * (48 + 68 + 4) + 48 * 24)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"attention": {**CASE.attention, "n_groups": 3}, "position": "none"}, "3 groups"),
        ({"attention": {**CASE.attention, "norm_groups": 5}, "position": "none"}, "5 groups"),
        ({"attention": {**CASE.attention, "step_min": 0.5, "step_max": 0.2}, "position": "none"}, "larger"),
    ],
)
def test_invalid_fields_are_rejected(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        validate_data(fields, ModelSpec)
