"""Every attention with every position: causality, caches, padding and documents."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptkit.core.errors import SpecError
from gptkit.model.gpt import GPT
from tests.support.pairs import V, component, ids, pairs, refused_pairs


def make(attention: dict[str, Any], position: dict[str, Any], **more: Any) -> GPT:
    spec = {"d_model": 32, "n_layers": 2, "context_length": 40, "attention": attention, "position": position, **more}
    model = GPT(spec, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval().double()


def test_other_pairs_are_refused() -> None:
    refused = refused_pairs()
    assert refused
    for attention, position in refused:
        with pytest.raises(SpecError, match="does not accept"):
            make(attention, position)


def test_entries_that_are_kept_refuse_positions_that_depend_on_the_length() -> None:
    scaling = {"name": "dynamic", "original_context_length": 12}
    attention = {"name": "compressed", "n_heads": 2, "d_head": 12, "d_rotary": 4, "block_size": 2, "top_k": None}
    with pytest.raises(SpecError, match="depends on the length of the text"):
        make(attention, {"name": "rotary", "scaling": scaling})


@pytest.mark.parametrize(("attention", "position"), pairs())
@torch.no_grad()
def test_cached_equals_full_without_leaks(attention: dict[str, Any], position: dict[str, Any]) -> None:
    model = make(attention, position)
    tokens = ids(2, 18)
    full = model(tokens).logits
    assert full.isfinite().all()

    # Causality: changing tokens from 11 on does not change earlier outputs, and changes later ones.
    changed = tokens.clone()
    changed[:, 11:] = (changed[:, 11:] + 1) % V
    other = model(changed).logits
    torch.testing.assert_close(other[:, :11], full[:, :11], atol=1e-12, rtol=0)
    assert not torch.allclose(other[:, 11:], full[:, 11:], atol=1e-6)

    # Cached decoding equals the full forward: prefill, single steps, and a piece of several. What scales with the
    # length of the text is compared with the forward over just the text so far.
    by_length = component("position", position).model_validate(position).depends_on_length
    cache = model.new_cache(2)
    at = 0
    for piece in (7, 1, 1, 4, 1, 1, 1, 1, 1):
        step = model(tokens[:, at : at + piece], cache=cache).logits
        at += piece
        expected = model(tokens[:, :at]).logits if by_length else full
        torch.testing.assert_close(step[:, -1], expected[:, at - 1], atol=1e-9, rtol=1e-9)

    # A padded row equals the row alone, with and without a cache.
    padding = 3
    alone = model(tokens[1:, : 18 - padding]).logits
    padded = torch.cat((torch.zeros(1, padding, dtype=torch.long), tokens[1:, : 18 - padding]), dim=1)
    batch = torch.cat((tokens[:1], padded))
    starts = torch.tensor([0, padding])
    together = model(batch, left_padding_B=starts).logits
    torch.testing.assert_close(together[1, padding:], alone[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(together[0], full[0], atol=1e-9, rtol=1e-9)
    cache = model.new_cache(2, left_padding_B=starts)
    model(batch[:, :10], cache=cache)
    for at in range(10, 18):
        step = model(batch[:, at : at + 1], cache=cache).logits
        expected = model(batch[:, : at + 1], left_padding_B=starts).logits if by_length else together
        torch.testing.assert_close(step[:, 0], expected[:, at], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("attention", "position"), pairs())
@torch.no_grad()
def test_documents_are_independent(attention: dict[str, Any], position: dict[str, Any]) -> None:
    model = make(attention, position)
    scaling = position.get("scaling")
    if scaling and scaling["name"] in ("dynamic", "longrope"):
        pytest.skip("these scale with the length of the row, which packed documents have in common")
    tokens = ids(2, 24)
    documents = torch.tensor([[0] * 9 + [1] * 15, [4] * 4 + [2] * 12 + [7] * 8])
    packed = model(tokens, documents_BT=documents).logits
    for row, (begin, end) in ((0, (0, 9)), (0, (9, 24)), (1, (0, 4)), (1, (4, 16)), (1, (16, 24))):
        alone = model(tokens[row : row + 1, begin:end]).logits[0]
        torch.testing.assert_close(packed[row, begin:end], alone, atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_windows_count_the_current_token() -> None:
    model = make({"name": "multi-head", "n_heads": 2, "window": 3}, {"name": "none"}, n_layers=1)
    tokens = ids(1, 12)
    full = model(tokens).logits
    for changed_at in range(12):
        other = tokens.clone()
        other[0, changed_at] = (other[0, changed_at] + 1) % V
        differs = (model(other).logits - full).abs().amax(-1)[0] > 1e-9
        assert differs.nonzero().flatten().tolist() == [t for t in range(12) if changed_at <= t < changed_at + 3]


@torch.no_grad()
def test_chunks_are_independent() -> None:
    model = make({"name": "multi-head", "n_heads": 2, "chunk": 4}, {"name": "none"}, n_layers=1)
    tokens = ids(1, 12)
    full = model(tokens).logits
    other = tokens.clone()
    other[0, 5] = (other[0, 5] + 1) % V
    differs = (model(other).logits - full).abs().amax(-1)[0] > 1e-9
    assert differs.nonzero().flatten().tolist() == [5, 6, 7]


@torch.no_grad()
def test_cache_truncates_and_reorders() -> None:
    for window in (None, 6):
        model = make({"name": "multi-head", "n_heads": 4, "window": window}, {"name": "rotary"})
        tokens = ids(3, 30)
        cache = model.new_cache(3)
        for at in range(0, 20, 2):
            model(tokens[:, at : at + 2], cache=cache)
        model(ids(3, 4, seed=9), cache=cache)
        cache.truncate(20)
        step = model(tokens[:, 20:21], cache=cache).logits
        torch.testing.assert_close(step[:, -1], model(tokens[:, :21]).logits[:, -1], atol=1e-9, rtol=1e-9)
        cache.reorder([2, 0])
        step = model(tokens[[2, 0], 21:22], cache=cache).logits
        torch.testing.assert_close(step[:, -1], model(tokens[[2, 0], :22]).logits[:, -1], atol=1e-9, rtol=1e-9)


def test_cache_with_a_window_is_bounded() -> None:
    model = make({"name": "multi-head", "n_heads": 4, "window": 4}, {"name": "rotary"}, context_length=1000)
    wide = make({"name": "multi-head", "n_heads": 4}, {"name": "rotary"}, context_length=1000)
    assert model.new_cache(1).bytes < wide.new_cache(1).bytes / 30
