"""GPT: shapes, loss, initialization, meta device, sizes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.core.errors import CapacityError, GptkitError, SpecError, StateError
from gptkit.model.gpt import GPT
from gptkit.model.plan import plan, refuse_unless_fits
from gptkit.model.spec import ModelSpec
from gptkit.nn.initial import declared

V = 37
SMALL: dict[str, Any] = {
    "d_model": 24,
    "n_layers": 2,
    "context_length": 16,
    "attention": {"name": "multi-head", "n_heads": 3},
}
GPT2: dict[str, Any] = {
    "context_length": 16,
    "d_model": 24,
    "n_layers": 2,
    "position": "learned",
    "attention": {"name": "multi-head", "n_heads": 3, "qkv_bias": True, "output_bias": True, "dropout": 0.1},
    "norm": "layer",
    "feedforward": {"name": "mlp", "activation": "gelu-tanh"},
    "head": {"name": "linear", "tied": True},
}


def randomize(model: nn.Module, scale: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def ids(rows: int = 3, length: int = 9) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


def test_shapes_of_every_stage() -> None:
    """(batch, d_seq) -> (batch, d_seq, d_emb) -> … -> (batch, d_seq, vocab), at every module boundary."""
    model = GPT(GPT2, V)
    seen: dict[str, tuple[int, ...]] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[name] = tuple(output.shape)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(watch(name)) if name and not isinstance(module, nn.ModuleList) else None
    logits = model(ids(3, 9)).logits
    assert logits.shape == (3, 9, V)
    assert seen["embedding"] == (3, 9, 24)
    for layer in range(2):
        for part in ("attention_norm", "attention", "feedforward_norm", "feedforward"):
            assert seen[f"blocks.{layer}.{part}"] == (3, 9, 24), part
        assert seen[f"blocks.{layer}.attention.qkv"] == (3, 9, 72)
        assert seen[f"blocks.{layer}.feedforward.up"] == (3, 9, 96)
        assert seen[f"blocks.{layer}"] == (3, 9, 24)
    assert seen["final_norm"] == (3, 9, 24)
    assert seen["head"] == (3, 9, V)


def test_loss_and_gradients_equal_cross_entropy_of_the_logits() -> None:
    model = GPT(SMALL, V)
    randomize(model)
    tokens, targets = ids(), ids(3, 9).roll(-1, 1)
    targets[0, :4] = -100
    loss = model(tokens, targets).loss
    loss.backward()
    mine = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    expected = F.cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten())
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_logits_are_returned_with_the_loss_on_request() -> None:
    model = GPT(SMALL, V)
    tokens = ids()
    assert model(tokens, tokens).logits is None
    out = model(tokens, tokens, with_logits=True)
    torch.testing.assert_close(out.logits, model(tokens).logits)
    assert model(tokens, last_only=True).logits.shape == (3, 1, V)
    torch.testing.assert_close(model(tokens, last_only=True).logits[:, 0], out.logits[:, -1], atol=1e-5, rtol=1e-5)


def test_tied_head_uses_the_embedding_table() -> None:
    model = GPT(GPT2, V)
    untied = GPT(GPT2 | {"head": "linear"}, V)
    difference = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in model.parameters())
    assert difference == V * 24
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.embedding.table_VE.add_(1.0)
    assert not torch.allclose(copied(ids()).logits, model(ids()).logits)
    names = [name for name, _ in copied.named_parameters()]
    assert len([name for name in names if copied.get_parameter(name).shape == (V, 24)]) == 1


def test_initial_values_depend_on_seed_name_and_shape_only() -> None:
    two, again, other = GPT(SMALL, V, seed=1), GPT(SMALL, V, seed=1), GPT(SMALL, V, seed=2)
    four = dict(
        GPT(SMALL | {"n_layers": 4, "initializer": {"name": "normal", "scale_outputs": False}}, V, seed=1).named_parameters()
    )
    two_flat = GPT(SMALL | {"initializer": {"name": "normal", "scale_outputs": False}}, V, seed=1)
    for name, parameter in two.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        if parameter.dim() > 1:
            assert not torch.equal(parameter, other.get_parameter(name))
        assert torch.equal(two_flat.get_parameter(name), four[name])
    weight = GPT(SMALL | {"d_model": 240}, 500).embedding.table_VE
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_residual_outputs_are_initialized_smaller_with_depth() -> None:
    deep = GPT(SMALL | {"n_layers": 8, "d_model": 96}, V)
    block: Any = deep.blocks[0]
    ratio = block.attention.output.weight.std() / block.attention.qkv.weight.std()
    assert ratio.item() == pytest.approx(1 / 4, rel=0.1)
    ratio = block.feedforward.down.weight.std() / block.attention.qkv.weight.std()
    assert ratio.item() == pytest.approx(1 / 4, rel=0.1)


def test_every_parameter_has_a_role() -> None:
    for spec in (
        SMALL,
        GPT2,
        SMALL | {"attention": {"name": "multi-head", "sinks": True, "qk_norm": "rms"}, "position": "shaw"},
    ):
        model = GPT(spec, V, device="meta")
        assert set(declared(model)) == {name for name, _ in model.named_parameters()}


def test_meta_model_allocates_nothing_and_has_the_counts() -> None:
    huge = {
        "d_model": 4096,
        "n_layers": 32,
        "attention": {"name": "grouped-query", "n_heads": 32, "n_kv_heads": 8},
        "feedforward": {"name": "gated", "d_hidden": 14336},
        "context_length": 8192,
    }
    model = GPT(huge, 128256, device="meta")
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == 8_030_261_248  # Llama 3 8B, as published


def test_plan_counts_equal_those_of_the_model() -> None:
    sizes = plan(ModelSpec.model_validate(SMALL), V, batch_size=2)
    model = GPT(SMALL, V)
    assert sizes.parameters == sum(p.numel() for p in model.parameters())
    cache = model.new_cache(1)
    assert sizes.cache_bytes == cache.bytes == sizes.cache_bytes_per_token * 16
    # 2 operations per weight of every matrix, and attention's two products over the context.
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and not n.startswith("embedding"))
    attention = 2 * 2 * 2 * 24 * 16
    assert sizes.flops_per_token == pytest.approx(2 * matrices + attention, rel=0.01)
    assert sizes.activation_bytes > 0
    with pytest.raises(CapacityError, match=r"needs about 1e\+03 TB|needs about .*TB, but cpu has"):
        refuse_unless_fits(10**15, "training")


def test_model_is_built_and_used_in_three_lines() -> None:
    model = GPT({"d_model": 32, "n_layers": 1, "context_length": 8}, vocab_size=50)
    tokens = torch.zeros(1, 8, dtype=torch.long)
    assert model(tokens).logits.shape == (1, 8, 50)


def test_tree_shows_parts_and_counts() -> None:
    text = GPT(GPT2, V).tree()
    assert text.splitlines()[0] == f"GPT  {sum(p.numel() for p in GPT(GPT2, V).parameters()):,}"
    assert "× 2" in text
    assert "Linear 24 → 72" in text


def test_too_many_tokens_and_missing_vocabulary_are_reported() -> None:
    model = GPT(SMALL, V)
    with pytest.raises(StateError, match="17 tokens do not fit into the context length of 16"):
        model(ids(1, 17))
    cache = model.new_cache(1, 4)
    with pytest.raises(StateError, match="5 tokens do not fit into a cache of 4"):
        model(ids(1, 5), cache=cache)
    with pytest.raises(GptkitError, match="vocabulary is not known"):
        GPT(SMALL)


def test_attention_weights_are_available_for_plots() -> None:
    weights = GPT(SMALL, V).eval().attention_weights(ids(1, 7))
    assert list(weights) == [(0, 0), (1, 0)]
    assert weights[1, 0].shape == (1, 3, 7, 7)
    torch.testing.assert_close(weights[1, 0].sum(-1), torch.ones(1, 3, 7))


def test_bf16_is_close_to_fp32() -> None:
    model = GPT(SMALL, V).eval()
    exact = model(ids()).logits
    half = copy.deepcopy(model).to(torch.bfloat16)(ids()).logits
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.1)


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    model = GPT(SMALL, V).eval()
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(ids()).logits, model(ids()).logits, atol=1e-5, rtol=1e-5)


def test_plain_data_raises_spec_errors() -> None:
    with pytest.raises(SpecError, match="unknown norm 'rmss'"):
        GPT({"norm": "rmss"}, V)


@torch.no_grad()
@pytest.mark.parametrize("call", ["rows", "documents", "padding", "prefix"])
def test_head_of_the_hidden_vectors_equals_the_logits(call: str) -> None:
    model = GPT(
        {"d_model": 16, "n_layers": 2, "context_length": 16, "attention": {"n_heads": 2}, "norm": "layer"}, 31
    ).eval()
    ids = torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(0))
    options: dict[str, dict[str, Tensor]] = {
        "rows": {},
        "documents": {"documents_BT": torch.tensor([[0] * 5 + [1] * 7, [0] * 12])},
        "padding": {"left_padding_B": torch.tensor([0, 3])},
        "prefix": {"prefix_B": torch.tensor([4, 2])},
    }
    x_BTE, context = model.hidden(ids, **options[call])
    torch.testing.assert_close(model.head(x_BTE, context), model(ids, **options[call]).logits)
    torch.testing.assert_close(model.head(x_BTE[:, 3:5], context.span(3, 5)), model.head(x_BTE, context)[:, 3:5])
    with pytest.raises(StateError, match="do not fit into the context length"):
        model.hidden(torch.zeros(1, 17, dtype=torch.long))
