"""Block `attention-residuals` against its formula, its sources from block to block, and a training that learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gptkit_research.attention_residuals import attend_to_sources
from research_parts import E, T, build, forward, inputs, spec
from torch import Tensor

import gptkit
from gptkit.nn.forward import Forward

ATTENTION = {"name": "multi-head", "n_heads": 2}


def mean(sources: list[Tensor], query: Tensor) -> Tensor:
    """Return the weighted mean of vectors (T, E), token by token, as the paper writes it."""
    rows = []
    for t in range(T):
        keys = [source[t] / (source[t].square().mean() + 1e-6).sqrt() for source in sources]
        shares = torch.tensor([float(query @ key) for key in keys], dtype=torch.float64).exp()
        rows.append(sum(share / shares.sum() * source[t] for share, source in zip(shares, sources, strict=True)))
    return torch.stack(rows)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("group", [None, 1, 2, 3])
def test_blocks_equal_their_formula(group: int | None) -> None:
    fields = {"name": "attention-residuals", "group": group}
    layers = build(spec(block=fields, attention=ATTENTION, norm="layer"), "block", 4)
    context, x = forward(), inputs(1, T, E)
    result = x
    for layer in layers:
        result = layer(result, context)

    complete, partial, h = [x[0]], None, x[0]
    for index, layer in enumerate(layers):
        for branch in ("attention", "feedforward"):
            out = getattr(layer, branch)(getattr(layer, f"{branch}_norm")(h)[None], forward())[0]
            if group is None:
                complete.append(out)
            else:
                if branch == "attention" and index % group == 0 and partial is not None:
                    complete.append(partial)
                    partial = None
                partial = out if partial is None else partial + out
            query = layer.feedforward_query if branch == "attention" else layer.output_query
            h = mean([*complete, *([] if partial is None else [partial])], query)
    torch.testing.assert_close(result[0], h)


@torch.no_grad()
def test_queries_of_zeros_weigh_sources_equally() -> None:
    sources = [inputs(2, T, E, seed=seed) for seed in range(5)]
    torch.testing.assert_close(attend_to_sources(sources, torch.zeros(E), 1e-6), torch.stack(sources).mean(dim=0))
    model = gptkit.GPT({"d_model": E, "attention": ATTENTION, "block": "attention-residuals", "n_layers": 2}, 20)
    blocks: Any = model.blocks
    assert not any(query.any() for block in blocks for query in (block.feedforward_query, block.output_query))


@torch.no_grad()
def test_weights_are_computed_in_fp32() -> None:
    sources = [inputs(2, T, E, seed=seed).bfloat16() for seed in range(3)]
    query = inputs(E, seed=9).bfloat16()
    exact = attend_to_sources([source.double() for source in sources], query.double(), 1e-6)
    result = attend_to_sources(sources, query, 1e-6)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), exact, rtol=0.02, atol=0.02)
    single = [source.float() for source in sources]
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = attend_to_sources(single, query.float(), 1e-6)
    assert torch.equal(under_autocast, attend_to_sources(single, query.float(), 1e-6))


@torch.no_grad()
def test_sources_restart_after_another_block() -> None:
    names = ("attention-residuals", "attention-residuals", "pre-norm", "attention-residuals")
    model = gptkit.GPT({"d_model": E, "attention": ATTENTION, "layers": [{"block": {"name": name}} for name in names]}, 20)
    received = []

    def record(block: Any, args: tuple[Tensor, Forward]) -> None:
        carried = args[1].carried(block, ("attention-residuals", None))
        received.append(None if carried is None else len(carried[0]))

    for block in model.blocks:
        block.carries = (("attention-residuals", None),)
        block.register_forward_pre_hook(record)
    model(torch.zeros(1, T, dtype=torch.long))
    assert received == [None, 3, 5, None]


@pytest.mark.parametrize("group", [None, 2])
def test_training_learns_the_token_before_the_last(group: int | None) -> None:
    block = {"name": "attention-residuals", "group": group}
    model = gptkit.GPT(
        {"d_model": 16, "n_layers": 3, "context_length": 16, "attention": ATTENTION, "block": block}, 8, seed=0
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(80):
        tokens = torch.randint(8, (32, 9), generator=generator)
        for t in range(2, 9):
            tokens[:, t] = tokens[:, t - 2]
        loss = model(tokens[:, :-1], tokens[:, 1:]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.9
    assert min(losses[-10:]) < 0.7  # the first of eight predictions is a guess, log 8
    blocks: Any = model.blocks
    assert all(query.any() for block in blocks for query in (block.feedforward_query, block.output_query))
