"""Block `shared-branch` against its formula; what layers share, decoding in pieces, precisions, gradients, errors."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gptkit
from gptkit.components.attention.multi_head import MultiHeadSpec
from gptkit.components.block.shared_branch import SharedBranchSpec
from gptkit.components.precision.int8 import Int8Spec
from gptkit.core.errors import SpecError
from gptkit.kinds.written import NotWrittenError, WritingContext, Written
from gptkit.model.packing import apply_precision
from gptkit.model.plan import plan
from gptkit.nn.forward import Forward
from tests.support.ejected import is_written, source_of
from tests.support.learning import N_TOKENS, alternating, assert_learns
from tests.support.recomputation import assert_recomputes
from tests.support.recomputation import model as small_model

V, E, H, D, HIDDEN = 31, 16, 2, 16, 20
BRANCH = {
    "name": "shared-branch",
    "attention": {"name": "multi-head", "n_heads": H, "scale": 0.4},
    "position": "none",
    "feedforward": {"name": "gated", "activation": "gelu", "d_hidden": HIDDEN},
    "attention_rank": 3,
    "feedforward_rank": 5,
}
SPEC = {
    "d_model": E,
    "context_length": 32,
    "position": "none",
    "attention": {"name": "mamba2", "n_heads": 2, "d_head": 8, "d_state": 6},
    "block": "single-branch",
    "layers": [{}, {"block": BRANCH}, {}, {"block": {**BRANCH, "group": 1}}, {"block": BRANCH}],
}


def make(layers: list[dict[str, Any]] | None = None, **changes: Any) -> gptkit.GPT:
    model = gptkit.GPT({**SPEC, **changes, **({} if layers is None else {"layers": layers})}, V).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def random_ids(rows: int = 2, length: int = 14) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(1))


def normed(x: Tensor, norm: Any) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight


def adapted(adapter: Any, x: Tensor) -> Tensor:
    """Return what the adapter adds: for each part of a projection its own two matrices."""
    rank = adapter.down.weight.shape[0] // len(adapter.up)
    pairs = zip(adapter.down.weight.split(rank), adapter.up, strict=True)
    return torch.cat([x @ narrow.T @ wide.weight.T for narrow, wide in pairs], dim=-1)


def branch_output(layer: Any, branch: Any, x: Tensor, e: Tensor) -> Tensor:
    """Compute W h for a layer's input and the embedding, each (B, T, E)."""
    y = normed(torch.cat((x, e), dim=-1), branch.attention_norm)
    q, k, v = (y @ branch.attention.qkv.weight.T + adapted(layer.attention_adapter, y)).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (H, D)).transpose(1, 2) for part in (q, k, v))
    scores = (q @ k.transpose(-1, -2) * 0.4).masked_fill(torch.ones(x.shape[1], x.shape[1]).triu(1).bool(), -torch.inf)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ branch.attention.output.weight.T
    y = normed(mixed, branch.feedforward_norm)
    projected = y @ branch.feedforward.gate_up.weight.T + adapted(layer.feedforward_adapter, y)
    gate, up = projected.chunk(2, dim=-1)
    return F.gelu(gate) * up @ branch.feedforward.down.weight.T @ layer.output.weight.T


@torch.no_grad()
def test_layers_equal_the_formula() -> None:
    model, ids = make(), random_ids()
    forward = Forward(ids)
    x = e = model.embedding(ids, forward)
    for index, block in enumerate(model.blocks):
        layer: Any = block
        expected = None
        if index in (1, 3, 4):
            branch = model.shared["shared-branch-2" if index == 3 else "shared-branch"]
            h = branch_output(layer, branch, x, e)
            expected = x + layer.attention(normed(x + h, layer.attention_norm), Forward(ids))
        x = layer(x, forward)
        if expected is not None:
            torch.testing.assert_close(x, expected)


def test_layers_share_the_branch_by_group_and_fields() -> None:
    model = make()
    assert list(model.shared) == ["shared-branch", "shared-branch-2"]
    first, other, last = (model.blocks[index] for index in (1, 3, 4))
    assert first.branch is last.branch is model.shared["shared-branch"]
    assert other.branch is model.shared["shared-branch-2"]
    ranks = {"attention_rank": 4, "feedforward_rank": 1, "dropout": 0.1}
    assert list(make([{"block": BRANCH}, {"block": {**BRANCH, **ranks}}]).shared) == ["shared-branch"]
    other_scale = {**BRANCH, "attention": {"name": "multi-head", "n_heads": H}}
    assert len(make([{"block": BRANCH}, {"block": other_scale}]).shared) == 2
    assert len(make([{"block": BRANCH}, {"block": BRANCH, "norm": {"eps": 1e-3}}]).shared) == 2


def test_a_further_layer_has_its_own_adapters_and_map_only() -> None:
    layer = {"block": BRANCH}
    counts = [sum(each.numel() for each in make([layer] * count).parameters()) for count in (1, 2)]
    plain = [sum(each.numel() for each in make([{}] * count).parameters()) for count in (1, 2)]
    adapters = 3 * 3 * (2 * E + H * D) + 5 * (E + 2 * HIDDEN)
    assert counts[1] - counts[0] == plain[1] - plain[0] + adapters + E * E


def test_planned_cache_has_the_states_of_every_layer() -> None:
    model = make().float()
    sizes = plan(model.spec, V)
    assert sizes.cache_bytes_per_token == 3 * 2 * H * D * 4  # keys and values of three layers
    cache = model.new_cache(1)
    model(random_ids(rows=1), cache=cache)
    assert sizes.cache_bytes == cache.bytes


def test_initial_branch_is_that_without_adapters() -> None:
    without = {**BRANCH, "attention_rank": None, "feedforward_rank": None}
    models = [gptkit.GPT({**SPEC, "layers": [{"block": block}] * 2}, V, seed=0) for block in (BRANCH, without)]
    torch.testing.assert_close(models[0](random_ids()).logits, models[1](random_ids()).logits)


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("changes", [{}, {"position": "rotary"}, {"position": "alibi"}, {"embedding": False}])
def test_pieces_behind_padding_equal_one_call(changes: dict[str, Any], static: bool) -> None:
    block = {**BRANCH, "attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "window": 7}, **changes}
    model, ids = make([{}, {"block": block}, {"block": block}]), random_ids()
    full, padding = model(ids).logits, torch.tensor([0, 3])
    rows = torch.cat((ids[:1], torch.cat((torch.zeros(1, 3, dtype=torch.long), ids[1:, :11]), dim=1)))
    cache = model.new_cache(2, left_padding_B=padding, static=static)
    cached = torch.cat([model(piece, cache=cache).logits for piece in rows.split([5, 1, 1, 6, 1], dim=1)], dim=1)
    torch.testing.assert_close(cached[0], full[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(cached[1, 3:], full[1, :11], atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_precision_packs_the_branch_once_for_all_layers() -> None:
    model, ids = make().float(), random_ids()
    before = model(ids).logits
    packed = {each.name for each in apply_precision(model, Int8Spec(activations="fp32"))}
    assert "shared.shared-branch.attention.qkv.weight" in packed
    assert "blocks.4.attention_adapter.down.weight" in packed
    difference = (model(ids).logits - before).norm() / before.norm()
    assert 0 < difference < 0.1


def test_recomputed_blocks_have_the_same_gradients() -> None:
    assert_recomputes(small_model(**{**SPEC, "n_layers": 5, "context_length": 40}))


def test_attention_with_adapters_is_not_divided() -> None:
    with_adapters: Any = make().shared["shared-branch"]
    assert with_adapters.attention.divisions() == with_adapters.feedforward.divisions() == {}
    plain: Any = make([{"block": {**BRANCH, "attention_rank": None, "feedforward_rank": None}}]).shared["shared-branch"]
    assert plain.attention.divisions()
    assert plain.feedforward.divisions()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "latent"}, "layers.0.block.attention: attention 'latent' cannot read 2"),
        ({"attention": "latent", "embedding": False}, "layers.0.block.attention_rank: attention 'latent' has no adapters"),
        ({"feedforward": "experts"}, "layers.0.block.feedforward_rank: feedforward 'experts' has no adapters"),
        ({"attention": {"reuse_kv": True}}, "layers.0.block.attention.reuse_kv: the branch has its own keys"),
        ({"position": "learned"}, "layers.0.block.position: position 'learned' is added to the embeddings"),
        (
            {"position": {"name": "rotary", "scaling": {"name": "dynamic"}}},
            "layers.0.block.position: position 'rotary' depends on the length",
        ),
        ({"attention": {"n_heads": 3}}, "layers.0.block.attention.n_heads: d_model 32 cannot be split into 3 heads"),
    ],
)
def test_errors_are_located(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        make([{"block": {**BRANCH, **changes}}])
    assert message in str(error.value)


def test_written_model_has_each_branch_once() -> None:
    source = source_of(make())
    assert 'self.shared = nn.ModuleDict({"shared-branch": Branch(), "shared-branch-2": Branch()})' in source
    assert source.count("Branch()") == 2
    assert 'SharedBranchBlock(branch=self.shared["shared-branch-2"])' in source
    assert "self.attention_adapter = Adapter(d_input=2 * D_MODEL, rank=3, widths=(32, 32, 32))" in source


@pytest.mark.parametrize("block", ["per-layer-embedding", "altup"])
def test_branches_within_other_blocks_are_written(block: str) -> None:
    outer = {"name": block, "d_embedding": 4, "block": BRANCH}
    assert is_written(make([{"block": outer}, {"block": outer}]).spec)


def test_adapters_of_attentions_without_a_template_are_refused() -> None:
    class OwnSpec(MultiHeadSpec):
        """A copy, which adds nothing to its projection."""

        name: Literal["own"] = "own"  # type: ignore[assignment]

        def written(self, context: WritingContext) -> Written:
            return super().written(context.replace(adds=False))

    block = SharedBranchSpec(attention=OwnSpec(n_heads=2), attention_rank=2)
    with pytest.raises(NotWrittenError, match="attention Attention cannot be written out with an adapter"):
        source_of(make([{"block": block}]))


@pytest.mark.slow
def test_training_learns_the_token_before_the_last() -> None:
    attention = {"name": "mamba2", "n_heads": 2, "d_head": 8, "d_state": 6, "conv_width": 1}
    layers = [{"block": {**BRANCH, "attention": {"name": "multi-head", "n_heads": H}, "position": "rotary"}}] * 2
    model = gptkit.GPT({**SPEC, "attention": attention, "layers": layers}, N_TOKENS, seed=0)
    assert_learns(model, alternating, steps=250)


def test_heads_that_embed_tokens_once_more_train_with_it() -> None:
    model = make(head={"name": "multi-token", "depth": 2}).train()
    tokens = random_ids()
    out = model(tokens, tokens.roll(-1, 1))
    assert out.loss is not None
    # The branches read what the model's own call published: the logits are those without the head's.
    plain = model(tokens).logits
    assert plain is not None
    assert out.losses["multi_token"].isfinite()
    torch.testing.assert_close(
        out.loss - out.losses["multi_token"], F.cross_entropy(plain.flatten(0, 1), tokens.roll(-1, 1).flatten())
    )
