"""`mlstm`: against transformers' xLSTM, its formula token by token, and its state when decoding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.plan import plan
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from gptkit.ops.exponential_gating import exponential_gating
from tests.support.learning import assert_learns, repeated

V = 31
ATTENTION = {"name": "mlstm", "n_heads": 2, "d_key": 5, "d_value": 7}
LAYOUT = {"d_model": 24, "n_layers": 2, "context_length": 200, "position": "none"}


def make(**fields: Any) -> GPT:
    model = GPT({**LAYOUT, "attention": {**ATTENTION, **fields}}, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (3 if ".gates." in name else 0.3))
            if name.endswith("gates.bias"):
                parameter[:2] += 10
    return model.eval()


def ids(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(n_tokens: int) -> list[Tensor]:
    q, k, v = (draw(2, n_tokens, 3, size, seed=seed) for seed, size in enumerate((5, 5, 4)))
    return [q, k, v, 4 * draw(2, n_tokens, 3, seed=3), -draw(2, n_tokens, 3, seed=4).exp()]


def started() -> tuple[Tensor, Tensor, Tensor]:
    return draw(2, 3, 5, 4, seed=5), draw(2, 3, 5, seed=6), draw(2, 3, seed=7)


def token_by_token(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: Any, eps: float) -> Any:
    """The formula, with C and n divided by exp(m) where `eps` is added."""
    C, n, m = state
    C, n = C * m.exp()[..., None, None], n * m.exp()[..., None]
    outs = []
    for t in range(q.shape[1]):
        m = torch.maximum(f[:, t] + m, i[:, t]).detach()
        C = f[:, t].exp()[..., None, None] * C + i[:, t].exp()[..., None, None] * k[:, t, ..., None] * v[:, t, :, None]
        n = f[:, t].exp()[..., None] * n + i[:, t].exp()[..., None] * k[:, t]
        size = (n * q[:, t]).sum(-1).abs().clamp(min=1) + eps * m.exp()
        outs.append((C.mT @ q[:, t, ..., None])[..., 0] / size[..., None])
    return torch.stack(outs, dim=1), (C * (-m).exp()[..., None, None], n * (-m).exp()[..., None], m)


@pytest.mark.parametrize(("n_tokens", "chunk"), [(1, 4), (4, 4), (11, 4), (12, 4), (9, 64), (130, 64)])
def test_chunks_equal_the_formula(n_tokens: int, chunk: int) -> None:
    given = [x.requires_grad_() for x in inputs(n_tokens)]
    out, state = exponential_gating(*given, started(), eps=0.01, chunk=chunk)  # type: ignore[misc]
    wanted, wanted_state = token_by_token(*given, started(), 0.01)  # type: ignore[misc]
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(state, wanted_state)
    gradients = torch.autograd.grad(out.square().sum(), given)
    for gradient, wanted_gradient in zip(gradients, torch.autograd.grad(wanted.square().sum(), given), strict=True):
        torch.testing.assert_close(gradient, wanted_gradient)


@pytest.mark.parametrize("size", [-300.0, 300.0])
def test_large_exponents_do_not_overflow(size: float) -> None:
    given = [x.float() for x in inputs(70)]
    given[3] = (given[3] + size).requires_grad_()
    state = tuple(torch.zeros_like(x).float() for x in started())
    out, after = exponential_gating(*given, state, eps=1e-6)  # type: ignore[arg-type,misc]
    assert out.isfinite().all()
    assert all(x.isfinite().all() for x in after)
    (gradient,) = torch.autograd.grad(out.square().sum(), given[3])
    assert gradient.isfinite().all()


@pytest.mark.parametrize("border", [1, 3, 4, 5, 8, 10])
def test_reset_state_equals_a_new_text(border: int) -> None:
    given, state = inputs(11), started()
    segments = (torch.arange(11) >= border).long().expand(2, -1)
    out, after = exponential_gating(*given, state, eps=0.01, segments_BT=segments, chunk=4)  # type: ignore[misc]
    first, _ = exponential_gating(*(x[:, :border] for x in given), state, eps=0.01)  # type: ignore[call-arg,misc]
    empty = tuple(torch.zeros_like(x) for x in state)
    second, wanted = exponential_gating(*(x[:, border:] for x in given), empty, eps=0.01)  # type: ignore[call-arg,arg-type,misc]
    torch.testing.assert_close(out, torch.cat((first, second), dim=1))
    torch.testing.assert_close(after, wanted)


def formula(module: Any, x_TE: Tensor, spec: Any) -> Tensor:
    """The component's formula for one row, token by token."""
    n_heads, d_key, d_value = spec.n_heads, spec.d_key, spec.d_value
    sizes = [n_heads * d_key] * 2 + [n_heads * d_value] * 2
    C = torch.zeros(n_heads, d_key, d_value, dtype=x_TE.dtype)
    n, m = torch.zeros(n_heads, d_key, dtype=x_TE.dtype), torch.zeros(n_heads, dtype=x_TE.dtype)
    rows = []
    for x in x_TE:
        q, k, v, o = (module.input.weight @ x).split(sizes)
        gates = module.gates.weight @ x + module.gates.bias
        if spec.gate_softcap is not None:
            gates = spec.gate_softcap * (gates / spec.gate_softcap).tanh()
        heads = []
        for head in range(n_heads):
            query, key = (y.view(n_heads, d_key)[head] for y in (q, k))
            i, f = gates[head], gates[n_heads + head].sigmoid()
            m[head] = torch.maximum(f.log() + m[head], i)
            C[head] = f * C[head] + i.exp() * torch.outer(key, v.view(n_heads, d_value)[head])
            n[head] = f * n[head] + i.exp() * key
            size = (n[head] @ query / d_key**0.5).abs().clamp(min=1) + spec.eps * m[head].exp()
            h = C[head].T @ query / d_key**0.5 / size
            if spec.norm == "layer":
                h = h - h.mean()
            if spec.norm != "none":
                weight = module.norm_weight.view(n_heads, d_value)[head]
                h = h / (h.square().mean() + spec.norm_eps).sqrt() * weight
            heads.append(h)
        rows.append(module.output.weight @ (o.sigmoid() * torch.cat(heads)))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "fields", [{}, {"n_heads": 3, "norm": "rms", "gate_softcap": None, "eps": 0.01}, {"norm": "none", "gate_softcap": 2.0}]
)
@torch.no_grad()
def test_module_equals_its_formula(fields: dict[str, Any]) -> None:
    model = make(**fields).double()
    module, spec = model.attentions()[0], model.spec.layer_specs()[0].attention
    x = draw(2, 70, 24) * 0.3
    out = module(x, Forward(torch.zeros(2, 70, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    torch.testing.assert_close(out[0], formula(module, x[0], spec))
    torch.testing.assert_close(out[1, 5:], formula(module, x[1, 5:], spec))
    documents = torch.tensor([[0] * 20 + [1] * 50, [4] * 3 + [5] * 67])
    out = module(x, Forward(torch.zeros(2, 70, dtype=torch.long), documents_BT=documents))
    for row, (begin, end) in ((0, (0, 20)), (0, (20, 70)), (1, (0, 3)), (1, (3, 70))):
        torch.testing.assert_close(out[row, begin:end], formula(module, x[row, begin:end], spec))


@torch.no_grad()
def test_equals_the_layer_of_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.xlstm.modeling_xlstm")
    if modeling.external_xlstm:
        pytest.skip("transformers uses the layers of an installed package")
    from transformers import xLSTMConfig

    config = xLSTMConfig(hidden_size=24, num_heads=2, num_hidden_layers=1, qk_dim_factor=0.5, eps=1e-3, chunk_size=16)
    reference = modeling.xLSTMLayer(config).eval()
    for seed, parameter in enumerate(reference.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed) * 0.5)
    module: Any = make(d_key=6, d_value=12, eps=1e-3).attentions()[0]
    parts = {name: getattr(reference, name) for name in ("q", "k", "v", "ogate_preact", "igate_preact", "fgate_preact")}
    module.load_state_dict(
        {
            "input.weight": torch.cat([parts[name].weight for name in ("q", "k", "v", "ogate_preact")]),
            "gates.weight": torch.cat([parts[name].weight for name in ("igate_preact", "fgate_preact")]),
            "gates.bias": torch.cat([parts[name].bias for name in ("igate_preact", "fgate_preact")]),
            "norm_weight": reference.multihead_norm.weight,
            "output.weight": reference.out_proj.weight,
        }
    )
    x = draw(2, 100, 24).float()
    out = module(x, Forward(torch.zeros(2, 100, dtype=torch.long)))
    torch.testing.assert_close(out, reference(x)[0], rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_text_in_pieces_equals_one_call() -> None:
    model = make().double()
    tokens = ids(2, 150)
    full = model(tokens).logits
    cache = model.new_cache(2)
    before = cache.bytes
    at = 0
    for piece in (1, 2, 100, 1, 1, 40, 5):
        step = model(tokens[:, at : at + piece], cache=cache).logits
        torch.testing.assert_close(step, full[:, at : at + piece], atol=1e-9, rtol=1e-9)
        at += piece
    assert at == 150
    # The state is allocated once and does not grow: 2 layers, 2 rows, fp64.
    assert cache.bytes == before == 2 * 2 * 8 * 2 * (5 * 7 + 5 + 1)


@torch.no_grad()
def test_state_is_fp32_in_bf16_models() -> None:
    model = make()
    tokens = ids(2, 40)
    wanted = model(tokens).logits
    narrow = copy.deepcopy(model).bfloat16()
    cache = narrow.new_cache(2)
    out = torch.cat([narrow(piece, cache=cache).logits for piece in tokens.split([20, 1, 19], dim=1)], dim=1)
    assert out.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in next(iter(cache.states)).tensors} == {torch.float32}  # type: ignore[attr-defined]
    assert (out - wanted).norm() / wanted.norm() < 0.1


def test_gradients_reach_every_parameter_from_the_initialization() -> None:
    model = GPT({**LAYOUT, "attention": ATTENTION}, V, seed=3)
    attention: Any = model.attentions()[0]
    assert attention.gates.bias.tolist() == [-10, -10, 3, 6]
    model(ids(2, 20), ids(2, 20, 1)).loss.backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_training_learns_to_repeat_a_distant_token() -> None:
    assert_learns(GPT({**LAYOUT, "n_layers": 1, "attention": ATTENTION}, 9, seed=0), repeated(6), steps=150)


def test_sizes_are_known_on_meta() -> None:
    sizes = plan(validate_data({**LAYOUT, "attention": ATTENTION}, ModelSpec), V)
    assert sizes.cache_bytes_per_token == 0
    assert sizes.cache_bytes == 2 * 4 * 2 * (5 * 7 + 5 + 1)
    assert sizes.flops_per_token > 2 * 2 * (24 * 2 * (10 + 14) + 14 * 24)


def test_relative_positions_are_rejected() -> None:
    with pytest.raises(SpecError, match="does not accept"):
        validate_data({"attention": ATTENTION}, ModelSpec)
