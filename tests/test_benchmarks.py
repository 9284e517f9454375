"""The compared models of the benchmarks have equal losses, gradients and greedy tokens."""

from __future__ import annotations

import torch

from benchmarks.assembled_vs_handwritten import assembled, copy_weights
from benchmarks.handwritten import HandwrittenGPT2


def test_assembled_and_handwritten_model_agree() -> None:
    actual = assembled(2, 32, d_model=24, n_heads=3, vocab=40)
    reference = HandwrittenGPT2(40, 32, 24, 2, 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in actual.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    copy_weights(actual, reference)
    ids = torch.randint(40, (2, 32), generator=generator)
    loss, other = actual(ids, ids.roll(-1, 1)).loss, reference.loss(ids, ids.roll(-1, 1))
    assert loss is not None
    torch.testing.assert_close(loss, other, atol=1e-5, rtol=1e-5)
    loss.backward(), other.backward()
    total = sum(p.grad.pow(2).sum() for p in actual.parameters() if p.grad is not None)
    expected = sum(p.grad.pow(2).sum() for p in reference.parameters() if p.grad is not None)
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-4)
    cache = actual.eval().new_cache(1, 20)
    piece, written = ids[:1, :8], [ids[:1, :8]]
    with torch.inference_mode():
        for _ in range(12):
            logits = actual(piece, cache=cache, last_only=True).logits
            assert logits is not None
            piece = logits[:, -1].argmax(-1, keepdim=True)
            written.append(piece)
    assert torch.equal(torch.cat(written, 1), reference.generate(ids[:1, :8], 12))
