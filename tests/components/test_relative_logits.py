"""Relative terms of grouped-query attention: formula, transformers' layer, positions, decoding, shared keys and values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.cache.ring import RingState
from gptkit.nn.forward import Forward
from tests.support.learning import N_TOKENS, assert_learns, repeated

V, E = 31, 24
BASE: dict[str, Any] = {"d_model": E, "n_layers": 2, "context_length": 64, "position": "none"}
RELATIVE: dict[str, Any] = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 6}
RELATIVE |= {"relative_width": 3, "relative_extent": 5}
TEMPERATURE = {"name": "query-temperature", "growth": "smooth", "strength": 0.5, "interval": 3}
SPECS: dict[str, dict[str, Any]] = {
    "alone": {"attention": RELATIVE},
    "window": {"attention": {**RELATIVE, "window": 7, "relative_extent": None}},
    "rotary": {"attention": {**RELATIVE, "qk_norm": "rms"}, "position": {"name": "rotary", "temperature": 0.5}},
    "temperature": {"attention": {**RELATIVE, "scale": 0.2}, "position": TEMPERATURE},
    "alibi": {"attention": {**RELATIVE, "softcap": 4.0, "sinks": True}, "position": "alibi"},
    "shaw": {"attention": RELATIVE, "position": {"name": "shaw", "max_distance": 3}},
    "shared": {"attention": {**RELATIVE, "kv_conv": 3}, "layers": [{}, {"attention": {"reuse_kv": True}}]},
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(spec: dict[str, Any]) -> GPT:
    model = GPT({**BASE, **spec}, V, seed=0).double()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.add_(draw(*parameter.shape, seed=seed) * 0.3)
    return model.eval()


def formula(module: Any, x_TE: Tensor, factor: Tensor) -> Tensor:
    """The component's formula for one text, pair by pair; `factor` multiplies queries and relative features."""
    n_tokens = len(x_TE)
    q, k, v = module.qkv(x_TE).split([24, 12, 12], dim=-1)
    q, k, v = (part.view(n_tokens, -1, 6) for part in (q, k, v))
    r = module.relative.features(x_TE).view(n_tokens, 4, 3)
    rows = []
    for t in range(n_tokens):
        heads = []
        for head in range(4):
            scores = []
            for s in range(t + 1):
                score = factor[t] * q[t, head] @ k[s, head // 2] * module.scale
                if t - s < module.relative.extent:
                    score = score + factor[t] * r[t, head] @ module.relative.table[:, t - s]
                scores.append(score)
            heads.append(torch.stack(scores).softmax(0) @ v[: t + 1, head // 2])
        rows.append(torch.cat(heads))
    out: Tensor = module.output(torch.stack(rows))
    return out


@pytest.mark.parametrize("name", ["alone", "temperature"])
@torch.no_grad()
def test_equals_the_formula_with_padding_and_documents(name: str) -> None:
    module, x, zeros = make(SPECS[name]).attentions()[0], draw(2, 12, E), torch.zeros(2, 12, dtype=torch.long)
    factor = torch.ones(12, dtype=torch.float64)
    if name == "temperature":
        factor = 1 + 0.5 * ((torch.arange(12, dtype=torch.float64) + 1) / 3).clamp_min(1).log()
    out = module(x, Forward(zeros, left_padding_B=torch.tensor([0, 4])))
    torch.testing.assert_close(out[0], formula(module, x[0], factor), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(out[1, 4:], formula(module, x[1, 4:], factor), rtol=1e-6, atol=1e-6)
    out = module(x, Forward(zeros, documents_BT=torch.tensor([[0] * 5 + [1] * 7, [3] * 12])))
    torch.testing.assert_close(out[0, 5:], formula(module, x[0, 5:], factor), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_equals_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.inkling.modeling_inkling")
    reference = modeling.InklingRelativeLogits(3, 5).double()
    reference.proj.copy_(draw(3, 5))
    module: Any = make(SPECS["alone"]).attentions()[0]
    module.relative.table.copy_(reference.proj)
    r, positions = draw(2, 9, 4, 3), torch.arange(9)
    own = module.relative(r.transpose(1, 2), positions, positions)
    visible = positions[:, None] >= positions
    torch.testing.assert_close(own[..., visible], reference(r, positions, positions)[..., visible])


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
@torch.no_grad()
def test_pieces_equal_one_call(spec: dict[str, Any]) -> None:
    model = make(spec)
    ids = torch.randint(V, (2, 30), generator=torch.Generator().manual_seed(0))
    full, cache = model(ids).logits, model.new_cache(2)
    pieces = [model(piece, cache=cache).logits for piece in ids.split([1, 6, 1, 1, 21], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), full)
    padded = torch.cat((ids.new_zeros(2, 3), ids), dim=1)
    for static in (False, True):
        cache = model.new_cache(2, left_padding_B=torch.tensor([3, 3]), static=static)
        pieces = [model(piece, cache=cache).logits for piece in padded.split([2, 4, 1, 26], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1)[:, 3:], full)


@torch.no_grad()
def test_static_cache_of_a_window_is_a_ring() -> None:
    """Terms of distances do not need keys in the order of the text."""
    model = make({**SPECS["window"], "context_length": 256})
    ids = torch.randint(V, (2, 200), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache(2, static=True)
    assert {type(state) for state in cache.states} == {RingState}
    pieces = [model(piece, cache=cache).logits for piece in ids.split([40, *[1] * 60, 9, 91], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids).logits)


def test_extent_is_the_window_by_default() -> None:
    extents = {None: 1024, 7: 7}
    for window, extent in extents.items():
        attention = {**RELATIVE, "relative_extent": None, "window": window}
        spec: Any = validate_data({**BASE, "attention": attention}, ModelSpec)
        assert spec.attention.relative_extent == extent


def test_block_sparse_attention_refuses_relative_terms() -> None:
    with pytest.raises(SpecError, match="the indexer does not choose keys by relative terms"):
        validate_data({**BASE, "attention": {**RELATIVE, "name": "block-sparse"}}, ModelSpec)


def test_backends_of_other_terms_are_refused() -> None:
    with pytest.raises(SpecError, match="attention_backend"):
        validate_data({**BASE, "attention": RELATIVE, "attention_backend": "flex"}, ModelSpec)


def test_training_learns_to_repeat_a_distant_token() -> None:
    """Without any other position."""
    attention = {**RELATIVE, "d_head": 8, "relative_width": 4, "relative_extent": 16}
    model = GPT({**BASE, "n_layers": 1, "attention": attention}, N_TOKENS, seed=0)
    assert_learns(model, repeated(6), steps=120)
