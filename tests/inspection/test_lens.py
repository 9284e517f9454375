"""Logit lens and surprise: the last depth is the model itself, the others are its blocks one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import StateError
from gptkit.inspection import lens as module
from gptkit.inspection.lens import logit_lens

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]

MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "window": 4}},
    "latent": {"attention": {"name": "latent", "n_heads": 2}},
    "recurrent": {"attention": {"name": "gated-delta", "n_heads": 2}, "position": "none"},
    "post-norm": {"block": "post-norm", "final_norm": None},
    "parallel": {"block": "parallel"},
    "multi-token": {"head": {"name": "multi-token"}},
    "untied, softcap": {"head": {"name": "linear", "tied": False, "softcap": 5.0}},
}


def build(parts: dict[str, Any], vocab_size: int = 12) -> gptkit.GPT:
    spec = {"context_length": 16, "d_model": 16, "n_layers": 3, "attention": {"n_heads": 2}, **parts}
    model = gptkit.GPT(spec, vocab_size=vocab_size, seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_last_depth_is_exactly_the_model(name: str) -> None:
    model = build(MODELS[name])
    lens = logit_lens(model, IDS, top=12)
    with torch.inference_mode():
        logits_TV = model(torch.tensor([IDS])).logits[0]
    log_p_TV = logits_TV.log_softmax(-1)
    best = log_p_TV.topk(12, dim=-1)
    assert torch.equal(lens.ids[-1], best.indices)
    assert torch.equal(lens.probabilities[-1], best.values.exp())
    following_T1 = torch.tensor(IDS[1:])[:, None]
    assert torch.equal(lens.bits, -log_p_TV[:-1].gather(-1, following_T1)[:, 0] / math.log(2))
    assert lens.divergence[-1].max() == 0
    assert lens.n_depths == 4


def test_inner_depths_are_the_blocks_through_norm_and_head() -> None:
    model = build({})
    lens = logit_lens(model, IDS, top=3)
    ids = torch.tensor([IDS])
    with torch.inference_mode():
        final = model(ids).logits[0].double().softmax(-1)
        _, context = model.hidden(ids)
        x = model.embedding(ids, context)
        for depth, block in enumerate([None, *model.blocks]):
            if block is not None:
                x = block(x, context.fork(x))
            p = model.head(model.final_norm(x), context)[0].double().softmax(-1)
            assert lens.ids[depth].tolist() == p.topk(3).indices.tolist()
            torch.testing.assert_close(lens.probabilities[depth].double(), p.topk(3).values, rtol=1e-5, atol=1e-6)
            divergence = (final * (final / p).log2()).sum(-1)
            torch.testing.assert_close(lens.divergence[depth].double(), divergence, rtol=1e-4, atol=1e-5)
            following = p[range(len(IDS) - 1), IDS[1:]]
            torch.testing.assert_close(lens.next_probability[depth].double(), following, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(lens.entropy.double(), -(final * final.log2()).sum(-1), rtol=1e-5, atol=1e-5)
    assert lens.rank.tolist() == [int((row > row[token]).sum()) for row, token in zip(final, IDS[1:], strict=False)]


def test_text_in_parts_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = build({}), []
    whole = logit_lens(model, IDS)
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", 3 * 12)
    parts = logit_lens(model, IDS, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 10), (6, 10), (9, 10), (10, 10)]
    assert torch.equal(parts.ids, whole.ids)
    for name in ("probabilities", "divergence", "next_probability", "entropy", "bits"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_tokens_beyond_the_tokenizer_are_not_predicted() -> None:
    lens = logit_lens(build({}), IDS, top=12, vocab_size=10)
    assert lens.ids.shape[-1] == 10
    torch.testing.assert_close(lens.probabilities.sum(-1), torch.ones(4, 10))


def test_training_mode_and_hooks_are_restored() -> None:
    model = build({}).train()
    logit_lens(model, IDS)
    assert model.training
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in model.blocks)


def test_text_longer_than_the_context_is_refused() -> None:
    with pytest.raises(StateError):
        logit_lens(build({}), [1] * 17)


def test_one_token_has_a_prediction_and_no_surprise() -> None:
    lens = logit_lens(build({}), [7])
    assert lens.bits.tolist() == []
    assert len(lens.at(-1, 0).ids) == 5
