"""`mamba1`: against transformers' Mamba, its formula token by token, and its state when decoding."""

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
from gptkit.nn.parameters import parameter_options
from gptkit.ops.linear_recurrence import _by_doubling, linear_recurrence
from gptkit.ops.selective_scan import selective_scan
from tests.support.recurrences import RECURRENT, V, draw, ids

CASE = RECURRENT["mamba1"]


def token_by_token(decay: Tensor, written: Tensor, state: Tensor) -> Tensor:
    states = []
    for t in range(decay.shape[1]):
        state = decay[:, t] * state + written[:, t]
        states.append(state)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize(("n_tokens", "chunk"), [(1, 4), (3, 4), (4, 4), (11, 4), (12, 4), (16, 16), (70, 16)])
def test_chunks_equal_single_steps(n_tokens: int, chunk: int) -> None:
    inputs = [draw(2, n_tokens, 3, 4).sigmoid(), draw(2, n_tokens, 3, 4, seed=1), draw(2, 3, 4, seed=2)]
    inputs = [x.requires_grad_() for x in inputs]
    states, wanted = linear_recurrence(*inputs, chunk=chunk), token_by_token(*inputs)
    torch.testing.assert_close(states, wanted)
    gradients = torch.autograd.grad(states.square().sum(), inputs)
    for gradient, wanted_gradient in zip(gradients, torch.autograd.grad(wanted.square().sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, wanted_gradient)


@pytest.mark.parametrize("n_tokens", [1, 2, 7, 64])
def test_doubling_equals_single_steps(n_tokens: int) -> None:
    inputs = draw(2, n_tokens, 3).sigmoid(), draw(2, n_tokens, 3, seed=1), draw(2, 3, seed=2)
    torch.testing.assert_close(_by_doubling(*inputs), token_by_token(*inputs))


def test_decays_of_zero_and_one_have_finite_gradients() -> None:
    decay = (draw(1, 40, 3) > 0).double().requires_grad_()
    written = draw(1, 40, 3, seed=1).requires_grad_()
    states = linear_recurrence(decay, written, draw(1, 3, seed=2))
    torch.testing.assert_close(states, token_by_token(decay, written, draw(1, 3, seed=2)))
    states.square().sum().backward()
    assert decay.grad is not None
    assert decay.grad.isfinite().all()


@pytest.mark.parametrize("span", [5, 16, 256])
def test_spans_and_resets_equal_new_texts(span: int) -> None:
    v, step, k, q = draw(2, 40, 2, 4), draw(2, 40, 2, 4, seed=1).exp(), draw(2, 40, 2, 3, seed=2), draw(2, 40, 2, 3, seed=3)
    rates, state = -draw(2, 4, 3, seed=4).exp(), draw(2, 2, 4, 3, seed=5)
    resets = (torch.arange(40) == 23).expand(2, -1)
    out, after = selective_scan(v, step, rates, k, q, state, resets_BT=resets, span=span)
    first, _ = selective_scan(v[:, :23], step[:, :23], rates, k[:, :23], q[:, :23], state)
    second, wanted = selective_scan(v[:, 23:], step[:, 23:], rates, k[:, 23:], q[:, 23:], torch.zeros_like(state))
    torch.testing.assert_close(out, torch.cat((first, second), dim=1))
    torch.testing.assert_close(after, wanted)


def normalized(x: Tensor, spec: Any, weight: Tensor | None) -> Tensor:
    if spec.norm.name == "none":
        return x
    result = x / (x.square().mean() + spec.norm.eps).sqrt()
    return result if weight is None else result * weight


def formula(module: Any, x_TE: Tensor, spec: Any) -> Tensor:
    """The component's formula for one row, token by token."""
    bias = module.input.bias if spec.bias else 0
    u, z = (x_TE @ module.input.weight.T + bias).split([spec.d_inner] * 2, dim=-1)
    state = torch.zeros(spec.d_inner, spec.d_state, dtype=x_TE.dtype)
    norms = [getattr(getattr(module, f"{name}_norm"), "weight", None) for name in ("step", "key", "query")]
    size = spec.d_inner // spec.n_heads
    heads = [slice(at, at + size) for at in range(0, spec.d_inner, size)]
    selects, steps = (
        getattr(module, name).weight.reshape(spec.n_heads, *shape)
        for name, *shape in (("select", spec.step_rank + 2 * spec.d_state, size), ("step", size, spec.step_rank))
    )
    rows = []
    for t in range(len(x_TE)):
        conv = torch.zeros_like(u[0])
        for back in range(spec.conv_width):
            if t >= back:
                conv = conv + module.conv.weight[:, 0, spec.conv_width - 1 - back] * u[t - back]
        if spec.conv_bias:
            conv = conv + module.conv.bias
        v, y = conv * conv.sigmoid(), torch.zeros_like(conv)
        for head, select, step in zip(heads, selects, steps, strict=True):
            parts = (select @ v[head]).split([spec.step_rank, spec.d_state, spec.d_state])
            r, k, q = (normalized(part, spec, weight) for part, weight in zip(parts, norms, strict=True))
            delta = (1 + (step @ r + module.step_bias[head]).exp()).log()
            decay = (-module.decay_log[head].exp() * delta[:, None]).exp()
            state[head] = decay * state[head] + torch.outer(delta * v[head], k)
            y[head] = state[head] @ q
        y = (y + module.skip * v) * z[t] * z[t].sigmoid()
        rows.append(module.output.weight @ y + (module.output.bias if spec.bias else 0))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bias": True, "norm": {"name": "rms", "eps": 0.01}, "conv_width": 3},
        {"conv_bias": False, "norm": {"name": "rms", "scale": False}, "conv_width": 1},
        {"n_heads": 4},
        {"n_heads": 2, "bias": True, "norm": {"name": "rms", "eps": 0.01}},
    ],
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


@pytest.mark.parametrize("normed", [False, True])
@torch.no_grad()
def test_equals_mamba_of_transformers(normed: bool) -> None:
    pytest.importorskip("transformers")
    from transformers import FalconMambaConfig, MambaConfig
    from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer
    from transformers.models.mamba.modeling_mamba import MambaMixer

    sizes = {"hidden_size": 24, "state_size": 5, "time_step_rank": 3, "num_hidden_layers": 1, "use_bias": True}
    config = FalconMambaConfig(**sizes, mixer_rms_eps=1e-3) if normed else MambaConfig(**sizes)
    reference = (FalconMambaMixer if normed else MambaMixer)(config, 0, initialize_mixer_weights=False).eval()
    for seed, parameter in enumerate(reference.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed) * 0.2)
    norm = {"name": "rms", "scale": False, "eps": 1e-3} if normed else "none"
    module: Any = CASE.make(d_inner=48, bias=True, norm=norm).attentions()[0]
    names = {"A_log": "decay_log", "D": "skip", "dt_proj.bias": "step_bias"}
    renamed = {"in_proj": "input", "out_proj": "output", "conv1d": "conv", "x_proj": "select", "dt_proj": "step"}
    weights = {}
    for name, value in reference.state_dict().items():
        owner, _, rest = name.partition(".")
        weights[names.get(name) or f"{renamed[owner]}.{rest}"] = value
    module.load_state_dict(weights)
    x = draw(2, 150, 24).float()
    out = module(x, Forward(torch.zeros(2, 150, dtype=torch.long)))
    torch.testing.assert_close(out, reference(x), rtol=1e-4, atol=2e-5)
    padded = module(x, Forward(torch.zeros(2, 150, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    torch.testing.assert_close(padded[1, 5:], reference(x[1:, 5:])[0], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("n_heads", [1, 5])
def test_gradients_reach_norms_and_initial_values_are_those_of_the_paper(n_heads: int) -> None:
    model = GPT({**CASE.layout, "attention": {**CASE.attention, "n_heads": n_heads, "norm": "rms"}}, V, seed=3)
    attention: Any = model.attentions()[0]
    torch.testing.assert_close(attention.decay_log.exp(), torch.arange(1.0, 6).expand(20, 5))
    step = F.softplus(attention.step_bias)
    assert ((step >= 0.00099) & (step <= 0.101)).all()
    assert (attention.skip == 1).all()
    assert attention.step.weight.abs().max() <= 3**-0.5
    assert attention.step.weight.abs().max() > 0.8 * 3**-0.5
    model(ids(2, 20), ids(2, 20, 1)).loss.backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_operations_are_known_on_meta() -> None:
    for n_heads in (1, 4):
        spec = {**CASE.layout, "attention": {**CASE.attention, "n_heads": n_heads}}
        sizes = plan(validate_data(spec, ModelSpec), V)
        assert sizes.flops_per_token > 2 * 2 * (24 * 40 + 20 * 13 + 3 * 20 + 20 * 24)


def test_heads_have_as_many_parameters_as_one_and_are_hidden_matrices() -> None:
    models = [GPT({**CASE.layout, "attention": {**CASE.attention, "n_heads": n}}, V, device="meta") for n in (1, 4)]
    one, four = ({name: parameter.numel() for name, parameter in model.named_parameters()} for model in models)
    assert one == four
    assert parameter_options(models[0]) == parameter_options(models[1])


def test_heads_that_do_not_divide_the_values_are_rejected() -> None:
    with pytest.raises(SpecError, match="20 features cannot be divided into 3 heads"):
        validate_data({**CASE.layout, "attention": {**CASE.attention, "n_heads": 3}}, ModelSpec)


def test_sizes_follow_the_width_of_the_model() -> None:
    spec = validate_data({**CASE.layout, "attention": "mamba1"}, ModelSpec)
    attention: Any = GPT(spec, V, device="meta").spec.layer_specs()[0].attention
    assert (attention.d_inner, attention.step_rank, attention.d_state) == (48, 2, 16)
