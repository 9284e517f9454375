"""Attention masks against a definition in plain loops, and bidirectional prefixes in a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from gptkit.core.errors import StateError
from gptkit.model.gpt import GPT
from gptkit.nn.attention.mask import AttentionMask
from gptkit.nn.attention.pattern import Chunks, MaskPattern
from gptkit.nn.forward import Forward

B, V = 2, 31
DOCUMENTS = [[0] * 5 + [1] * 7, [3] * 2 + [2] * 10]
CASES: dict[str, dict[str, Any]] = {
    "causal": {},
    "window": {"window": 4},
    "chunk": {"chunk": 3},
    "padding": {"padding": [0, 3]},
    "padding-chunk": {"padding": [0, 2], "chunk": 3},
    "documents": {"documents": DOCUMENTS},
    "documents-chunk-window": {"documents": DOCUMENTS, "chunk": 4, "window": 3},
    "documents-first-and-last": {"documents": DOCUMENTS, "first": 2},
    "padding-first-and-last": {"padding": [0, 3], "first": 2},
    "excludes-itself": {"first": -1},
    "prefix": {"prefix": [4, 7]},
    "prefix-window-padding": {"prefix": [4, 6], "window": 3, "padding": [1, 0]},
}


@dataclass(frozen=True)
class FirstAndLast(MaskPattern):
    """Pattern of the first tokens and the last two; -1 excludes all tokens."""

    first: int

    def allows(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key < self.first) | ((query - key < 2) & (self.first >= 0))


def pattern_of(case: dict[str, Any]) -> MaskPattern | None:
    if "first" in case:
        return FirstAndLast(case["first"])
    return Chunks(case["chunk"]) if "chunk" in case else None


def reference(
    n_queries: int,
    n_keys: int,
    *,
    window: int | None = None,
    chunk: int | None = None,
    first: int | None = None,
    padding: Any = None,
    documents: Any = None,
    prefix: Any = None,
) -> torch.Tensor:
    """Compute the mask element by element; the queries are the last of the keys."""
    allowed = torch.zeros(B, 1, n_queries, n_keys, dtype=torch.bool)
    for row in range(B):
        start = padding[row] if padding else 0
        for t in range(n_queries):
            query = n_keys - n_queries + t
            for key in range(n_keys):
                begin_q = begin_k = start
                if documents:
                    begin_q = documents[row].index(documents[row][query])
                    begin_k = documents[row].index(documents[row][key])
                ok = key <= query or bool(prefix and key - start < prefix[row])
                ok = ok and (window is None or abs(query - key) < window)
                ok = ok and (chunk is None or (query - begin_q) // chunk == (key - begin_k) // chunk)
                if first is not None:
                    ok = ok and (key - begin_k < first or (query - key < 2 and first >= 0) or key == query)
                ok = ok and (documents is None or documents[row][query] == documents[row][key])
                allowed[row, 0, t, key] = (ok and key >= start) or (padding is not None and key == query)
    return allowed


def forward_for(n_queries: int, n_keys: int, case: dict[str, Any], static: bool = False) -> Forward:
    def as_tensor(name: str) -> torch.Tensor | None:
        return torch.tensor(case[name]) if name in case else None

    offset = n_keys - n_queries
    return Forward(
        torch.zeros(B, n_queries, dtype=torch.long),
        offset=torch.tensor(offset) if static else offset,
        left_padding_B=as_tensor("padding"),
        documents_BT=as_tensor("documents"),
        prefix_B=as_tensor("prefix"),
    )


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("n_queries", [12, 4, 1])
@pytest.mark.parametrize("name", CASES)
def test_dense_mask_equals_the_definition(name: str, n_queries: int, static: bool) -> None:
    case = CASES[name]
    if "documents" in case and n_queries < 12:
        pytest.skip("packed documents have no cache")
    forward = forward_for(n_queries, 12, case, static)
    mask = forward.mask(0, 12, window=case.get("window"), pattern=pattern_of(case))
    assert torch.equal(mask.dense().expand(B, 1, n_queries, 12), reference(n_queries, 12, **case))
    additive = mask.additive(torch.float32)
    assert torch.equal(additive == 0, mask.dense())
    assert torch.equal(additive == float("-inf"), ~mask.dense())


@pytest.mark.parametrize("name", CASES)
def test_flex_block_mask_equals_the_dense_mask(name: str) -> None:
    case = CASES[name]
    mask = forward_for(12, 12, case).mask(0, 12, window=case.get("window"), pattern=pattern_of(case))
    from torch.nn.attention.flex_attention import create_mask

    blocks = mask.block_mask()
    dense = create_mask(blocks.mask_mod, mask.rows or 1, 1, 12, 12, device="cpu")
    assert torch.equal(dense, mask.dense())


def test_simplest_form_is_chosen() -> None:
    assert Forward(torch.zeros(B, 5, dtype=torch.long)).mask(0, 5).form == "causal"
    assert Forward(torch.zeros(B, 5, dtype=torch.long)).mask(0, 5, window=5).form == "causal"
    assert Forward(torch.zeros(B, 1, dtype=torch.long), offset=4).mask(0, 5).form == "none"
    assert Forward(torch.zeros(B, 2, dtype=torch.long), offset=3).mask(0, 5).form == "dense"


def test_cumulative_lengths_are_segment_boundaries() -> None:
    documents = forward_for(12, 12, {"documents": DOCUMENTS}).mask(0, 12)
    assert documents.cumulative_lengths(B).tolist() == [0, 5, 12, 14, 24]
    padded = forward_for(12, 12, {"padding": [0, 3]}).mask(0, 12)
    assert padded.cumulative_lengths(B).tolist() == [0, 12, 15, 24]
    assert AttentionMask("causal", 12, 12, torch.device("cpu")).cumulative_lengths(3).tolist() == [0, 12, 24, 36]


def test_masks_cannot_be_changed() -> None:
    mask = Forward(torch.zeros(B, 5, dtype=torch.long)).mask(0, 5)
    with pytest.raises(AttributeError):
        mask.window = 3  # type: ignore[misc]


def model(**changes: Any) -> GPT:
    attention = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, **changes.pop("attention", {})}
    spec = {"d_model": 32, "n_layers": 2, "context_length": 40, "attention": attention, **changes}
    return GPT(spec, V).double().eval()


def token_ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("attention", [{}, {"window": 3}])
def test_prefix_tokens_see_one_another_and_nothing_later(attention: dict[str, Any]) -> None:
    gpt, ids = model(attention=attention), token_ids(2, 14)
    prefix = torch.tensor([6, 3])
    before = gpt(ids, prefix_B=prefix).logits
    for at in (4, 8):
        changed = ids.clone()
        changed[:, at] = (changed[:, at] + 1) % V
        touched = (gpt(changed, prefix_B=prefix).logits - before).abs().amax(-1) > 1e-9
        for row, n_prefix in enumerate(prefix.tolist()):
            first = int(touched[row].nonzero()[0])
            assert first == (max(0, at - 4 if attention else 0) if at < n_prefix else at)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("attention", [{}, {"window": 4}])
@pytest.mark.parametrize("pieces", [(14,), (7, 1, 1, 5), (3, 2, 4, 1, 1, 1, 1, 1)])
def test_prefix_that_arrives_in_pieces_equals_one_call(
    pieces: tuple[int, ...], attention: dict[str, Any], padded: bool
) -> None:
    gpt, ids = model(attention=attention), token_ids(2, 14)
    prefix, padding = torch.tensor([7, 5]), torch.tensor([0, 2]) if padded else None
    cache = gpt.new_cache(2, left_padding_B=padding, prefix_B=prefix)
    at = 0
    for piece in pieces:
        step = gpt(ids[:, at : at + piece], cache=cache).logits
        at += piece
        full = gpt(ids[:, :at], left_padding_B=padding, prefix_B=prefix).logits
        torch.testing.assert_close(step, full[:, -piece:], atol=1e-9, rtol=1e-9)
    cache.truncate(6)
    step = gpt(ids[:, 6:9], cache=cache).logits
    full = gpt(ids[:, :9], left_padding_B=padding, prefix_B=prefix).logits
    torch.testing.assert_close(step, full[:, -3:], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("changes", [{"position": "alibi"}, {"attention": {"name": "gated-delta", "d_key": 8}}])
def test_prefix_is_rejected_if_a_layer_is_always_causal(changes: dict[str, Any]) -> None:
    gpt = GPT({"d_model": 32, "n_layers": 1, "position": "none", **changes}, V)
    with pytest.raises(StateError, match="bidirectional prefix"):
        gpt(token_ids(1, 4), prefix_B=torch.tensor([2]))
