"""`lightning`: against transformers' MiniMax, its formula token by token, and its state when decoding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.plan import plan
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from gptkit.nn.initial import scaled_projections
from gptkit.ops.decayed_attention import decayed_attention, decayed_attention_step
from tests.support.recurrences import RECURRENT, V, check_equal_with_gradients, check_reset_state, draw

CASE = RECURRENT["lightning"]


def inputs_of(n_tokens: int) -> tuple[Tensor, ...]:
    q, k, v = (draw(2, n_tokens, 3, size, seed=seed) for seed, size in enumerate((5, 5, 4)))
    return q, k, v, torch.tensor([0.9, 0.05, 0.0], dtype=torch.float64), draw(2, 3, 5, 4, seed=4)


def token_by_token(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    outs = []
    for t in range(q.shape[1]):
        out, state = decayed_attention_step(q[:, t], k[:, t], v[:, t], slopes, state)
        outs.append(out)
    return torch.stack(outs, dim=1), state


def test_step_equals_its_formula() -> None:
    q, k, v, slopes, state = inputs_of(1)
    out, after = decayed_attention_step(q[:1, 0], k[:1, 0], v[:1, 0], slopes, state[:1])
    for head in range(3):
        wanted = (-slopes[head]).exp() * state[0, head] + torch.outer(k[0, 0, head], v[0, 0, head])
        torch.testing.assert_close(after[0, head], wanted)
        torch.testing.assert_close(out[0, head], q[0, 0, head] @ wanted)


@pytest.mark.parametrize(("n_tokens", "chunk"), [(1, 4), (4, 4), (11, 4), (12, 4), (9, 64), (130, 64)])
def test_chunks_equal_single_steps(n_tokens: int, chunk: int) -> None:
    q, k, v, slopes, state = (x.requires_grad_() for x in inputs_of(n_tokens))
    out, after = decayed_attention(q, k, v, slopes, state, chunk=chunk)
    wanted, wanted_after = token_by_token(q, k, v, slopes, state)
    inputs = [q, k, v, slopes, state]
    check_equal_with_gradients((out, after), (wanted, wanted_after), inputs)


def test_strong_decay_does_not_overflow() -> None:
    q, k, v, slopes, state = inputs_of(70)
    out, after = decayed_attention(q, k, v, slopes * 1e4, state)
    wanted, wanted_after = token_by_token(q, k, v, slopes * 1e4, state)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(after, wanted_after)


@pytest.mark.parametrize("border", [1, 3, 4, 5, 8, 10])
def test_reset_state_equals_a_new_text(border: int) -> None:
    q, k, v, slopes, state = inputs_of(11)

    def rule(q: Tensor, k: Tensor, v: Tensor, state: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        return decayed_attention(q, k, v, slopes, state, **options)

    check_reset_state(rule, (q, k, v), state, border, dim=1)


def formula(module: Any, x_TE: Tensor, layer: int, spec: Any) -> Tensor:
    """The component's formula for one row, token by token."""
    n_heads, d_head = spec.n_heads, spec.d_head
    factor = 1 - layer / (CASE.n_layers - 1 + 1e-5) + 1e-5 if spec.slower_in_later_layers else 1
    states = [torch.zeros(d_head, d_head, dtype=x_TE.dtype) for _ in range(n_heads)]
    rows = []
    for x in x_TE:
        packed = module.qkv.weight @ x
        packed = packed * packed.sigmoid()
        q, k, v = packed.view(3, n_heads, d_head)
        heads = []
        for head in range(n_heads):
            decay = torch.tensor(-(2 ** (-8 * (head + 1) / n_heads)) * factor, dtype=x.dtype).exp()
            states[head] = decay * states[head] + torch.outer(k[head], v[head])
            heads.append(states[head].T @ q[head])
        out = torch.cat(heads)
        if spec.norm.name == "rms":
            out = out / (out.square().mean() + spec.norm.eps).sqrt() * module.norm.weight
        if spec.output_gate:
            out = (module.gate.weight @ x).sigmoid() * out
        rows.append(module.output.weight @ out)
    return torch.stack(rows)


@pytest.mark.parametrize("fields", [{}, {"slower_in_later_layers": False, "output_gate": False}, {"norm": "none"}])
@pytest.mark.parametrize("layer", [0, 1, 2])
@torch.no_grad()
def test_module_equals_its_formula(fields: dict[str, Any], layer: int) -> None:
    model = CASE.make(**fields).double()
    module, spec = model.attentions()[layer], model.spec.layer_specs()[layer].attention
    x = draw(2, 70, 24)
    out = module(x, Forward(torch.zeros(2, 70, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    torch.testing.assert_close(out[0], formula(module, x[0], layer, spec))
    torch.testing.assert_close(out[1, 5:], formula(module, x[1, 5:], layer, spec))
    documents = torch.tensor([[0] * 20 + [1] * 50, [4] * 3 + [5] * 67])
    out = module(x, Forward(torch.zeros(2, 70, dtype=torch.long), documents_BT=documents))
    for row, (begin, end) in ((0, (0, 20)), (0, (20, 70)), (1, (0, 3)), (1, (3, 70))):
        torch.testing.assert_close(out[row, begin:end], formula(module, x[row, begin:end], layer, spec))


@pytest.mark.parametrize("layer", [0, 1, 2])
@torch.no_grad()
def test_equals_lightning_attention_of_transformers(layer: int) -> None:
    modeling = pytest.importorskip("transformers.models.minimax.modeling_minimax")
    from transformers import MiniMaxConfig

    config = MiniMaxConfig(
        hidden_size=24,
        num_attention_heads=3,
        head_dim=10,
        num_hidden_layers=3,
        block_size=16,
        layer_types=["linear_attention"] * 3,
    )
    reference = modeling.MiniMaxLightningAttention(config, layer).eval()
    for seed, parameter in enumerate(reference.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed) * 0.5)
    model = CASE.make(norm={"name": "rms", "eps": 1e-6})
    module: Any = model.attentions()[layer]
    own = reference.state_dict()
    packed = own["qkv_proj.weight"].view(3, 3, 10, 24).transpose(0, 1).reshape(-1, 24)
    names = {"norm.weight": "norm.weight", "gate.weight": "output_gate.weight", "output.weight": "out_proj.weight"}
    module.load_state_dict({"qkv.weight": packed, **{name: own[external] for name, external in names.items()}})
    x = draw(2, 150, 24).float()
    out = module(x, Forward(torch.zeros(2, 150, dtype=torch.long)))
    wanted, _ = reference(x, position_embeddings=None, attention_mask=None)
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=2e-5)
    mask = torch.ones(2, 150)
    mask[1, :5] = 0
    padded = module(x, Forward(torch.zeros(2, 150, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    wanted, _ = reference(x, position_embeddings=None, attention_mask=mask)
    torch.testing.assert_close(padded[1, 5:], wanted[1, 5:], rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_declared_values_are_those_that_the_attention_uses() -> None:
    model = CASE.make(activation="identity", norm="none").double()
    module: Any = model.attentions()[1]
    x, forward = draw(2, 9, 24), Forward(torch.zeros(2, 9, dtype=torch.long))
    before = module(x, forward)
    for parameter, scaled in scaled_projections(module, 3.0, "value").items():
        scaled.apply_(module.get_parameter(parameter))  # type: ignore[union-attr]
    torch.testing.assert_close(module(x, forward), 3 * before)


def test_operations_are_known_on_meta() -> None:
    sizes = plan(validate_data(CASE.spec, ModelSpec), V)
    assert sizes.flops_per_token > 3 * 2 * 5 * 24 * 30


def test_slopes_after_the_last_layer_are_positive() -> None:
    """Blocks of a head have the index after the last layer."""
    spec = {**CASE.layout, "attention": CASE.attention, "head": {"name": "multi-token", "depth": 2}}
    model = GPT(spec, V)
    slopes = [module.slopes for module in model.attentions()]  # type: ignore[attr-defined]
    assert len(slopes) == 5
    assert all(slope > 0 for each in slopes for slope in each)
    assert slopes[0] > slopes[1] > slopes[2]
