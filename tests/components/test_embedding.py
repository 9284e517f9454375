"""Token embedding: each step of its formula in order, and the families that use it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.embedding.modules.token import TokenEmbedding
from gptkit.components.embedding.token import TokenEmbeddingSpec
from gptkit.core.registry import default_registry
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward

B, T, E, V = 3, 6, 24, 50
IDS = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(0))


def built(position: str | None = None, **fields: Any) -> TokenEmbedding:
    location = None if position is None else default_registry().component("position", position).model_validate({})
    context = BuildContext(d_model=E, context_length=8, n_layers=2, vocab_size=V, position=location)  # type: ignore[arg-type]
    module = TokenEmbeddingSpec(**fields).build(context)
    assert isinstance(module, TokenEmbedding)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def run(module: nn.Module, **changes: Any) -> Tensor:
    result: Tensor = module(IDS, Forward(IDS, **changes))
    return result


def test_embedding_returns_rows_of_the_table() -> None:
    module = built()
    assert run(module).shape == (B, T, E)
    assert torch.equal(run(module), module.table.weight[IDS])
    assert module.table_VE is module.table.weight
    assert module.table_VE.shape == (V, E)


def test_learned_positions_are_added_by_position() -> None:
    module = built("learned")
    table = next(parameter for name, parameter in module.named_parameters() if name.startswith("position"))
    torch.testing.assert_close(run(module), module.table.weight[IDS] + table[:T], rtol=0, atol=1e-6)
    torch.testing.assert_close(run(module, offset=2), module.table.weight[IDS] + table[2 : T + 2], rtol=0, atol=1e-6)
    starts = torch.tensor([0, 2, 5])
    padded = run(module, left_padding_B=starts)
    for row, start in enumerate(starts.tolist()):
        wanted = module.table.weight[IDS[row, start:]] + table[: T - start]
        torch.testing.assert_close(padded[row, start:], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("position", [None, "rotary", "alibi", "none"])
def test_relative_positions_do_not_change_the_embedding(position: str | None) -> None:
    module = built(position)
    assert module.position is None
    assert torch.equal(run(module), module.table.weight[IDS])


def test_steps_are_applied_in_the_documented_order() -> None:
    module = built("learned", scale=3.0, norm="layer", d_embedding=10, dropout=0.5)
    table = next(parameter for name, parameter in module.named_parameters() if name.startswith("position"))
    wide = module.table.weight[IDS] @ module.project.weight.T * 3.0
    wanted = F.layer_norm(wide, (E,), module.norm.weight, module.norm.bias, 1e-5) + table[:T]
    torch.testing.assert_close(run(module.eval()), wanted, rtol=0, atol=1e-5)
    module.train()
    dropped = run(module)
    kept = dropped != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * wanted[kept], rtol=0, atol=1e-4)


def test_scale_sqrt_uses_d_model() -> None:
    module = built(scale="sqrt", d_embedding=10)
    plain = module.table.weight[IDS] @ module.project.weight.T
    torch.testing.assert_close(run(module), plain * math.sqrt(E), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_equals_gemma(dtype: torch.dtype) -> None:
    pytest.importorskip("transformers")
    from transformers import GemmaConfig, GemmaModel

    config = GemmaConfig(
        vocab_size=V, hidden_size=E, num_hidden_layers=0, num_attention_heads=2, num_key_value_heads=1, intermediate_size=8
    )
    reference = GemmaModel(config).to(dtype)
    module = built(scale="sqrt").to(dtype)
    reference.embed_tokens.weight.data.copy_(module.table.weight)
    reference.norm = nn.Identity()
    with torch.no_grad():
        assert torch.equal(run(module), reference(input_ids=IDS).last_hidden_state)


def test_unused_options_add_no_parameters() -> None:
    assert {name for name, _ in built().named_parameters()} == {"table.weight"}
    assert not any(isinstance(module, (nn.Dropout, nn.LayerNorm, nn.Linear)) for module in built().modules())
    assert not list(built(scale="sqrt").buffers())
    assert "project.weight" in built(d_embedding=10).state_dict()
    assert "project.weight" not in built(d_embedding=E).state_dict()


def test_width_is_resolved() -> None:
    context = BuildContext(d_model=E, context_length=8, n_layers=2, vocab_size=V)
    resolved = TokenEmbeddingSpec(norm="layer").resolved(context)  # type: ignore[arg-type]
    assert resolved.d_embedding == E
    assert TokenEmbeddingSpec(d_embedding=10).resolved(context).d_embedding == 10


def test_embedding_copies_casts_and_builds_on_meta() -> None:
    module = built("learned", scale="sqrt", norm="rms")
    assert torch.equal(run(copy.deepcopy(module)), run(module))
    assert run(copy.deepcopy(module).bfloat16()).dtype == torch.bfloat16
    with torch.device("meta"):
        empty = TokenEmbeddingSpec(scale="sqrt").build(BuildContext(E, 8, 2, V))
        y = empty(IDS.to("meta"), Forward(IDS.to("meta")))
    assert y.is_meta
    assert y.shape == (B, T, E)
