"""Block `attention-residuals` against its formula, its sources from block to block, and a training that learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.components.block.modules.attention_residuals import attend_to_sources
from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from tests.support.learning import N_TOKENS, alternating, assert_learns

E, T = 12, 9
ATTENTION = {"name": "multi-head", "n_heads": 2}


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def forward() -> Forward:
    return Forward(torch.zeros(1, T, dtype=torch.long))


def build(n_layers: int, **fields: Any) -> list[Any]:
    """Return blocks with random weights, queries among them."""
    parts = {"d_model": E, "context_length": 32, "position": "none", "attention": ATTENTION, "norm": "layer"}
    block = {"name": "attention-residuals", **fields}
    model = gptkit.GPT({**parts, "n_layers": n_layers, "block": block}, 20).double()
    with torch.no_grad():
        for seed, parameter in enumerate(model.blocks.parameters()):
            parameter.copy_(inputs(*parameter.shape, seed=seed) * 0.5)
    return list(model.blocks)


def queries(model: gptkit.GPT) -> list[Tensor]:
    result = [parameter for name, parameter in model.named_parameters() if name.endswith("_query")]
    assert len(result) == 2 * model.spec.n_layers  # that of the output in place of the first attention's
    return result


def mean(sources: list[Tensor], query: Tensor, *, scale: float = 1.0, normalize: bool = False) -> Tensor:
    """Return the weighted mean of vectors (T, E), token by token, as the paper writes it."""
    rows = []
    for t in range(T):
        keys = [source[t] / (source[t].square().mean() + 1e-6).sqrt() for source in sources]
        values = keys if normalize else [source[t] for source in sources]
        shares = torch.tensor([scale * float(query @ key) for key in keys], dtype=torch.float64).exp()
        rows.append(sum(share / shares.sum() * value for share, value in zip(shares, values, strict=True)))
    return torch.stack(rows)  # type: ignore[arg-type]


def convolved(u: Tensor, weight: Tensor) -> Tensor:
    """Return (T, E) plus its convolution with (E, 1, W), divided by the root of W + 1."""
    width = weight.shape[2]
    rows = [
        u[t] + sum(weight[:, 0, width - 1 - back] * u[t - back] for back in range(min(width, t + 1))) for t in range(len(u))
    ]
    return torch.stack(rows) / (width + 1) ** 0.5


SCALED = {"score_scale": 0.3, "normalize_sources": True}


@torch.no_grad()
@pytest.mark.parametrize(
    ("group", "fields"), [(None, {}), (1, {}), (2, {}), (3, {}), (2, SCALED), (None, SCALED), (2, {"output_conv": 3})]
)
def test_blocks_equal_their_formula(group: int | None, fields: dict[str, Any]) -> None:
    convolves = "output_conv" in fields
    layers = build(4, group=group, **fields, **({"output_conv_scaled": True} if convolves else {}))
    weighted = {"scale": fields.get("score_scale", 1.0), "normalize": "normalize_sources" in fields}
    context, x = forward(), inputs(1, T, E)
    result = x
    outputs = [result := layer(result, context) for layer in layers]

    complete, partial = [x[0]], None
    for index, layer in enumerate(layers):
        for branch in ("attention", "feedforward"):
            query, sources = getattr(layer, f"{branch}_query"), [*complete, *([] if partial is None else [partial])]
            h = x[0] if query is None else mean(sources, query, **weighted)
            out = getattr(layer, branch)(getattr(layer, f"{branch}_norm")(h)[None], forward())[0]
            if convolves:
                out = convolved(out, getattr(layer, f"{branch}_conv").weight)
            if group is None:
                complete.append(out)
            else:
                if branch == "attention" and index % group == 0 and partial is not None:
                    complete.append(partial)
                    partial = None
                partial = out if partial is None else partial + out
        sources = [*complete, *([] if partial is None else [partial])]
        if index < 3:
            torch.testing.assert_close(outputs[index][0], sum(sources))
    assert [layer.attention_query is None for layer in layers] == [True, False, False, False]
    assert [layer.output_query is None for layer in layers] == [True, True, True, False]
    h = mean(sources, layers[-1].output_query, **weighted)
    torch.testing.assert_close(result[0], h)


@torch.no_grad()
@pytest.mark.parametrize("n_sources", [1, 4])
def test_weighted_means_equal_those_of_transformers(n_sources: int) -> None:
    modeling = pytest.importorskip("transformers.models.inkling2.modeling_inkling2")
    from transformers.models.inkling2 import Inkling2TextConfig

    reference = modeling.Inkling2BlockAttentionResidual(Inkling2TextConfig(hidden_size=E))
    reference.query.copy_(inputs(E, seed=9))
    sources = [inputs(2, T, E, seed=seed).float() * (seed + 1) for seed in range(n_sources)]
    (wanted,) = reference(
        torch.stack(sources[:-1], dim=-2) if sources[:-1] else sources[0].new_zeros(2, T, 0, E), sources[-1]
    )
    result = attend_to_sources(sources, reference.query, 1e-6, scale=E**-0.5, normalize=True)
    torch.testing.assert_close(result, wanted)


@torch.no_grad()
def test_queries_of_zeros_weigh_sources_equally() -> None:
    sources = [inputs(2, T, E, seed=seed) for seed in range(5)]
    torch.testing.assert_close(attend_to_sources(sources, torch.zeros(E), 1e-6), torch.stack(sources).mean(dim=0))
    model = gptkit.GPT({"d_model": E, "attention": ATTENTION, "block": "attention-residuals", "n_layers": 2}, 20)
    assert not any(query.any() for query in queries(model))


@torch.no_grad()
def test_keys_and_values_have_inputs_of_their_own() -> None:
    layers = build(2, kv_inputs=True)
    assert layers[1].attention_query.shape == (3, E)
    given: list[tuple[Tensor, ...]] = []
    for layer in layers:
        layer.attention.register_forward_pre_hook(
            lambda module, args, kwargs: given.append((args[0], *kwargs["kv_BTE"])), with_kwargs=True
        )
    context, x = forward(), inputs(1, T, E)
    layers[0](x, context)
    (sources, _) = context._accompanied[1][layers[1].key]
    context = forward()
    layers[1](layers[0](x, context), context)
    norms = [[layer.attention_norm, layer.key_norm, layer.value_norm] for layer in layers]
    for norm, own in zip(norms[0], given[0], strict=True):
        torch.testing.assert_close(own, norm(x))
    for norm, query, own in zip(norms[1], layers[1].attention_query, given[-1], strict=True):
        torch.testing.assert_close(own[0], norm(mean([source[0] for source in sources], query)))


def test_attention_without_inputs_of_keys_is_refused() -> None:
    block = {"name": "attention-residuals", "kv_inputs": True}
    for attention in ({**ATTENTION, "tie_kv": True}, {**ATTENTION, "reuse_kv": True}, {"name": "mamba2"}):
        with pytest.raises(SpecError, match=r"kv_inputs: attention .* does not compute keys and values from own inputs"):
            validate_data({"d_model": E, "attention": attention, "block": block, "n_layers": 2}, ModelSpec)


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


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"group": 2}, {"group": 2, **SCALED, "output_conv": 2, "output_conv_scaled": True}])
def test_training_learns_the_token_before_the_last(fields: dict[str, Any]) -> None:
    block = {"name": "attention-residuals", **fields}
    parts = {"d_model": 16, "n_layers": 3, "context_length": 16, "attention": ATTENTION, "block": block}
    model = gptkit.GPT(parts, N_TOKENS, seed=0)
    assert_learns(model, alternating, steps=100)
    assert all(query.any() for query in queries(model))
