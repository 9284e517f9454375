"""`compressed` attention against transformers' DeepSeek-V4, and what its blocks, cache and indexer do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.nn.forward import Forward
from tests.support.learning import N_TOKENS, assert_learns, repeated

B, T, E = 2, 29, 24
HEADS = {"n_heads": 6, "d_head": 12, "d_rotary": 6, "q_rank": 14, "sliding_window": 5, "sinks": True}
NORMS = {"norm": {"name": "rms", "eps": 1e-6}, "q_norm": {"name": "rms", "eps": 1e-6, "scale": False}}
OUTPUT = {"output_groups": 3, "output_rank": 8, **NORMS}
INDEX = {"index_heads": 24, "d_index": 10}
KINDS: dict[str, dict[str, Any]] = {
    "sliding_attention": {"block_size": None},
    "compressed_sparse_attention": {"block_size": 3, "top_k": 3, **INDEX},
    "heavily_compressed_attention": {"block_size": 4, "overlap": False, "top_k": None},
}


def model(fields: dict[str, Any], seed: int = 0) -> gptkit.GPT:
    layout = {"d_model": E, "n_layers": 1, "context_length": 64, "position": {"name": "rotary", "layout": "interleaved"}}
    built = gptkit.GPT({**layout, "attention": {"name": "compressed", **HEADS, **OUTPUT, **fields}}, 50, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return built.eval()


def vectors(n_tokens: int = T) -> torch.Tensor:
    return torch.randn(B, n_tokens, E, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("kind", KINDS)
def test_attention_equals_transformers(kind: str) -> None:
    modeling = pytest.importorskip("transformers.models.deepseek_v4.modeling_deepseek_v4")
    from transformers import DeepseekV4Config

    rates = {"compressed_sparse_attention": 3, "heavily_compressed_attention": 4}
    sizes = {"hidden_size": E, "num_attention_heads": 6, "head_dim": 12, "partial_rotary_factor": 0.5, "q_lora_rank": 14}
    more = {"o_groups": 3, "o_lora_rank": 8, "sliding_window": 5, "index_n_heads": 24, "index_head_dim": 10, "index_topk": 3}
    types = {"layer_types": [kind], "compress_rates": rates, "num_hidden_layers": 1, "compress_rope_theta": 10000.0}
    config = DeepseekV4Config(**sizes, **more, **types, attn_implementation="eager")
    reference = modeling.DeepseekV4Attention(config, 0).eval()
    attention = model(KINDS[kind]).blocks[0].attention
    pairs = {"q_a_proj": "q_down", "q_a_norm": "q_latent_norm", "q_b_proj": "q_up", "kv_proj": "kv", "kv_norm": "kv_norm"}
    pairs |= {"o_a_proj": "output_down", "o_b_proj": "output", "compressor.indexer.q_b_proj": "indexer.query"}
    pairs |= {"compressor.indexer.scorer.weights_proj": "indexer.weights", "sinks": "sinks"}
    inner = {"kv_proj": "content", "gate_proj": "gate", "kv_norm": "norm", "position_bias": "position_bias"}
    pairs |= {f"compressor.{name}": f"compressor.{own}" for name, own in inner.items()}
    pairs |= {f"compressor.indexer.{name}": f"indexer.compressor.{own}" for name, own in inner.items()}
    own = {name: attention.state_dict()[name.replace(stem, pairs[stem])] for name, stem in _stems(reference, pairs)}
    reference.load_state_dict(own, strict=False)
    x, positions = vectors(), torch.arange(T)[None].expand(B, -1)
    rotary = modeling.DeepseekV4RotaryEmbedding(config)
    angles = {label: rotary(x, positions, layer_type=label) for label in ("main", "compress")}
    distance = torch.arange(T)[:, None] - torch.arange(T)
    mask = torch.zeros(B, 1, T, T).masked_fill((distance < 0) | (distance >= 5), float("-inf"))
    with torch.no_grad():
        expected = reference(x, angles, positions, mask)[0]
        actual = attention(x, Forward(torch.zeros(B, T, dtype=torch.long)))
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5)


def _stems(reference: torch.nn.Module, pairs: dict[str, str]) -> list[tuple[str, str]]:
    names = [name for name in reference.state_dict() if "inv_freq" not in name]
    return [(name, name.removesuffix(".weight")) for name in names if name.removesuffix(".weight") in pairs]


@pytest.mark.parametrize("kind", KINDS)
def test_documents_equal_separate_texts(kind: str) -> None:
    attention = model(KINDS[kind]).blocks[0].attention
    x, ids = vectors(), torch.zeros(B, T, dtype=torch.long)
    documents = (torch.arange(T) >= 11).long() + (torch.arange(T) >= 13).long()
    packed = attention(x, Forward(ids, documents_BT=documents.expand(B, -1)))
    alone = [attention(x[:, a:b], Forward(ids[:, a:b])) for a, b in ((0, 11), (11, 13), (13, T))]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_joined_caches_continue_their_own_blocks(kind: str) -> None:
    decoder, ids = model(KINDS[kind]), torch.arange(3, 3 + 2 * T).view(2, T) % 50
    first, second = decoder.new_cache(1), decoder.new_cache(1)
    decoder(ids[:1, :17], cache=first)
    decoder(ids[1:, :10], cache=second)  # seven tokens of padding, which no block size divides
    first.join(second, 64)
    for step in range(8):
        new = torch.stack((ids[0, 17 + step], ids[1, 10 + step]))[:, None]
        logits = decoder(new, cache=first).logits[:, -1]
        for row, begin in ((0, 17), (1, 10)):
            expected = decoder(ids[row : row + 1, : begin + step + 1]).logits[0, -1]
            torch.testing.assert_close(logits[row], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_queries_window_by_window_equal_all_at_once(kind: str) -> None:
    attention, ids = model(KINDS[kind]).blocks[0].attention, torch.zeros(B, T, dtype=torch.long)
    at_once = attention(vectors(), Forward(ids, keep_weights=True))
    torch.testing.assert_close(attention(vectors(), Forward(ids)), at_once, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_calls_longer_and_shorter_than_the_window_equal_one_call(kind: str) -> None:
    decoder, ids = model(KINDS[kind]), torch.arange(3, 3 + 2 * T).view(2, T) % 50
    cache, expected = decoder.new_cache(2), decoder(ids).logits
    calls = ids.split([12, 7, 1, 6, 3], dim=1)
    actual = torch.cat([decoder(part, cache=cache).logits for part in calls], dim=1)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_a_cache_grows_by_an_entry_for_each_block() -> None:
    decoder = model(KINDS["compressed_sparse_attention"])
    short, long = (decoder.new_cache(1, capacity=capacity).bytes for capacity in (300, 600))
    assert long - short == 100 * (12 + 10) * 4


def test_only_the_indexer_learns_from_its_loss() -> None:
    attention = model(KINDS["compressed_sparse_attention"]).blocks[0].attention.train()
    forward = Forward(torch.zeros(B, T, dtype=torch.long))
    attention(vectors(), forward)
    forward.losses["indexer"].backward()
    learned = {name for name, parameter in attention.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, _ in attention.named_parameters() if name.startswith("indexer.")}


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"top_k": None, "overlap": False}, {"top_k": 2, "index_heads": 2, "d_index": 8}])
def test_training_learns_to_repeat_a_token_beyond_the_window(fields: dict[str, Any]) -> None:
    attention = {"name": "compressed", "n_heads": 2, "d_head": 16, "d_rotary": 8, "sliding_window": 2, "block_size": 2}
    layout = {"d_model": 32, "n_layers": 1, "context_length": 16, "attention": {**attention, **fields}}
    assert_learns(gptkit.GPT(layout, N_TOKENS, seed=0), repeated(6), steps=100)


def test_unsuitable_fields_are_refused_by_name() -> None:
    with pytest.raises(GptkitError, match="at most d_head, 12"):
        model({"d_rotary": 14})
    with pytest.raises(GptkitError, match="divisor of n_heads, 6"):
        model({"output_groups": 4})
    with pytest.raises(GptkitError, match="set output_rank"):
        model({"output_rank": None})
