"""Block `engram` against the per-layer embedding of transformers' Qwen 4 Exp, in pieces, and with packed documents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.core.errors import GptkitError, SpecError
from gptkit.ejection.writing import write_source
from gptkit.kinds.written import NotWrittenError
from gptkit.nn.forward import Forward
from gptkit.ops.ngram_hash import prime_sizes
from tests.support.learning import N_TOKENS, alternating, assert_learns
from tests.support.padded_pieces import assert_padded_pieces_equal_one_call

V, E, T = 31, 12, 20
STREAMS = {"name": "gated-hyper-connections", "streams": 3, "rank": 5}
ENGRAM = {"name": "engram", "heads": 2, "d_embedding": 16, "table_rows": 23, "boundary": 3}
NORM = {"name": "rms", "eps": 1e-4, "offset": 1, "cast": "after"}
PARTS = {"d_model": E, "n_layers": 2, "attention": {"name": "multi-head", "n_heads": 2}, "norm": NORM, "context_length": 64}


def make(**fields: Any) -> gptkit.GPT:
    model = gptkit.GPT({**PARTS, "block": {**ENGRAM, **fields}}, V)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model.eval()


def ids(rows: int = 2, length: int = T) -> Tensor:
    tokens = torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))
    tokens[:, [2, 6, 7]] = 3
    return tokens


@pytest.mark.parametrize("fields", [{}, {"max_ngram": 2, "conv_width": 3}, {"max_ngram": 5, "heads": 1}])
@torch.no_grad()
def test_additions_equal_those_of_transformers(fields: dict[str, Any]) -> None:
    modeling = pytest.importorskip("transformers.models.qwen4_exp.modeling_qwen4_exp")
    from transformers.models.qwen4_exp import Qwen4ExpTextConfig

    model = make(block=STREAMS, row_multiple=8, seed=1234, **fields)
    settings = Qwen4ExpTextConfig(
        vocab_size=V,
        hidden_size=E,
        hc_count=3,
        rms_norm_eps=1e-4,
        num_hidden_layers=2,
        layer_types=["linear_attention"] * 2,
        ple_layer_ids=[1, 2],
        ple_embed_dim=16,
        heads_per_ngram=fields.get("heads", 2),
        ngram_vocab_size_base=23,
        make_ngram_vocab_size_divisible_by=8,
        ple_conv_kernel_size=fields.get("conv_width", 4),
        eos_token_id=3,
        ngram_size=fields.get("max_ngram", 3),
    )
    tokens = ids()
    for index, block in enumerate(model.blocks):
        engram: Any = block.engram
        reference = modeling.Qwen4ExpTextPLELayer(settings, index, index)
        tables = reference.ple_embedding
        assert torch.equal(engram.tables.multipliers, tables.layer_multipliers)
        assert torch.equal(engram.tables.sizes, tables.ngram_heads_vocab_sizes)
        assert torch.equal(engram.tables.offsets, tables.ngram_heads_offsets)
        pairs = [
            (tables.ngram_embedding, engram.tables.table),
            (reference.key_proj, engram.key),
            (reference.value_proj, engram.value),
            (reference.norm_key, engram.key_norm),
            (reference.norm_query, engram.query_norm),
            (reference.norm_conv, engram.value_norm),
            (reference.conv1d, engram.conv),
        ]
        for other, own in pairs:
            other.weight.copy_(own.weight.reshape(other.weight.shape))
        streams = torch.randn(2, T, 3, E, generator=torch.Generator().manual_seed(index))
        result = engram(streams, Forward(tokens))
        wanted = streams.flatten(2) + reference(streams.flatten(2), tokens, None)
        torch.testing.assert_close(result.flatten(2), wanted, rtol=1e-5, atol=1e-5)


def test_tables_have_primes_of_their_own_over_all_layers() -> None:
    assert prime_sizes(20, 0, 4) == [23, 29, 31, 37]
    assert prime_sizes(23, 3, 2) == [37, 41]
    blocks: Any = make().blocks
    assert [block.engram.tables.sizes.tolist() for block in blocks] == [[23, 29, 31, 37], [41, 43, 47, 53]]


@torch.no_grad()
def test_without_a_boundary_ngrams_reach_to_the_first_token() -> None:
    """Three equal ids have one embedding wherever they are, except at the start of a text."""
    blocks: Any = make(boundary=None).blocks
    tables = blocks[0].engram.tables
    embedded = tables(torch.full((1, 6), 3), torch.zeros(1, 2, dtype=torch.long), Forward(torch.full((1, 6), 3)))
    assert torch.equal(embedded[0, 2:], embedded[0, 2:3].expand(4, -1))
    assert not torch.equal(embedded[0, 1], embedded[0, 2])
    assert not torch.equal(embedded[0, 0], embedded[0, 1])


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("fields", [{}, {"block": STREAMS, "max_ngram": 5, "heads": 1}])
def test_pieces_behind_padding_equal_one_call(static: bool, fields: dict[str, Any]) -> None:
    assert_padded_pieces_equal_one_call(make(**fields).double(), ids(), static=static)


@pytest.mark.parametrize("block", ["pre-norm", STREAMS])
@torch.no_grad()
def test_packed_documents_equal_single_ones(block: Any) -> None:
    model, tokens = make(block=block).double(), ids(1)
    packed = model(tokens, documents_BT=torch.tensor([[0] * 5 + [1] * 1 + [2] * 14])).logits
    for begin, end in ((0, 5), (5, 6), (6, T)):
        torch.testing.assert_close(packed[:, begin:end], model(tokens[:, begin:end]).logits, atol=1e-9, rtol=1e-9)


def test_final_norm_is_that_of_the_block() -> None:
    assert make().spec.final_norm is not None
    assert make(block=STREAMS).spec.final_norm is None


def test_training_learns_the_token_before_the_last() -> None:
    """From the tables of n-grams alone: attention sees the current token only."""
    parts = {
        "d_model": 16,
        "n_layers": 1,
        "context_length": 16,
        "attention": {"name": "multi-head", "n_heads": 2, "window": 1},
    }
    engram = {"name": "engram", "heads": 2, "table_rows": 200, "d_embedding": 16}
    assert_learns(gptkit.GPT({**parts, "block": engram}, N_TOKENS, seed=0), alternating, steps=200)


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(SpecError, match="cannot be divided among 4 tables"):
        make(d_embedding=15)
    with pytest.raises(SpecError, match="norm 'gated' contains another one and cannot be stacked over streams"):
        gptkit.GPT({**PARTS, "norm": "gated", "block": ENGRAM}, V)
    with pytest.raises(SpecError, match="choose another block there"):
        gptkit.GPT({**PARTS, "head": {"name": "multi-token", "block": {**ENGRAM}}}, V)
    with pytest.raises(GptkitError, match="whose residual streams it would interrupt"):
        make(block="altup")


def test_copies_of_other_sizes_in_a_layer_are_not_written_out() -> None:
    cycles = {"name": "hierarchical", "blocks": 2, "block": {**ENGRAM}}
    model = gptkit.GPT({**PARTS, "block": cycles}, V)
    assert len({tuple(table.weight.shape) for table in model.modules() if isinstance(table, torch.nn.Embedding)}) > 2
    with pytest.raises(NotWrittenError, match="each of its blocks has NGramTables of other sizes"):
        write_source(model.spec, V, name="cycles", parameters=0)
