"""`convolutional` attention: its formula token by token, transformers' layer, decoding, documents and a training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from gptkit.ops.causal_conv import causal_conv
from tests.support.learning import N_TOKENS, assert_learns, repeated

V, E, D = 31, 24, 6
LAYOUT: dict[str, Any] = {"d_model": E, "n_layers": 2, "context_length": 64, "position": "none"}
HEADS: dict[str, Any] = {"name": "convolutional", "n_heads": 4, "n_kv_heads": 2, "d_head": D}
BIASED = {"qkv_bias": True, "output_bias": True, "feature_width": 3, "head_width": 2}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(layout: dict[str, Any] = LAYOUT, **fields: Any) -> GPT:
    model = GPT({**layout, "attention": {**HEADS, **fields}}, V, seed=0).double()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.add_(draw(*parameter.shape, seed=seed) * 0.4)
    return model.eval()


def formula(module: Any, x_TE: Tensor) -> Tensor:
    """The component's formula for one text without position, token by token."""
    n_heads, n_kv, n_tokens = module.heads.n_heads, module.heads.n_kv_heads, len(x_TE)
    weight, bias = module.qkv.weight, module.qkv.bias
    u = x_TE @ weight.T + (0 if bias is None else bias)
    qk, v = u[:, : (n_heads + n_kv) * D], u[:, (n_heads + n_kv) * D :]
    first, second = module.feature_conv, module.head_conv

    def before(x: Tensor, t: int) -> Tensor:
        return x[t] if t >= 0 else torch.zeros_like(x[0])

    def convolved(t: int) -> Tensor:
        width = first.kernel_size[0]
        return first.bias + sum(first.weight[:, 0, width - 1 - i] * before(qk, t - i) for i in range(width))

    q_heads, k_heads = [], []
    for t in range(n_tokens):
        mixed, width = second.bias.view(-1, D).clone(), second.kernel_size[0]
        for i in range(width):
            inputs = convolved(t - i).view(-1, D)
            for head in range(n_heads + n_kv):
                mixed[head] += second.weight[head * D : (head + 1) * D, :, width - 1 - i] @ inputs[head]
        q, k = qk[t].view(-1, D)[:n_heads], qk[t].view(-1, D)[n_heads:]
        means = torch.stack([(q[head] + k[head * n_kv // n_heads]) / 2 for head in range(n_heads)])
        q_heads.append(mixed[:n_heads] + means)
        k_heads.append(mixed[n_heads:] + means.view(n_kv, -1, D).mean(dim=1))
    q, k = torch.stack(q_heads, dim=1), torch.stack(k_heads, dim=1)
    q = q / q.norm(dim=-1, keepdim=True) * D**0.5
    k = k / k.norm(dim=-1, keepdim=True) * D**0.5 * module.key_scale[:, None, None]
    shifted = torch.cat((torch.zeros_like(x_TE[:1]), x_TE[:-1]))
    previous = shifted @ module.previous_value.weight.T + (0 if bias is None else module.previous_value.bias)
    v = torch.cat((v, previous), dim=-1).view(n_tokens, n_kv, D).transpose(0, 1)
    k, v = (each.repeat_interleave(n_heads // n_kv, dim=0) for each in (k, v))
    scores = (q @ k.transpose(1, 2) * module.scale).masked_fill(torch.ones(n_tokens, n_tokens).triu(1).bool(), -torch.inf)
    out = (scores.softmax(dim=-1) @ v).transpose(0, 1).flatten(1)
    return out @ module.output.weight.T + (0 if module.output.bias is None else module.output.bias)


@pytest.mark.parametrize(
    "fields", [{}, BIASED, {"n_kv_heads": 1, "feature_width": 1, "head_width": 4}, {"n_kv_heads": 4, "scale": 0.7}]
)
@torch.no_grad()
def test_equals_the_formula_with_padding_and_documents(fields: dict[str, Any]) -> None:
    module = make(**fields).attentions()[0]
    x = draw(2, 12, E)
    out = module(x, Forward(torch.zeros(2, 12, dtype=torch.long), left_padding_B=torch.tensor([0, 4])))
    torch.testing.assert_close(out[0], formula(module, x[0]))
    torch.testing.assert_close(out[1, 4:], formula(module, x[1, 4:]))
    documents = torch.tensor([[0] * 5 + [1] * 7, [3] * 1 + [8] * 11])
    out = module(x, Forward(torch.zeros(2, 12, dtype=torch.long), documents_BT=documents))
    for row, (begin, end) in ((0, (0, 5)), (0, (5, 12)), (1, (0, 1)), (1, (1, 12))):
        torch.testing.assert_close(out[row, begin:end], formula(module, x[row, begin:end]))


@torch.no_grad()
def test_equals_the_projections_of_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.zaya.modeling_zaya")
    from transformers import ZayaConfig

    config = ZayaConfig(
        hidden_size=E, num_attention_heads=4, num_key_value_heads=2, head_dim=D, num_hidden_layers=1, cca_time0=3,
        pad_token_id=None, vocab_size=V, attention_bias=True,
    )  # fmt: skip
    reference, norm = modeling.ZayaCCAProjection(config, 0).double(), modeling.ZayaQKNorm(config).double()
    for seed, parameter in enumerate((*reference.parameters(), *norm.parameters())):
        parameter.copy_(draw(*parameter.shape, seed=seed) * 0.5)
    module: Any = make(**BIASED).attentions()[0]
    projections = (reference.q_proj, reference.k_proj, reference.v_proj_current)
    for name in ("weight", "bias"):
        getattr(module.qkv, name).copy_(torch.cat([getattr(each, name) for each in projections]))
    module.previous_value.load_state_dict(reference.v_proj_delayed.state_dict())
    module.feature_conv.load_state_dict(reference.conv_qk_depthwise.state_dict())
    module.head_conv.load_state_dict(reference.conv_qk_grouped.state_dict())
    module.key_scale.copy_(norm.temp)
    x = draw(2, 10, E)
    q, k, v = reference(x, None)
    own = module._projected(x, None, Forward(torch.zeros(2, 10, dtype=torch.long)))
    for actual, wanted in zip(own, (*norm(q, k), v), strict=True):
        torch.testing.assert_close(actual.transpose(1, 2), wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("position", ["none", "rotary", "alibi"])
@torch.no_grad()
def test_pieces_equal_one_call(position: str) -> None:
    model = make({**LAYOUT, "position": position}, **BIASED, sliding_window=4)
    ids = torch.randint(V, (2, 20), generator=torch.Generator().manual_seed(0))
    full, cache = model(ids).logits, model.new_cache(2)
    pieces = [model(piece, cache=cache).logits for piece in ids.split([1, 6, 1, 1, 11], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), full)
    padded = torch.cat((ids.new_zeros(2, 3), ids), dim=1)
    cache = model.new_cache(2, left_padding_B=torch.tensor([3, 3]))
    pieces = [model(piece, cache=cache).logits for piece in padded.split([2, 4, 1, 16], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1)[:, 3:], full)


@torch.no_grad()
def test_window_limits_the_keys() -> None:
    """With width 1 of both convolutions, only values and keys of a window, and one token before it, affect the output."""
    module = make(sliding_window=3, feature_width=1, head_width=1).attentions()[0]
    x, forward = draw(1, 9, E), Forward(torch.zeros(1, 9, dtype=torch.long))
    out = module(x, forward)
    changed = x.clone()
    changed[:, 2] += 1
    reached = (module(changed, Forward(torch.zeros(1, 9, dtype=torch.long))) - out).abs().amax(dim=(0, 2)) > 1e-9
    assert reached.tolist() == [False] * 2 + [True] * 4 + [False] * 3


@pytest.mark.parametrize("border", [0, 1, 3])
def test_convolution_of_groups_equals_conv1d_with_its_gradients(border: int) -> None:
    x, weight = draw(2, 7, 8).requires_grad_(), draw(8, 4, 3, seed=1).requires_grad_()
    positions = torch.cat((torch.arange(border), torch.arange(7 - border))).expand(2, -1)
    out = causal_conv(x, weight, None, positions)
    parts = []
    for part in x.split([border, 7 - border], dim=1) if border else [x]:
        padded = nn.functional.pad(part.transpose(1, 2), (2, 0))
        parts.append(nn.functional.conv1d(padded, weight, groups=2).transpose(1, 2))
    wanted = torch.cat(parts, dim=1)
    torch.testing.assert_close(out, wanted)
    gradients = torch.autograd.grad(out.square().sum(), (x, weight))
    torch.testing.assert_close(gradients, torch.autograd.grad(wanted.square().sum(), (x, weight)))


def test_heads_that_cannot_be_built_are_reported() -> None:
    for fields, message in (
        ({"n_kv_heads": 3}, "n_heads 4 is not a multiple of n_kv_heads 3"),
        ({"n_kv_heads": 1, "d_head": 5}, "half of the 5 features of the values are those of the previous token"),
    ):
        with pytest.raises(SpecError, match=message):
            validate_data({**LAYOUT, "attention": {**HEADS, **fields}}, ModelSpec)


def test_default_heads_have_half_of_the_width() -> None:
    model = validate_data({"d_model": 1024, "attention": "convolutional"}, ModelSpec)
    heads = model.attention.head_shape()  # type: ignore[attr-defined]
    assert (heads.n_heads, heads.n_kv_heads, heads.d_head) == (8, 2, 64)


def test_training_learns_to_repeat_a_distant_token() -> None:
    attention = {**HEADS, "d_head": 8}
    model = GPT({**LAYOUT, "n_layers": 1, "position": "rotary", "attention": attention}, N_TOKENS, seed=0)
    assert_learns(model, repeated(6), steps=120)
