"""What the benchmarks compare is the same: equal losses, gradients and greedy tokens from equal weights."""

from __future__ import annotations

import torch

from benchmarks.assembled_vs_handwritten import assembled, copy_weights
from benchmarks.handwritten import HandwrittenGPT2


def test_assembled_and_handwritten_model_agree() -> None:
    ours = assembled(2, 32, d_model=24, n_heads=3, vocab=40)
    theirs = HandwrittenGPT2(40, 32, 24, 2, 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    copy_weights(ours, theirs)
    ids = torch.randint(40, (2, 32), generator=generator)
    loss, other = ours(ids, ids.roll(-1, 1)).loss, theirs.loss(ids, ids.roll(-1, 1))
    assert loss is not None
    torch.testing.assert_close(loss, other, atol=1e-5, rtol=1e-5)
    loss.backward(), other.backward()
    total = sum(p.grad.pow(2).sum() for p in ours.parameters() if p.grad is not None)
    expected = sum(p.grad.pow(2).sum() for p in theirs.parameters() if p.grad is not None)
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-4)
    cache = ours.eval().new_cache(1, 20)
    piece, written = ids[:1, :8], [ids[:1, :8]]
    with torch.inference_mode():
        for _ in range(12):
            logits = ours(piece, cache=cache, last_only=True).logits
            assert logits is not None
            piece = logits[:, -1].argmax(-1, keepdim=True)
            written.append(piece)
    assert torch.equal(torch.cat(written, 1), theirs.generate(ids[:1, :8], 12))
