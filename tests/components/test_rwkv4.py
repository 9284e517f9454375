"""`rwkv4` and `channel-mixing`: against transformers' RWKV and their formulas token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward
from gptkit.ops.wkv import wkv
from tests.support.learning import assert_learns, repeated
from tests.support.recurrences import V, draw, ids

LAYOUT = {"d_model": 24, "context_length": 200, "n_layers": 2, "position": "none", "block": "channel-mixing"}
FEEDFORWARD = {"name": "mlp", "activation": "relu-squared", "bias": False}
SPEC = {**LAYOUT, "attention": {"name": "rwkv4", "d_inner": 20}, "feedforward": FEEDFORWARD}


def make(**fields: Any) -> GPT:
    model = GPT({**SPEC, **fields}, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def inputs(n_tokens: int) -> list[Tensor]:
    k, v = 4 * draw(2, n_tokens, 5), draw(2, n_tokens, 5, seed=1)
    return [k, v, draw(5, seed=2).exp(), draw(5, seed=3)]


def started() -> tuple[Tensor, Tensor, Tensor]:
    return draw(2, 5, seed=5), draw(2, 5, seed=6).exp(), draw(2, 5, seed=7)


def token_by_token(k: Tensor, v: Tensor, rate: Tensor, bonus: Tensor, state: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The formula, with sums that are not divided."""
    a, b, m = state
    a, b = a * m.exp(), b * m.exp()
    outs = []
    for t in range(k.shape[1]):
        own = (k[:, t] + bonus).exp()
        outs.append((a + own * v[:, t]) / (b + own))
        a, b = (-rate).exp() * a + k[:, t].exp() * v[:, t], (-rate).exp() * b + k[:, t].exp()
    return torch.stack(outs, dim=1), a, b


@pytest.mark.parametrize("n_tokens", [1, 2, 15, 16, 17, 70])
def test_chunks_equal_the_formula(n_tokens: int) -> None:
    given = [x.requires_grad_() for x in inputs(n_tokens)]
    out, (a, b, m) = wkv(*given, started())  # type: ignore[misc, arg-type]
    wanted, wanted_a, wanted_b = token_by_token(*given, started())  # type: ignore[misc]
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close((a * m.exp(), b * m.exp()), (wanted_a, wanted_b))
    gradients = torch.autograd.grad(out.square().sum() + a.sum(), given)
    wanted_gradients = torch.autograd.grad(wanted.square().sum() + (wanted_a * (-m).exp()).sum(), given)
    torch.testing.assert_close(gradients, wanted_gradients)


@pytest.mark.parametrize("size", [-300.0, 300.0])
@pytest.mark.parametrize("rate", [0.0, 1e-3, 50.0, 1e9])
def test_large_exponents_do_not_overflow(size: float, rate: float) -> None:
    k, v, _, bonus = (x.float() for x in inputs(70))
    k = (30 * k + size).requires_grad_()
    rate_X = torch.full((5,), rate).requires_grad_()
    empty = torch.zeros(2, 5)
    out, after = wkv(k, v, rate_X, bonus, (empty, empty, empty))
    assert out.isfinite().all()
    assert all(x.isfinite().all() for x in after)
    for gradient in torch.autograd.grad(out.square().sum(), (k, rate_X)):
        assert gradient.isfinite().all()
    # All keys larger by the same number change nothing.
    moved, _ = wkv(k - size, v, rate_X, bonus, (empty, empty, empty))
    torch.testing.assert_close(out, moved, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("border", [1, 3, 15, 16, 20])
def test_reset_state_equals_a_new_text(border: int) -> None:
    k, v, rate, bonus = inputs(21)
    # Keys after the border are far below those before it.
    k[:, border:] -= 2000
    state, empty = started(), (torch.zeros(2, 5, dtype=torch.float64),) * 3
    resets = (torch.arange(21) == border).expand(2, -1)
    out, after = wkv(k, v, rate, bonus, state, resets_BT=resets)
    first, _ = wkv(k[:, :border], v[:, :border], rate, bonus, state)
    second, wanted = wkv(k[:, border:], v[:, border:], rate, bonus, empty)  # type: ignore[arg-type]
    torch.testing.assert_close(out, torch.cat((first, second), dim=1))
    torch.testing.assert_close(after, wanted)


def shift(x_TE: Tensor) -> Tensor:
    return torch.cat((torch.zeros_like(x_TE[:1]), x_TE[:-1]))


def formula(module: Any, x_TE: Tensor) -> Tensor:
    """The component's formula for one row, token by token."""
    for_k, for_v, for_r = (mix * x_TE + (1 - mix) * shift(x_TE) for mix in module.mix)
    k, v, r = for_k @ module.key.weight.T, for_v @ module.value.weight.T, for_r @ module.receptance.weight.T
    zeros = torch.zeros(1, k.shape[1], dtype=k.dtype)
    out, _, _ = token_by_token(k[None], v[None], module.decay.exp(), module.bonus, (zeros, zeros, zeros))
    return (r.sigmoid() * out[0]) @ module.output.weight.T


@torch.no_grad()
def test_module_equals_its_formula_with_padding_and_documents() -> None:
    module = make().double().attentions()[0]
    x = draw(2, 70, 24)
    out = module(x, Forward(torch.zeros(2, 70, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    torch.testing.assert_close(out[0], formula(module, x[0]))
    torch.testing.assert_close(out[1, 5:], formula(module, x[1, 5:]))
    documents = torch.tensor([[0] * 20 + [1] * 50, [4] * 3 + [5] * 67])
    out = module(x, Forward(torch.zeros(2, 70, dtype=torch.long), documents_BT=documents))
    for row, (begin, end) in ((0, (0, 20)), (0, (20, 70)), (1, (0, 3)), (1, (3, 70))):
        torch.testing.assert_close(out[row, begin:end], formula(module, x[row, begin:end]))


@torch.no_grad()
def test_block_equals_its_formula_with_padding_and_documents() -> None:
    block: Any = make().double().blocks[1]

    def wanted(x: Tensor) -> Tensor:
        x = x + formula(block.attention, block.attention_norm(x))
        u = block.feedforward_norm(x)
        for_k, for_r = (mix * u + (1 - mix) * shift(u) for mix in block.mix)
        hidden = (for_k @ block.feedforward.up.weight.T).relu() ** 2
        return x + (for_r @ block.receptance.weight.T).sigmoid() * (hidden @ block.feedforward.down.weight.T)

    x = draw(2, 30, 24)
    out = block(x, Forward(torch.zeros(2, 30, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    torch.testing.assert_close(out[0], wanted(x[0]))
    torch.testing.assert_close(out[1, 5:], wanted(x[1, 5:]))
    documents = torch.tensor([[0] * 20 + [1] * 10])
    out = block(x[:1], Forward(torch.zeros(1, 30, dtype=torch.long), documents_BT=documents))
    torch.testing.assert_close(out[0], torch.cat((wanted(x[0, :20]), wanted(x[0, 20:]))))


@torch.no_grad()
def test_equals_the_layer_of_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    from transformers import RwkvConfig

    reference = modeling.RwkvSelfAttention(RwkvConfig(hidden_size=24, attention_hidden_size=20)).eval()
    for seed, parameter in enumerate(reference.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed) * 0.5)
    module: Any = make().attentions()[0]
    mixes = [getattr(reference, f"time_mix_{name}").flatten() for name in ("key", "value", "receptance")]
    weights: dict[str, nn.Parameter | Tensor] = {"mix": torch.stack(mixes)}
    weights |= {"decay": reference.time_decay, "bonus": reference.time_first}
    weights |= {f"{name}.weight": getattr(reference, name).weight for name in ("key", "value", "receptance", "output")}
    module.load_state_dict(weights)
    x = draw(2, 100, 24).float()
    out = module(x, Forward(torch.zeros(2, 100, dtype=torch.long)))
    torch.testing.assert_close(out, reference(x)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_model_in_pieces_equals_one_call() -> None:
    model, tokens = make().double(), ids(2, 60)
    cache = model.new_cache(2)
    pieces = [model(piece, cache=cache).logits for piece in tokens.split([1, 2, 40, 1, 16], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens).logits)


def test_gradients_reach_every_parameter_of_the_block() -> None:
    model = GPT(SPEC, V, seed=3)
    loss = model(ids(2, 20), ids(2, 20, 1)).loss
    assert loss is not None
    loss.backward()
    for name, parameter in model.blocks.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_training_learns_to_repeat_a_distant_token() -> None:
    assert_learns(GPT({**SPEC, "n_layers": 1}, 9, seed=0), repeated(6), steps=100)
