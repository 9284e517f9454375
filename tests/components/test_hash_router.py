"""The hash router: experts by token ids, and weights against transformers' DeepSeek-V4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gptkit
from gptkit.checkpoint.safetensors import fill
from gptkit.core.errors import CheckpointError, ExternalModelError, GptkitError
from gptkit.core.registry import default_registry
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from gptkit.ops.routing import hashed_experts
from tests.support.ejected import source_of
from tests.support.learning import N_TOKENS, alternating, assert_learns
from tests.support.parity import make

E, X, V = 8, 6, 50
LAYOUT: dict[str, Any] = {"d_model": 16, "n_layers": 2, "context_length": 32, "attention": {"name": "multi-head"}}
IDS = torch.arange(2, 2 + 24).view(2, 12)


def model(**router: Any) -> gptkit.GPT:
    spec = {"name": "experts", "n_experts": X, "expert": {"name": "gated", "d_hidden": 12}}
    return gptkit.GPT({**LAYOUT, "feedforward": {**spec, "router": {"name": "hash", **router}}}, V, seed=0).eval()


def test_hash_spreads_tokens_evenly_and_layers_differ() -> None:
    ids = torch.arange(12_000)
    first, second = (hashed_experts(ids, X, 2, layer) for layer in (0, 1))
    assert all(len(set(row)) == 2 for row in first.tolist())
    for chosen in (first, second):
        share = torch.bincount(chosen.flatten(), minlength=X) / len(ids)
        assert (share - 2 / X).abs().max() < 0.02  # four standard deviations of a random choice
    pairs = torch.bincount(first[:, 0] * X + first[:, 1], minlength=X * X).view(X, X) / len(ids)
    off_diagonal = pairs[~torch.eye(X, dtype=torch.bool)]
    assert (off_diagonal - 1 / (X * (X - 1))).abs().max() < 0.01
    assert 0.1 < (first[:, 0] == second[:, 0]).float().mean() < 0.25


def test_equal_tokens_have_equal_experts_and_learned_weights() -> None:
    spec = default_registry().component("router", "hash").model_validate({"name": "hash", "k": 2})
    router = spec.build(BuildContext(d_model=E, context_length=8, n_layers=3), n_experts=X)
    experts, weights = router(torch.randn(3, E), Forward(torch.tensor([[7, 9, 7]])))
    assert experts[0].tolist() == experts[2].tolist() != experts[1].tolist()
    assert weights[0].tolist() != weights[2].tolist()
    with pytest.raises(GptkitError, match="2 vectors for 3 token ids"):
        router(torch.randn(2, E), Forward(torch.tensor([[7, 9, 7]])))


def test_table_begins_with_the_hash_and_is_saved() -> None:
    plain, stored = model(k=2), model(k=2, table=True)
    assert torch.equal(plain(IDS).logits, stored(IDS).logits)
    table = stored.blocks[1].feedforward.router.table
    assert table.dtype == torch.long
    assert "blocks.1.feedforward.router.table" in stored.state_dict()
    assert "blocks.1.feedforward.router.table" not in plain.state_dict()
    table.copy_((table + 1) % X)
    assert not torch.allclose(plain(IDS).logits, stored(IDS).logits)


def test_cached_and_padded_steps_read_their_own_ids() -> None:
    decoder = model(k=2)
    expected = decoder(IDS).logits
    padded = torch.cat((IDS.new_zeros(2, 3), IDS), dim=1)
    cache = decoder.new_cache(2, left_padding_B=torch.tensor([3, 3]))
    pieces = [decoder(part, cache=cache).logits for part in padded.split([8, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1)[:, 3:], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["attention", "feedforward"])
def test_written_mixtures_receive_the_ids(part: str) -> None:
    mixture = {"name": "expert-heads" if part == "attention" else "experts", "n_experts": 4, "router": "hash"}
    source = source_of(gptkit.GPT({**LAYOUT, part: mixture}, V, device="meta"))
    assert 'self.router(x_NE, cache["ids"].flatten())' in source
    assert '            layer_cache["ids"] = ids_BT\n' in source


@pytest.mark.parametrize("router", ["hash", "sqrt-softplus"])
def test_training_learns_the_token_before_the_last(router: str) -> None:
    experts = {"name": "experts", "n_experts": 4, "expert": {"name": "gated", "d_hidden": 16}, "router": router}
    layout = {"d_model": 32, "n_layers": 1, "context_length": 16, "attention": "multi-head", "feedforward": experts}
    assert_learns(gptkit.GPT(layout, N_TOKENS, seed=0), alternating, steps=60)


def test_a_balance_loss_and_an_unknown_vocabulary_are_refused() -> None:
    with pytest.raises(GptkitError, match="no loss changes the load"):
        model(balance_loss=0.1)
    spec = default_registry().component("router", "hash").model_validate({"name": "hash", "table": True})
    with pytest.raises(GptkitError, match="number of token ids"):
        spec.build(BuildContext(d_model=E, context_length=8, n_layers=3), n_experts=X)


@pytest.mark.parametrize("score", ["sqrt-softplus", "sigmoid"])
def test_weights_equal_transformers(score: str) -> None:
    modeling = pytest.importorskip("transformers.models.deepseek_v4.modeling_deepseek_v4")
    from transformers import DeepseekV4Config

    options = {"hidden_size": E, "n_routed_experts": X, "num_experts_per_tok": 3, "vocab_size": V, "num_hidden_layers": 1}
    config = DeepseekV4Config(**options, scoring_func=score.replace("-", ""), routed_scaling_factor=1.5)
    reference = modeling.DeepseekV4HashRouter(config)
    fields = {"name": "hash", "k": 3, "scale": 1.5, "score": score, "table": True}
    spec = default_registry().component("router", "hash").model_validate(fields)
    context = replace(BuildContext(d_model=E, context_length=8, n_layers=1), vocab_size=V)
    router = spec.build(context, n_experts=X).eval()
    with torch.no_grad():
        router.table.copy_(torch.rand(V, X).argsort(dim=-1)[:, :3])
        reference.weight.copy_(router.scores.weight)
        reference.tid2eid.copy_(router.table)
        x = torch.randn(12, E)
        _, weights, experts = reference(x, IDS[:1])
        actual_experts, actual = router(x, Forward(IDS[:1]))
    assert torch.equal(actual_experts, experts)
    torch.testing.assert_close(actual, weights)


@pytest.mark.parametrize("index", [-1, X])
@pytest.mark.parametrize("assign", [False, True])
def test_weights_with_experts_that_do_not_exist_are_refused(tmp_path: Path, index: int, assign: bool) -> None:
    file = tmp_path / "model.safetensors"
    saved = model(k=2, table=True)
    saved.state_dict()["blocks.1.feedforward.router.table"][3, 0] = index
    save_file(dict(saved.state_dict()), file)
    message = rf"blocks\.1\.feedforward\.router\.table has the index {index}, which should be from 0 to 5"
    with pytest.raises(CheckpointError, match=message):
        fill(model(k=2, table=True), file, assign=assign)
    saved.state_dict()["blocks.1.feedforward.router.table"][3, 0] = X - 1
    save_file(dict(saved.state_dict()), file)
    loaded = model(k=2, table=True)
    fill(loaded, file, assign=assign)
    assert torch.equal(loaded(IDS).logits, saved(IDS).logits)


@pytest.mark.slow
@pytest.mark.parametrize("index", [-1, 10_000])
def test_import_of_experts_that_do_not_exist_is_refused(tmp_path: Path, index: int) -> None:
    pytest.importorskip("transformers.models.deepseek_v4")
    make("deepseek_v4", tmp_path / "external")
    file = tmp_path / "external" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("tid2eid"))
    tensors[name][5, 0] = index
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ExternalModelError, match=rf"tensor .*tid2eid has the index {index}, which should be from 0 to \d+"):
        gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    assert not (tmp_path / "run" / "checkpoints").exists() or not any((tmp_path / "run" / "checkpoints").iterdir())
