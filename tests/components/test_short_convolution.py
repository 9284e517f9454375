"""Short convolutions of keys, values and outputs of branches: formula, transformers' layer, decoding, documents, padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward
from gptkit.nn.short_convolution import ShortConvolution
from tests.support.learning import N_TOKENS, assert_learns, repeated

V, E = 31, 24
BASE: dict[str, Any] = {"d_model": E, "n_layers": 3, "context_length": 64, "position": "none"}
GROUPED: dict[str, Any] = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 6}
SPECS: dict[str, dict[str, Any]] = {
    "keys and values": {"attention": {**GROUPED, "kv_conv": 4, "window": 5, "qk_norm": "rms"}, "position": "rotary"},
    "outputs": {"attention": "mamba2", "block": {"name": "pre-norm", "output_conv": 3, "output_norm": "rms"}},
    "both": {"attention": {**GROUPED, "kv_conv": 2, "tie_kv": True}, "block": {"name": "pre-norm", "output_conv": 4}},
    "in blocks within others": {
        "attention": {**GROUPED, "kv_conv": 3},
        "block": {"name": "hierarchical", "block": {"name": "pre-norm", "output_conv": 3}, "blocks": 1},
        "n_layers": 1,
    },
    "shared keys and values": {
        "attention": {**GROUPED, "kv_conv": 3, "d_value": 5},
        "layers": [{}, {"attention": {"reuse_kv": True}}, {"attention": {"kv_conv": None, "reuse_kv": True}}],
    },
    "width 1": {"attention": {**GROUPED, "kv_conv": 1}, "block": {"name": "pre-norm", "output_conv": 1}},
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(spec: dict[str, Any]) -> GPT:
    model = GPT({**BASE, **spec}, V, seed=0).double()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.add_(draw(*parameter.shape, seed=seed) * 0.3)
    return model.eval()


def convolved(conv: ShortConvolution, x_TC: Tensor) -> Tensor:
    """The formula, token by token."""
    width = conv.weight.shape[2]
    rows = []
    for t in range(len(x_TC)):
        rows.append(x_TC[t] + sum(conv.weight[:, 0, width - 1 - i] * x_TC[t - i] for i in range(min(width, t + 1))))
    return torch.stack(rows)


def ids_of(n_tokens: int = 20) -> Tensor:
    return torch.randint(V, (2, n_tokens), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_equals_the_formula_with_padding_and_documents() -> None:
    conv, x = ShortConvolution(E, 4).double(), draw(2, 9, E)
    out = conv(x, Forward(torch.zeros(2, 9, dtype=torch.long), left_padding_B=torch.tensor([0, 3])))
    torch.testing.assert_close(out[0], convolved(conv, x[0]))
    torch.testing.assert_close(out[1, 3:], convolved(conv, x[1, 3:]))
    documents = torch.tensor([[0] * 5 + [1] * 4, [3] + [8] * 8])
    out = conv(x, Forward(torch.zeros(2, 9, dtype=torch.long), documents_BT=documents))
    for row, (begin, end) in ((0, (0, 5)), (0, (5, 9)), (1, (0, 1)), (1, (1, 9))):
        torch.testing.assert_close(out[row, begin:end], convolved(conv, x[row, begin:end]))


@torch.no_grad()
def test_equals_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.inkling.modeling_inkling")
    reference, own, x = modeling.InklingShortConvolution(E, 4, 0, 0), ShortConvolution(E, 4), draw(2, 9, E).float()
    own.load_state_dict(reference.conv1d.state_dict())
    torch.testing.assert_close(own(x, Forward(torch.zeros(2, 9, dtype=torch.long))), reference(x))


@torch.no_grad()
def test_sums_of_bf16_are_computed_in_fp32() -> None:
    conv, x = ShortConvolution(E, 4).bfloat16(), draw(2, 9, E).bfloat16()
    out = conv(x, Forward(torch.zeros(2, 9, dtype=torch.long)))
    wanted = torch.stack([convolved(conv.float(), row) for row in x.float()])
    assert torch.equal(out, wanted.bfloat16())


@torch.no_grad()
def test_keys_and_values_are_convolved_before_their_norm() -> None:
    attention: Any = make({"attention": {**GROUPED, "kv_conv": 3, "qk_norm": "rms"}, "n_layers": 1}).attentions()[0]
    x = draw(1, 7, E)
    q, k, v = attention.qkv(x[0]).split([24, 12, 12], dim=-1)
    k, v = convolved(attention.k_conv, k), convolved(attention.v_conv, v)
    q, k, v = (part.view(7, -1, 6).transpose(0, 1) for part in (q, k, v))
    k, v = (part.repeat_interleave(2, dim=0) for part in (attention.k_norm(k), v))
    out = F.scaled_dot_product_attention(attention.q_norm(q), k, v, is_causal=True)
    wanted = attention.output(out.transpose(0, 1).flatten(1))
    torch.testing.assert_close(attention(x, Forward(torch.zeros(1, 7, dtype=torch.long)))[0], wanted)


@torch.no_grad()
def test_outputs_of_branches_are_convolved_before_they_are_added() -> None:
    block: Any = make({"attention": GROUPED, "block": {"name": "pre-norm", "output_conv": 3}, "n_layers": 1}).blocks[0]
    x, forward = draw(1, 7, E), Forward(torch.zeros(1, 7, dtype=torch.long))
    mixed = block.attention(block.attention_norm(x), forward)
    wanted = x + convolved(block.attention_conv, mixed[0])
    fed = block.feedforward(block.feedforward_norm(wanted), forward)
    wanted = wanted + convolved(block.feedforward_conv, fed[0])
    torch.testing.assert_close(block(x, forward), wanted)


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
@torch.no_grad()
def test_pieces_equal_one_call(spec: dict[str, Any]) -> None:
    model, ids = make(spec), ids_of()
    full, cache = model(ids).logits, model.new_cache(2)
    pieces = [model(piece, cache=cache).logits for piece in ids.split([1, 6, 1, 1, 11], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), full)
    padded = torch.cat((ids.new_zeros(2, 3), ids), dim=1)
    for static in (False, True):
        cache = model.new_cache(2, left_padding_B=torch.tensor([3, 3]), static=static)
        pieces = [model(piece, cache=cache).logits for piece in padded.split([2, 4, 1, 16], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1)[:, 3:], full)


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
@torch.no_grad()
def test_documents_equal_texts_of_their_own(spec: dict[str, Any]) -> None:
    model, ids = make(spec), ids_of()
    documents = (torch.arange(20) >= 7).long().expand(2, -1)
    out = model(ids, documents_BT=documents).logits
    torch.testing.assert_close(out[:, :7], model(ids[:, :7]).logits)
    torch.testing.assert_close(out[:, 7:], model(ids[:, 7:]).logits)


def test_layers_reuse_keys_of_the_same_convolution_only() -> None:
    model = make(SPECS["shared keys and values"])
    assert [attention.source_key for attention in model.attentions()] == [None, ("keys and values", 0), None]
    names = {name for name, _ in model.named_parameters() if "conv" in name}
    assert names == {"blocks.0.attention.k_conv.weight", "blocks.0.attention.v_conv.weight"}


def test_convolutions_alone_learn_to_repeat_a_near_token() -> None:
    """Feed-forwards behind convolutions of the attention's output, which is that of a window of one token."""
    attention = {**GROUPED, "d_head": 8, "window": 1}
    block = {"name": "pre-norm", "output_conv": 4}
    model = GPT({**BASE, "n_layers": 1, "attention": attention, "block": block}, N_TOKENS, seed=0)
    assert_learns(model, repeated(2), steps=150)
